"""The files that came with a job, as texts. Light: clients import it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from hepfaas.datasets.files import checked_name, listed
from hepfaas.errors import RequestError
from hepfaas.runs.params import NO_PREPROC, Params

MODULE, SUBMIT, PREPROC = "model.py", "submit.json", "preproc.json"
MOST_CODE_BYTES = 5_000_000
MOST_TEXT_BYTES = 5_000_000
"""Size of each text that is read: lists, samples, params.json, submit.json, Python files."""


@dataclass(frozen=True)
class Texts:
    """The files that came with a job. read: return the content of one by its name; place: where they are."""

    names: Collection[str]
    read: Callable[[str], bytes]
    place: str

    def text(self, name: str) -> str:
        """Return the text of a file. Raises: RequestError if it is missing or not UTF-8."""
        try:
            return self.read(checked_name(name).as_posix()).decode("utf-8-sig")  # Windows editors write a BOM
        except (KeyError, FileNotFoundError) as error:
            names = sorted(name for name in self.names if "/" not in name)
            similar = ", ".join(difflib.get_close_matches(name, names, 3, 0.3) or names[:10])
            raise RequestError(f"{self.place} has no '{name}'; it has: {similar or 'nothing'}") from error
        except (OSError, UnicodeDecodeError) as error:
            why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
            raise RequestError(f"'{name}' in {self.place} cannot be read as text: {why}") from error

    def code(self, module: str) -> dict[str, bytes]:
        """Return the module and all Python files of the user, which it may import. Raises: RequestError."""
        self.text(module)
        code: dict[str, bytes] = {}
        left = MOST_CODE_BYTES
        for name in {checked_name(module).as_posix(), *filter(self._is_code, self.names)}:
            code[name] = self.read(name)
            left -= len(code[name])
            if left < 0:
                raise RequestError(f"{self.place} has more than {MOST_CODE_BYTES / 1e6:g} MB of Python files")
        return code

    def _is_code(self, name: str) -> bool:
        """Return whether a file is a Python file, not in a hidden folder and not in a virtual environment."""
        return name.endswith(".py") and not any(
            folder.name.startswith(".") or f"{folder}/pyvenv.cfg" in self.names
            for folder in PurePosixPath(name).parents[:-1]
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on files that have no effect."""
        return (f"{PREPROC} has no effect: {NO_PREPROC}",) if PREPROC in self.names else ()

    def completed(self, params: Params) -> Params:
        """Return params with the excluded branches that a file lists."""
        if not params.branch_file:
            return params
        return replace(params, recipe={**params.recipe, "excluded": listed(self.text(params.branch_file))})


def texts_in(folder: Path) -> Texts:
    """Return the files in a folder. Raises: RequestError if it is not one."""
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is not a folder; `hepfaas train` takes the folder with files.txt and model.py")
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return Texts(paths, partial(_read, folder), f"folder '{folder.resolve().name}'")


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if (size := path.stat().st_size) > MOST_TEXT_BYTES:
        raise RequestError(f"'{name}' has {size / 1e6:,.1f} MB; at most {MOST_TEXT_BYTES / 1e6:g} MB are read")
    return path.read_bytes()
