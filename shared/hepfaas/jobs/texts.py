"""The files that came with a job, as texts. Light: clients import it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from hepfaas.datasets.files import checked_name, listed
from hepfaas.errors import RequestError
from hepfaas.runs.json_values import json_object
from hepfaas.runs.old_specs import MOST_NAMED, is_old_specs, old_specs_of
from hepfaas.runs.params import Params
from hepfaas.runs.preproc import preprocessing_of
from hepfaas.runs.preprocessing import NOTHING
from hepfaas.runs.preprocessing_keys import joined

MOST_FUNCTION = 100_000
"""Characters of the file with `preprocessing(record)`: it is a part of each step that reads a file."""

MODULE, SUBMIT, PREPROC = "model.py", "submit.json", "preproc.json"
_UNUSED_SPECS = "ranges are those of the files; to use one, name it with --specs or 'specs' in params.json"
MOST_TEXT_BYTES = 5_000_000
"""Size of each text that is read: lists, samples, params.json, submit.json, Python files."""


@dataclass(frozen=True)
class Texts:
    """The files that came with a job.

    read, size_bytes: return the content of one by its name, and its size. place: where they are. used: names of the
    files that make the job and are not its code.
    """

    names: Collection[str]
    read: Callable[[str], bytes]
    size_bytes: Callable[[str], int]
    place: str
    used: set[str] = field(default_factory=set)

    def text(self, name: str) -> str:
        """Return the text of a file. Raises: RequestError if it is missing or not UTF-8."""
        try:
            path = checked_name(name).as_posix()
            if (size := self.size_bytes(path)) > MOST_TEXT_BYTES:
                raise RequestError(f"'{path}' has {size / 1e6:,.1f} MB; at most {MOST_TEXT_BYTES / 1e6:g} MB are read")
            self.used.add(path)
            return self.read(path).decode("utf-8-sig")  # Windows editors write a BOM
        except (KeyError, FileNotFoundError) as error:
            names = sorted(name for name in self.names if "/" not in name)
            similar = ", ".join(difflib.get_close_matches(name, names, 3, 0.3) or names[:10])
            raise RequestError(f"{self.place} has no '{name}'; it has: {similar or 'nothing'}") from error
        except (OSError, UnicodeDecodeError) as error:
            why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
            raise RequestError(f"'{name}' in {self.place} cannot be read as text: {why}") from error

    def completed(self, params: Params, preproc: str = "", specs: str = "") -> Params:
        """Return params with what other files say: excluded branches, the preprocessing of preproc.json, and ranges.

        preproc, specs: names of these files, if submit.json or an option names them. Raises: RequestError.
        """
        recipe, notes = dict(params.recipe), params.notes
        file = params.branch_file or ""
        if file in self.names or file.endswith(".txt"):
            recipe["excluded"] = listed(self.text(file))
        name = preproc or params.preproc or (PREPROC if PREPROC in self.names else "")
        if name:
            if name.endswith(".py"):
                return replace(params, recipe={**recipe, "record_function": self._record_function(name)}, notes=notes)
            first, more = preprocessing_of(json_object(self.text(name), name), name)
            recipe["preprocessing"] = joined(first, recipe.get("preprocessing", NOTHING), f"{name} and params.json")
            notes = (*notes, *more)
        if ranges := specs or params.specs:
            recipe["specs"], more = old_specs_of(json_object(self.text(ranges), ranges), ranges)
            notes = (*notes, f"{ranges} gives the ranges of the branches, which are compared with the files", *more)
        elif unused := sorted(filter(is_old_specs, self.names)):
            self.used.update(unused)
            one = "has" if len(unused) == 1 else "have"
            notes = (*notes, f"{', '.join(unused[:MOST_NAMED])} {one} no effect: {_UNUSED_SPECS}")
        return replace(params, recipe=recipe, notes=notes)

    def _record_function(self, name: str) -> str:
        """Return the source of `preprocessing(record)`. Raises: RequestError if it is too long."""
        source = self.text(name)
        if len(source) > MOST_FUNCTION:
            raise RequestError(f"'{name}' has {len(source):,} characters; at most {MOST_FUNCTION:,} are taken")
        return source


def texts_in(folder: Path) -> Texts:
    """Return the files in a folder. Raises: RequestError if it is not one."""
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is not a folder; `hepfaas train` takes the folder with files.txt and model.py")
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return Texts(
        paths,
        lambda name: (folder / name).read_bytes(),
        lambda name: (folder / name).stat().st_size,
        f"folder '{folder.resolve().name}'",
    )


def bytes_of(path: Path, name: str) -> bytes:
    """Return the content of a file. name: of the file in messages. Raises: RequestError if it is too large."""
    if (size := path.stat().st_size) > MOST_TEXT_BYTES:
        raise RequestError(f"'{name}' has {size / 1e6:,.1f} MB; at most {MOST_TEXT_BYTES / 1e6:g} MB are read")
    return path.read_bytes()
