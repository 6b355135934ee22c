"""params.json: the keys of MLaaS4HEP and of hepfaas, and their meaning for a recipe (docs/reference/params.md). Pure.

Keys of MLaaS4HEP that have no effect here are accepted, so that an old folder works unchanged, and noted once.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs import event_keys, feature_keys, plot_keys, training_keys
from hepfaas.runs.json_values import (
    Key,
    a_flag,
    a_name,
    any_text,
    anything,
    branch_patterns,
    json_object,
    one_of,
    whole,
    wrong,
)
from hepfaas.runs.preprocessing_keys import KEYS as PREPROCESSING_KEYS
from hepfaas.runs.preprocessing_keys import preprocessing_from
from hepfaas.runs.splits import USUAL_SPLIT
from hepfaas.runs.training_keys import MOST_EPOCHS

REDIRECTOR = "root://cms-xrd-global.cern.ch"
"""Default prefix of logical file names: CMS's global redirector, as in MLaaS4HEP."""

MOST_BATCH, MOST_THREADS, MOST_RANGE = 1_000_000, 256, 10_000_000
MOST_SEED = 2**32 - 1
"""Limit of NumPy."""


@dataclass(frozen=True)
class Params:
    """Content of a params.json: fields of a recipe, the redirector, and notes for the user.

    branch_file: name of a file in the folder that lists excluded branches, None if there is none. preproc: name of the
    preproc.json, '' if params.json names none.
    """

    recipe: Mapping[str, Any]
    redirector: str = REDIRECTOR
    branch_file: str | None = None
    preproc: str = ""
    notes: tuple[str, ...] = ()


def params_of(text: str, place: str) -> Params:
    """Return the params of a JSON text; `place` names the file in messages. Raises: RequestError."""
    return params_in(json_object(text, place), place)


def params_in(values: Mapping[str, Any], place: str) -> Params:
    """Return the params of a JSON object. Raises: RequestError naming key and value."""
    unknown = [key for key in values if key not in _KEYS]
    if unknown:
        close = difflib.get_close_matches(unknown[0][:100], _KEYS, 3, 0.5)
        hint = f"closest: {', '.join(close)}" if close else f"known: {', '.join(sorted(_KEYS))}"
        raise RequestError(f"{place} has the unknown key '{unknown[0][:100]}'; {hint}")
    parsed = {key: _KEYS[key].parse(value, f"{place}: '{key}'") for key, value in values.items()}
    recipe = {_KEYS[key].field: value for key, value in parsed.items() if _KEYS[key].field in _RECIPE_FIELDS}
    if rules := feature_keys.rules_in(parsed):
        recipe["features"] = rules
    for option, value in parsed.get("callbacks", {}).items():
        if option in recipe:
            raise RequestError(f"{place}: '{option}' and 'callbacks' both say this; keep one of them")
        recipe[option] = value
    branch_file = parsed.get("exclude_branches")
    if isinstance(branch_file, str):
        del recipe["excluded"]
    if preprocessing := preprocessing_from(values, place):
        recipe["preprocessing"] = preprocessing
    event_keys.check_folds(recipe, place)
    if recipe.get("targets"):
        event_keys.check_regression(recipe, place)
    if both := [name for name in recipe.get("selected", ()) if name in recipe.get("spectators", ())]:
        raise RequestError(
            f"{place}: '{both[0]}' is in 'selected_branches' and in 'spectators'; a spectator is never a feature. For "
            f"both, select '{both[0]}' and write the spectator as an expression, such as '+{both[0]}'"
        )
    return Params(
        recipe,
        parsed.get("redirector", REDIRECTOR),
        branch_file if isinstance(branch_file, str) else None,
        parsed.get("preproc", ""),
        _notes(parsed, place),
    )


def _names_or_file(value: Any, place: str) -> tuple[str, ...] | str:
    if isinstance(value, str) and value.endswith(".txt"):
        return value
    return branch_patterns(value, place)


def _threshold(value: Any, place: str) -> float:
    if isinstance(value, bool):
        return 0.5
    if isinstance(value, dict) and set(value) == {"threshold"}:
        threshold = value["threshold"]
        if isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 < threshold < 1:
            return float(threshold)
    raise wrong(place, value, 'true, or {"threshold": x} with x between 0 and 1')


FORMATS = ("root", "parquet", "avro", "json", "csv")
"""Formats of files of events."""

_KEYS: Mapping[str, Key] = {
    "nevts": Key(whole(1, also=-1), "n_events"),
    "batch_size": Key(whole(1, MOST_BATCH), "batch_size"),
    "epochs": Key(whole(1, MOST_EPOCHS), "epochs"),
    "shuffle": Key(a_flag, "shuffle"),
    "branch": Key(a_name, "tree"),
    "identifier": Key(branch_patterns, "identifiers"),
    "selected_branches": Key(branch_patterns, "selected"),
    "exclude_branches": Key(_names_or_file, "excluded"),
    "redirector": Key(any_text),
    "metrics": Key(_threshold, "threshold"),
    "chunk_size": Key(whole(1, also=-1)),
    "training": Key(any_text),
    "hist": Key(anything),
    "verbose": Key(anything),
    "preproc": Key(a_name),
    "dtype": Key(one_of(*FORMATS), "dtype"),
    **{key: Key(anything) for key in PREPROCESSING_KEYS},
    **event_keys.KEYS,
    **feature_keys.KEYS,
    **training_keys.KEYS,
    **plot_keys.KEYS,
    "seed": Key(whole(0, MOST_SEED), "seed"),
    "split_seed": Key(whole(0), "split_seed"),
    "threads": Key(whole(1, MOST_THREADS), "threads"),
    "xla": Key(a_flag, "xla"),
    "order": Key(one_of("sorted", "tree"), "order"),
    "surplus": Key(one_of("truncate", "error"), "surplus"),
    "segment_rows": Key(whole(1), "segment_rows"),
    "range_events": Key(whole(1, MOST_RANGE), "range_events"),
}

_RECIPE_FIELDS = {key.field for key in _KEYS.values() if key.field}

_WITHOUT_EFFECT = {
    "chunk_size": "events are read along the file's clusters, and every epoch sees all of them",
    "training": "every epoch sees all events, as 'standard' did in MLaaS4HEP",
    "split": "a number is ignored, as in MLaaS4HEP: 64 % training, 16 % validation, 20 % test",
    "nan": "slots without a value are 0, as in MLaaS4HEP",
    "hist": "branches.pdf, beside the model, has the histograms of all branches in any case",
}


def _notes(parsed: Mapping[str, Any], place: str) -> tuple[str, ...]:
    has_effect = {"nan": bool(parsed.get("nan")), "split": parsed.get("split") != USUAL_SPLIT}
    unused = [key for key in _WITHOUT_EFFECT if key in parsed and not has_effect.get(key)]
    notes = tuple(f"{place}: '{key}' has no effect: {_WITHOUT_EFFECT[key]}" for key in unused)
    if "target" in parsed and parsed.get("metrics", 0.5) != 0.5:
        notes += (f"{place}: the threshold of 'metrics' has no effect: a run with a 'target' has no classes",)
    return notes
