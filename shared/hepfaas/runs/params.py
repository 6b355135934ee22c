"""params.json: the keys of MLaaS4HEP and of hepfaas, and their meaning for a recipe (docs/reference/params.md). Pure.

Every key of MLaaS4HEP is accepted, so that an old folder works unchanged. A note says where a key does something else
than in MLaaS4HEP (docs/how-to/migrate.md).
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
    is_number,
    json_object,
    one_of,
    whole,
    wrong,
)
from hepfaas.runs.preprocessing_keys import KEYS as PREPROCESSING_KEYS
from hepfaas.runs.preprocessing_keys import preprocessing_from
from hepfaas.runs.splits import USUAL_SPLIT, Split, SplitRule
from hepfaas.runs.training_keys import MOST_EPOCHS

REDIRECTOR = "root://cms-xrd-global.cern.ch"
"""Default prefix of logical file names: CMS's global redirector, as in MLaaS4HEP."""

MOST_BATCH, MOST_THREADS, MOST_RANGE = 1_000_000, 256, 10_000_000
USUAL_CHUNK = 1_000
"""Events of a chunk in MLaaS4HEP."""

MOST_VERBOSE = 2
MOST_SEED = 2**32 - 1
"""Limit of NumPy."""


@dataclass(frozen=True)
class Params:
    """Content of a params.json: fields of a recipe, the redirector, and notes for the user.

    branch_file: text that may be the name of a file in the folder that lists excluded branches, None if there is none.
    preproc, specs: names of the preproc.json and of a file of ranges, '' if params.json names none. histograms: folder
    that gets the histograms of the branches, '' for none. verbose: how much a training on this machine prints, 0 to 2.
    """

    recipe: Mapping[str, Any]
    redirector: str = REDIRECTOR
    branch_file: str | None = None
    preproc: str = ""
    specs: str = ""
    histograms: str = ""
    verbose: int = 0
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
    if rules := feature_keys.rules_in(parsed, values):
        recipe["features"] = rules
    if chunk_events := _chunk_events(parsed):
        recipe["chunk_events"] = chunk_events
    for option, value in parsed.get("callbacks", {}).items():
        if option in recipe:
            raise RequestError(f"{place}: '{option}' and 'callbacks' both say this; keep one of them")
        recipe[option] = value
    branch_file = values.get("exclude_branches")
    if preprocessing := preprocessing_from(values, place):
        recipe["preprocessing"] = preprocessing
    event_keys.check_folds(recipe, place)
    if chunk_events and "patience" in recipe:
        raise RequestError(
            f"{place}: 'patience' would end a training by chunks ('training': 'chunk') before it has seen the last "
            "ones; leave one of them out"
        )
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
        preproc=parsed.get("preproc", ""),
        specs=parsed.get("specs", ""),
        histograms=parsed.get("hist", ""),
        verbose=parsed.get("verbose", 0),
        notes=_notes(parsed, values, place),
    )


def _chunk_events(parsed: Mapping[str, Any]) -> int | None:
    """Return the events of a chunk; None if every epoch sees all events, as with one chunk that has them all."""
    size = parsed.get("chunk_size", USUAL_CHUNK)
    return size if parsed.get("training") == "chunk" and size > 0 else None


def _folder(value: Any, place: str) -> str:
    if value in (None, False):
        return ""
    return "pdfs" if value is True else any_text(value, place)


def _verbosity(value: Any, place: str) -> int:
    if value is not None and not isinstance(value, int):
        raise wrong(place, value, f"a whole number: 0, 1 or {MOST_VERBOSE}")
    return min(max(int(value or 0), 0), MOST_VERBOSE)


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
    "exclude_branches": Key(branch_patterns, "excluded"),
    "redirector": Key(any_text),
    "metrics": Key(_threshold, "threshold"),
    "chunk_size": Key(whole(1, also=-1)),
    "training": Key(one_of("standard", "chunk")),
    "hist": Key(_folder),
    "verbose": Key(_verbosity),
    "preproc": Key(a_name),
    "specs": Key(a_name),
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
    "unreadable_files": Key(one_of("fail", "skip"), "unreadable_files"),
}

_RECIPE_FIELDS = {key.field for key in _KEYS.values() if key.field}

_NO_FILL = "slots without a value are 0, as in MLaaS4HEP"


def _notes(parsed: Mapping[str, Any], values: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """Return a note for each key that does not do what it did in MLaaS4HEP."""
    notes = [_note_on_chunks(parsed), _note_on_split(values.get("split"), parsed)]
    if "nan" in parsed and not parsed["nan"] and values["nan"] != {}:
        notes.append(f"'nan' has no effect: {_NO_FILL}")
    elif feature_keys.fills(values.get("nan")):
        notes.append(f"'nan': slots and values without a number are {values['nan']} after scaling; in MLaaS4HEP 0")
    if folder := parsed.get("hist"):
        notes.append(f"'hist': the histograms of the branches go to '{folder}' after a training by `hepfaas train`")
    if "target" in parsed and parsed.get("metrics", 0.5) != 0.5:
        notes.append("the threshold of 'metrics' has no effect: a run with a 'target' has no classes")
    return tuple(f"{place}: {note}" for note in notes if note)


def _note_on_chunks(parsed: Mapping[str, Any]) -> str:
    size, training = parsed.get("chunk_size", USUAL_CHUNK), parsed.get("training")
    if training == "chunk":
        return (
            f"'training': chunks of {size:,} events are trained one after the other, each for all epochs"
            if size > 0
            else "'training': one chunk has all events (chunk_size -1), so every epoch sees all of them"
        )
    if training == "standard" or size < 0 or "chunk_size" not in parsed:
        return ""
    return (
        "'chunk_size' has no effect: every epoch sees all events, which makes better models; 'training': 'chunk' "
        f"trains chunks of {size:,} events one after the other, as MLaaS4HEP did"
    )


def _note_on_split(value: Any, parsed: Mapping[str, Any]) -> str:
    if not is_number(value):
        return ""
    if not 0 < value < 1:
        return f"'split' has no effect: {value} is not a share between 0 and 1; {_shares(USUAL_SPLIT)}"
    if parsed["split"] == USUAL_SPLIT:
        return ""
    return f"'split': {_shares(parsed['split'])}; MLaaS4HEP ignored the key ({_shares(USUAL_SPLIT)})"


def _shares(rule: SplitRule) -> str:
    return ", ".join(f"{share:.3g} {split.label}" for share, split in zip(rule.fractions, Split, strict=True))
