"""A job's folder: files.txt, labels.txt, model.py, params.json and, if there is one, submit.json."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hepfaas.datasets.files import checked_name, labels_of, listed
from hepfaas.errors import RequestError
from hepfaas.jobs.job import MODULE, Job, check_code_size, code_names, labelled, missing, with_branches
from hepfaas.runs.params import NO_PREPROC, Params, check_no_preproc, json_object, params_of

MOST_TEXT_BYTES = 5_000_000
"""Size of each text that is read: lists, params.json, submit.json."""
PREPROC = "preproc.json"
_NAMES = ("files", "labels", "model", "params", "name")
_WITHOUT_EFFECT = ("device", "memory", "cpus")
_KEYS = (*_NAMES, *_WITHOUT_EFFECT)


@dataclass(frozen=True)
class Names:
    """Names of the files in the folder that make a job, and of the model that it trains."""

    files: str = "files.txt"
    labels: str = "labels.txt"
    model: str = MODULE
    params: str = "params.json"
    name: str | None = None


def job_in(folder: Path, chosen: Mapping[str, str], *, inside: bool = True) -> Job:
    """Return the job in a folder.

    chosen: names that the user gave by option; they win over those of submit.json, and these over the defaults.
    inside: use no file of this machine that is not in the folder.
    Raises: RequestError naming the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is not a folder; `hepfaas train` takes the folder with files.txt and model.py")
    submit = _submit(folder)
    names = Names(**{**{key: value for key, value in submit.items() if key in _NAMES}, **chosen})
    text = partial(_text, folder)
    is_named = "params" in chosen or names.params != Names.params
    has_params = is_named or (folder / names.params).exists()
    params = params_of(text(names.params), names.params) if has_params else Params({})
    notes = [f"submit.json: '{key}' has no effect here" for key in _WITHOUT_EFFECT if key in submit]
    preproc = [f"{PREPROC} has no effect: {NO_PREPROC}"] if (folder / PREPROC).exists() else []
    files, labels = listed(text(names.files)), labels_of(text(names.labels))
    return Job(
        name=names.name or folder.resolve().name,
        code=_code(folder, names.model),
        module=names.model,
        params=with_branches(params, text),
        files=labelled(files, labels, params.redirector, folder, inside=inside),
        folder=folder,
        notes=(*notes, *params.notes, *preproc),
    )


def _submit(folder: Path) -> Mapping[str, Any]:
    """Return what submit.json sets; nothing if there is none."""
    if not (folder / "submit.json").exists():
        return {}
    values = json_object(_text(folder, "submit.json"), "submit.json")
    check_no_preproc(values, "submit.json")
    for key, value in values.items():
        if key not in _KEYS:
            similar = difflib.get_close_matches(key[:100], _KEYS, 1) or _KEYS
            raise RequestError(f"submit.json has the unknown key '{key[:100]}'; closest: {', '.join(similar)}")
        if key in _NAMES and not isinstance(value, str):
            takes = "a name" if key == "name" else "the name of a file in the folder"
            raise RequestError(f"submit.json: '{key}' is {json.dumps(value)[:60]}; it takes {takes}")
    return values


def _text(folder: Path, name: str) -> str:
    """Return the text of a file in the folder. Raises: RequestError if it is elsewhere or cannot be read."""
    path = folder / checked_name(name)
    try:
        if (size := path.stat().st_size) > MOST_TEXT_BYTES:
            raise RequestError(f"'{name}' has {size / 1e6:,.1f} MB; at most {MOST_TEXT_BYTES / 1e6:g} MB are read")
        return path.read_text(encoding="utf-8-sig")  # Windows editors write a byte order mark
    except FileNotFoundError as error:
        names = (path.name for path in folder.iterdir() if path.is_file())
        raise missing(name, f"folder '{folder.resolve().name}'", names) from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise RequestError(f"'{name}' in folder '{folder.resolve().name}' cannot be read as text: {why}") from error


def _code(folder: Path, module: str) -> dict[str, bytes]:
    """Return the content of the module and of all Python files in the folder."""
    scripts = (path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    names = code_names(scripts, module, lambda name: (folder / name).exists())
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    check_code_size(sum(path.stat().st_size for path in paths.values()), f"folder '{folder.resolve().name}'")
    _text(folder, module)
    return {name: path.read_bytes() for name, path in paths.items()}
