"""A training job as a value, and its recipe. A job comes as a folder (folder.py) or as a JSON object."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hepfaas.datasets.files import checked_name, labels_of, listed, located, paired
from hepfaas.errors import RequestError
from hepfaas.jobs.uploads import checked_path
from hepfaas.platform.storage import Store
from hepfaas.runs.params import REDIRECTOR, Params, json_object, params_in
from hepfaas.runs.preproc import preprocessing_of
from hepfaas.runs.preprocessing import NOTHING
from hepfaas.runs.preprocessing_keys import joined
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.steps.objects import encoded, put_blob

MODULE, SUBMIT, PREPROC = "model.py", "submit.json", "preproc.json"
MOST_CODE_BYTES = 5_000_000
MOST_CODE_FILES = 1_000
"""Files in the 'code' of a job that comes as JSON."""
MOST_ADDRESSES = 5_000_000
"""Characters of all addresses of a job: each look at its run reads them again."""
READ = "functions read root://, s3://, http(s):// addresses and files that came with the job"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYS = ("name", "files", "labels", "code", "model", "params", "webhook")

Place = Callable[[str, Path | None], str]
"""Return the URL at which steps read a file, given its address or path and the job's folder."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job: its code is not stored yet, and its addresses are not checked.

    name: of the model that it trains. code: content of each Python file by its name below the job's folder.
    module: the file that defines `model`. files: addresses, or paths on this machine, with their labels.
    folder: the folder with the files that came with the job; None if there is none. notes: for the user.
    """

    name: str
    code: Mapping[str, bytes]
    module: str
    params: Params
    files: tuple[LabelledFile, ...] = ()
    folder: Path | None = None
    webhook: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: RequestError if the name cannot name a model."""
        if not _NAME.fullmatch(self.name):
            allowed = "use up to 64 letters, digits, '.', '_' and '-' (option --name)"
            raise RequestError(f"'{self.name[:100]}' cannot name a model: {allowed}")


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

    def completed(self, params: Params, preproc: str = "") -> Params:
        """Return params with what other files say: excluded branches, and the preprocessing of preproc.json.

        preproc: name of that file, if submit.json names it. Raises: RequestError.
        """
        recipe, notes = dict(params.recipe), params.notes
        if params.branch_file:
            recipe["excluded"] = listed(self.text(params.branch_file))
        name = preproc or params.preproc or (PREPROC if PREPROC in self.names else "")
        if name:
            if name.endswith(".py"):
                raise RequestError(
                    f"'{name}': a function preprocessing(record) is not supported yet; write cuts and new branches as "
                    f"{PREPROC} (docs/how-to/migrate.md)"
                )
            first, more = preprocessing_of(json_object(self.text(name), name), name)
            recipe["preprocessing"] = joined(first, recipe.get("preprocessing", NOTHING), f"{name} and params.json")
            notes = (*notes, *more)
        return replace(params, recipe=recipe, notes=notes)


def job_of(values: Mapping[str, Any]) -> Job:
    """Return the job in the JSON object of POST /v1/runs. Raises: RequestError naming the key and what it takes."""
    job = job_without_files(values)
    files, labels = listed(_lines(values, "files")), labels_of(_lines(values, "labels"))
    return replace(job, files=labelled(files, labels, job.params.redirector))


def job_without_files(values: Mapping[str, Any]) -> Job:
    """Return the job in a JSON object as POST /v1/runs takes it; 'files' and 'labels' are not read."""
    for key in values:
        if key not in _KEYS:
            raise RequestError(f"the job has the unknown key '{key[:100]}'; it takes {', '.join(_KEYS)}")
    contents = _contents(values.get("code"))
    if SUBMIT in contents:
        raise RequestError(f"the job's 'code' has '{SUBMIT}'; give its values as keys of the job instead")
    texts = Texts(contents, contents.__getitem__, "the job's 'code'")
    names = names_in(values, ("name", "model"))
    module, settings = names.get("model", MODULE), values.get("params", {})
    if not isinstance(settings, dict):
        raise RequestError(
            "the job's 'params' is not an object; it takes what params.json takes (docs/reference/params.md)"
        )
    params = texts.completed(params_in(settings, "params.json"))
    return Job(
        name=names.get("name", "model"),
        code=texts.code(module),
        module=module,
        params=params,
        webhook=str(values.get("webhook") or ""),
        notes=params.notes,
    )


def recipe_of(job: Job, store: Store, place: Place | None = None) -> Recipe:
    """Return the recipe of a job, and store its code.

    place: where steps on other machines read a file; None: they run on this machine. Raises: what `place` raises.
    """
    manifest = {name: put_blob(store, data) for name, data in job.code.items()}
    return Recipe(
        name=job.name,
        files=tuple(replace(file, url=place(file.url, job.folder)) for file in job.files) if place else job.files,
        code=put_blob(store, encoded(manifest)),
        module=job.module,
        **job.params.recipe,
    )


def labelled(
    names: Sequence[str], labels: Sequence[int], redirector: str, folder: Path | None = None, *, inside: bool = True
) -> tuple[LabelledFile, ...]:
    """Return each listed file, by its address or its path on this machine, with its label.

    folder: where files that came with the job are. inside: use no file of this machine that is not in the folder.
    Raises: RequestError naming the file and what is wrong with it.
    """
    for name in names if inside and redirector == REDIRECTOR else ():
        if name.startswith("/") and not name.startswith("/store/") and "://" not in name:
            raise RequestError(f"file '{name[:200]}' did not come with the job and does not start with /store/; {READ}")
    urls = [located(name, folder, redirector, inside) for name in names]
    if (size := sum(map(len, urls))) > MOST_ADDRESSES:
        raise RequestError(
            f"the addresses of the files have {size / 1e6:,.1f} MB together; at most {MOST_ADDRESSES / 1e6:g} MB are "
            "taken: 'redirector' counts once for each file"
        )
    return tuple(LabelledFile(url, label) for url, label in paired(urls, labels))


def names_in(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str]:
    """Return the values of those keys that are set. Raises: RequestError if one is not a name."""
    names = {key: values[key] for key in keys if values.get(key) is not None}
    for key, name in names.items():
        if not isinstance(name, str) or not name:
            raise RequestError(f"'{key}' is {json.dumps(name)[:100]}; it takes a name")
        if key != "name":
            checked_name(name)
    return names


def _contents(code: object) -> dict[str, bytes]:
    """Return the content of each file in 'code' by the normal form of its name."""
    if not isinstance(code, dict) or not code or not all(isinstance(text, str) for text in code.values()):
        raise RequestError("the job needs 'code': an object from file name to Python text, 'model.py' among them")
    if len(code) > MOST_CODE_FILES:
        raise RequestError(f"the job's 'code' has {len(code):,} files; it takes {MOST_CODE_FILES:,}, or send a tar.gz")
    contents = {checked_path(name).as_posix(): text.encode(errors="surrogatepass") for name, text in code.items()}
    for name in code:
        if any(folder.as_posix() in contents for folder in checked_path(name).parents):
            raise RequestError(f"'{name}' in the job's 'code' lies below another file")
    if len(contents) < len(code):
        raise RequestError(f"the job's 'code' has a file twice: {', '.join(code)[:200]}")
    return contents


def _lines(values: Mapping[str, Any], key: str) -> str:
    lines = values.get(key)
    if not isinstance(lines, list) or not all(isinstance(line, str | int) for line in lines):
        raise RequestError(f"the job needs '{key}': a list, one for each file")
    return "\n".join(map(str, lines))
