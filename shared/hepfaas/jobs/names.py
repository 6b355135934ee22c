"""Names of the files that make a job, and its params.json. Light: clients import it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.jobs.texts import MODULE, SUBMIT, Texts
from hepfaas.runs.json_values import json_object
from hepfaas.runs.params import Params, params_of

_NAMES = ("files", "labels", "samples", "model", "params", "preproc", "specs", "name")
_WITHOUT_EFFECT = ("device", "memory", "cpus", "fout")
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
    specs: str = ""
    name: str | None = None


@dataclass(frozen=True)
class Chosen:
    """The names of a job, those of them that are options, its params, and notes for the user."""

    names: Names
    options: Mapping[str, str]
    params: Params
    notes: tuple[str, ...]


def chosen_in(texts: Texts, options: Mapping[str, str]) -> Chosen:
    """Return the names of a job in a folder, and its params.

    options: names that the user gave; they win over those of submit.json, and these over the defaults.
    Raises: RequestError naming the file and what is wrong with it.
    """
    submit = _submitted(texts.text(SUBMIT)) if SUBMIT in texts.names else {}
    names = Names(**{**{key: value for key, value in submit.items() if key in _NAMES}, **options})
    has_params = "params" in options or names.params != Names.params or names.params in texts.names
    params = params_of(texts.text(names.params), names.params) if has_params else Params({})
    params = texts.completed(params, names.preproc, names.specs)
    notes = [f"{SUBMIT}: '{key}' has no effect here" for key in _WITHOUT_EFFECT if key in submit]
    return Chosen(names, options, params, (*notes, *params.notes))


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
