"""A job's folder: model.py, params.json, files.txt and labels.txt or samples.json, and submit.json if there is one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hepfaas.datasets.files import Locations
from hepfaas.datasets.listings import Listing
from hepfaas.errors import RequestError
from hepfaas.jobs.job import (
    MODULE,
    SUBMIT,
    Data,
    Job,
    Texts,
    data_of_lists,
    data_of_samples,
    labels_each_event,
    with_data,
)
from hepfaas.jobs.samples import JSON_NAME, YAML_NAMES, samples_text
from hepfaas.runs.params import Params, json_object, params_of

MOST_TEXT_BYTES = 5_000_000
"""Size of each text that is read: lists, params.json, submit.json, Python files."""
_NAMES = ("files", "labels", "samples", "model", "params", "preproc", "name")
_WITHOUT_EFFECT = ("device", "memory", "cpus")
_KEYS = (*_NAMES, *_WITHOUT_EFFECT)


@dataclass(frozen=True)
class Names:
    """Names of the files in the folder that make a job, and of the model that it trains. samples: '' for the usual one,
    if it exists."""

    files: str = "files.txt"
    labels: str = "labels.txt"
    samples: str = ""
    model: str = MODULE
    params: str = "params.json"
    preproc: str = ""
    name: str | None = None


def job_in(folder: Path, chosen: Mapping[str, str], *, inside: bool = True, listing: Listing | None = None) -> Job:
    """Return the job in a folder.

    chosen: names that the user gave by option; they win over those of submit.json, and these over the defaults.
    inside: use no file of this machine that is not in the folder. listing: gives the matches of addresses with
    wildcards; None: only matches that came with the job.
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
    locations = Locations(listing or texts.listing(), params.redirector, folder, inside)
    data = _data(texts, names, chosen, locations, not labels_each_event(params))
    job = Job(
        name=names.name or folder.resolve().name,
        code=texts.code(names.model),
        module=names.model,
        params=params,
        folder=folder,
        notes=(*notes, *params.notes),
    )
    return with_data(job, data)


def _data(texts: Texts, names: Names, chosen: Mapping[str, str], locations: Locations, has_labels: bool) -> Data:
    """Return the files of a job: of its samples, or of its two lists."""
    if samples := _samples_name(texts, names, chosen):
        unused = [name for name in (names.files, names.labels) if name in texts.names]
        notes = (f"{' and '.join(unused)} not used: {samples} names the files",) if unused else ()
        data = data_of_samples(samples_text(texts.text(samples), samples), samples, texts, locations, has_labels)
        return replace(data, notes=(*notes, *data.notes))
    return data_of_lists(texts.text(names.files), texts.text(names.labels) if has_labels else None, locations)


def _samples_name(texts: Texts, names: Names, chosen: Mapping[str, str]) -> str:
    """Return the name of the file of samples, '' for the lists of files and labels: a name that the user gave wins."""
    if names.samples or not {"files", "labels"}.isdisjoint(chosen):
        return names.samples
    usual = [name for name in (JSON_NAME, *YAML_NAMES) if name in texts.names]
    if len(usual) > 1:
        raise RequestError(f"{texts.place} has {' and '.join(usual)}; keep one, or name one with --samples")
    return "".join(usual)


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
