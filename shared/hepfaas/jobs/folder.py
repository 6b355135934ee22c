"""A job's folder: files.txt, labels.txt, model.py, params.json and, if there is one, submit.json."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hepfaas.datasets.files import labels_of, listed
from hepfaas.errors import RequestError
from hepfaas.jobs.job import MODULE, SUBMIT, Job, Texts, labelled
from hepfaas.runs.params import Params, json_object, params_of

MOST_TEXT_BYTES = 5_000_000
"""Size of each text that is read: lists, params.json, submit.json, Python files."""
_NAMES = ("files", "labels", "model", "params", "preproc", "name")
_WITHOUT_EFFECT = ("device", "memory", "cpus")
_KEYS = (*_NAMES, *_WITHOUT_EFFECT)


@dataclass(frozen=True)
class Names:
    """Names of the files in the folder that make a job, and of the model that it trains."""

    files: str = "files.txt"
    labels: str = "labels.txt"
    model: str = MODULE
    params: str = "params.json"
    preproc: str = ""
    name: str | None = None


def job_in(folder: Path, chosen: Mapping[str, str], *, inside: bool = True) -> Job:
    """Return the job in a folder.

    chosen: names that the user gave by option; they win over those of submit.json, and these over the defaults.
    inside: use no file of this machine that is not in the folder.
    Raises: RequestError naming the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is not a folder; `hepfaas train` takes the folder with files.txt and model.py")
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    texts = Texts(paths, partial(_read, folder), f"folder '{folder.resolve().name}'")
    submit = _submitted(texts.text(SUBMIT)) if SUBMIT in texts.names else {}
    names = Names(**{**{key: value for key, value in submit.items() if key in _NAMES}, **chosen})
    has_params = "params" in chosen or names.params != Names.params or names.params in texts.names
    params = params_of(texts.text(names.params), names.params) if has_params else Params({})
    params = texts.completed(params, names.preproc)
    notes = [f"{SUBMIT}: '{key}' has no effect here" for key in _WITHOUT_EFFECT if key in submit]
    files, labels = listed(texts.text(names.files)), labels_of(texts.text(names.labels))
    return Job(
        name=names.name or folder.resolve().name,
        code=texts.code(names.model),
        module=names.model,
        params=params,
        files=labelled(files, labels, params.redirector, folder, inside=inside),
        folder=folder,
        notes=(*notes, *params.notes),
    )


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if (size := path.stat().st_size) > MOST_TEXT_BYTES:
        raise RequestError(f"'{name}' has {size / 1e6:,.1f} MB; at most {MOST_TEXT_BYTES / 1e6:g} MB are read")
    return path.read_bytes()


def _submitted(text: str) -> Mapping[str, Any]:
    """Return the values in submit.json. Raises: RequestError naming the key and what it takes."""
    values = json_object(text, SUBMIT)
    for key, value in values.items():
        if key not in _KEYS:
            similar = difflib.get_close_matches(key[:100], _KEYS, 1) or _KEYS
            raise RequestError(f"{SUBMIT} has the unknown key '{key[:100]}'; closest: {', '.join(similar)}")
        if key in _NAMES and not isinstance(value, str):
            takes = "a name" if key == "name" else "the name of a file in the folder"
            raise RequestError(f"{SUBMIT}: '{key}' is {json.dumps(value)[:60]}; it takes {takes}")
    return values
