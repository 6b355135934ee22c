"""A user's folder: files.txt, labels.txt, model.py, params.json, perhaps submit.json, and the recipe it asks for."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepfaas.datasets.files import checked_name, labels_of, listed, located, paired
from hepfaas.errors import RequestError
from hepfaas.platform.storage import Store
from hepfaas.runs.params import NO_PREPROC, REDIRECTOR, Params, check_no_preproc, json_object, params_of
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.steps.objects import encoded, put_blob

MOST_CODE_BYTES = 5_000_000
MOST_TEXT_BYTES = 5_000_000
"""Of each file that is read here: lists, params.json, submit.json."""
MOST_ADDRESSES = 5_000_000
"""Characters of all addresses of a job, which each look at its run reads again."""
READ = "functions read root://, s3://, http(s):// addresses and files that came with the job"
PREPROC = "preproc.json"
_NAMED_BY_SUBMIT = ("files", "labels", "model", "params")
_SUBMIT_KEYS = ("name", "device", "memory", "cpus", *_NAMED_BY_SUBMIT)


@dataclass(frozen=True)
class Names:
    """Names of the files in the folder that make a job, and of the model that comes out."""

    files: str = "files.txt"
    labels: str = "labels.txt"
    model: str = "model.py"
    params: str = "params.json"
    name: str | None = None


Place = Callable[[str, Path], str]
"""Where steps find a listed file: its URL, given the URL or path that was listed and the job's folder."""


def recipe_of(
    folder: Path, given: Mapping[str, str], store: Store, place: Place | None = None
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe that the folder asks for, its code stored, and notes for the user.

    `given`: names that the user gave by option; they win over those of a submit.json, and these over the usual.
    `place`: what becomes of a listed file where steps run on other machines; there no file of this machine counts but
    those in the folder.
    Raises: RequestError naming the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is no folder; `hepfaas train` takes the folder with files.txt and model.py")
    names, notes = _names(folder, given)
    params = params_of(_text(folder, names.params), names.params) if _has_params(folder, names, given) else Params({})
    listed_files = _files(folder, names, params.redirector, place is not None)
    placed = (lambda url: place(url, folder)) if place else str
    recipe = Recipe(
        name=_model_name(names.name or folder.resolve().name),
        files=tuple(LabelledFile(placed(url), label) for url, label in listed_files),
        code=_stored_code(folder, names.model, store),
        module=names.model,
        **{**params.recipe, **_excluded(folder, params)},
    )
    preproc = (f"{PREPROC} has no effect: {NO_PREPROC}",) if (folder / PREPROC).exists() else ()
    return recipe, (*notes, *params.notes, *preproc)


def _names(folder: Path, given: Mapping[str, str]) -> tuple[Names, tuple[str, ...]]:
    submit = folder / "submit.json"
    asked = _submitted(_text(folder, submit.name)) if submit.exists() else {}
    notes = tuple(f"submit.json: '{key}' has no effect here" for key in ("device", "memory", "cpus") if key in asked)
    named = {key: value for key, value in asked.items() if key in (*_NAMED_BY_SUBMIT, "name")}
    return Names(**{**named, **given}), notes


def _submitted(text: str) -> dict[str, Any]:
    values = json_object(text, "submit.json")
    check_no_preproc(values, "submit.json")
    for key, value in values.items():
        if key not in _SUBMIT_KEYS:
            close = difflib.get_close_matches(key[:100], _SUBMIT_KEYS, 1) or _SUBMIT_KEYS
            raise RequestError(f"submit.json has the unknown key '{key[:100]}'; closest: {', '.join(close)}")
        if key in (*_NAMED_BY_SUBMIT, "name") and not isinstance(value, str):
            takes = "a name" if key == "name" else "the name of a file in the folder"
            raise RequestError(f"submit.json: '{key}' is {json.dumps(value)[:60]}; it takes {takes}")
    return values


def _has_params(folder: Path, names: Names, given: Mapping[str, str]) -> bool:
    """A folder without a params.json is trained with the usual ones, unless the user named the file."""
    return "params" in given or names.params != Names.params or (folder / names.params).exists()


def _text(folder: Path, name: str) -> str:
    """What a file of the folder says, and no other file of this machine. Raises: RequestError if it cannot be."""
    path = folder / checked_name(name)
    try:
        if (size := path.stat().st_size) > MOST_TEXT_BYTES:
            raise RequestError(f"'{name}' has {size / 1e6:,.1f} MB; at most {MOST_TEXT_BYTES / 1e6:g} MB are read")
        return path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a mark that nobody sees
    except FileNotFoundError as error:
        there = sorted(found.name for found in folder.iterdir() if found.is_file())
        close = difflib.get_close_matches(name, there, 3, 0.3) or there[:10]
        has = ", ".join(close) or "nothing"
        raise RequestError(f"folder '{folder.resolve().name}' has no '{name}'; it has: {has}") from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise RequestError(f"'{name}' in folder '{folder.resolve().name}' cannot be read as text: {why}") from error


def _files(folder: Path, names: Names, redirector: str, inside: bool) -> tuple[tuple[str, int], ...]:
    paths = listed(_text(folder, names.files))
    for path in paths if inside and redirector == REDIRECTOR else ():
        if path.startswith("/") and not path.startswith("/store/") and "://" not in path:
            raise RequestError(f"file '{path[:200]}' is not in the folder, and no name of CMS's either; {READ}")
    urls = [located(path, folder, redirector, inside) for path in paths]
    if (size := sum(map(len, urls))) > MOST_ADDRESSES:
        raise RequestError(
            f"the addresses of the files have {size / 1e6:,.1f} MB together; at most {MOST_ADDRESSES / 1e6:g} MB are "
            "taken: 'redirector' counts once for each file"
        )
    return paired(urls, labels_of(_text(folder, names.labels)))


def _excluded(folder: Path, params: Params) -> dict[str, Any]:
    return {"excluded": listed(_text(folder, params.branch_file))} if params.branch_file else {}


def _model_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise RequestError(
            f"'{name[:100]}' cannot name a model: use up to 64 letters, digits, '.', '_' and '-' (option --name)"
        )
    return name


def _stored_code(folder: Path, module: str, store: Store) -> str:
    """Stores all Python files of the folder, since model.py may import them, and gives the key of their list."""
    paths = {path for path in folder.rglob("*.py") if path.is_file() and not _is_foreign(path, folder)}
    paths |= {path for path in (folder / checked_name(module),) if path.is_file()}
    size = sum(path.stat().st_size for path in paths)
    if size > MOST_CODE_BYTES:
        raise RequestError(
            f"folder '{folder.resolve().name}' has {size / 1e6:.1f} MB of Python files; at most 5 MB go with a job"
        )
    _text(folder, module)
    manifest = {path.relative_to(folder).as_posix(): put_blob(store, path.read_bytes()) for path in sorted(paths)}
    return put_blob(store, encoded(manifest))


def _is_foreign(path: Path, folder: Path) -> bool:
    """Whether a file lies in a hidden folder or a virtual environment below the user's."""
    above = [parent for parent in path.parents if parent != folder and parent.is_relative_to(folder)]
    return any(parent.name.startswith(".") or (parent / "pyvenv.cfg").exists() for parent in above)
