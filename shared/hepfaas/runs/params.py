"""params.json: the keys of MLaaS4HEP and of hepfaas, and their meaning for a recipe (docs/reference/params.md). Pure.

Keys of MLaaS4HEP that have no effect here are accepted, so that an old folder works unchanged, and noted once.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.expressions.patterns import check_patterns
from hepfaas.runs.feature_rules import SCALINGS, FeatureRules, NanRule, PadRule, ScalingRule
from hepfaas.runs.json_values import is_number
from hepfaas.runs.preprocessing_keys import KEYS as PREPROCESSING_KEYS
from hepfaas.runs.preprocessing_keys import preprocessing_from
from hepfaas.runs.schedule import Schedule
from hepfaas.runs.weighting import Balance

REDIRECTOR = "root://cms-xrd-global.cern.ch"
"""Default prefix of logical file names: CMS's global redirector, as in MLaaS4HEP."""

MOST_EPOCHS, MOST_BATCH, MOST_THREADS, MOST_RANGE = 10_000, 1_000_000, 256, 10_000_000
MOST_EDGES = 1_000
MOST_SEED = 2**32 - 1
"""Limit of NumPy."""

MOST_FEATURE = 3.4e38
"""Features are float32."""
MOST_NUMBER = 1e12

MOST_VALUES, MOST_NESTED = 100_000, 50
"""Of a JSON text: values in it, and levels of lists and objects."""

_LABEL = re.compile(r"-?[0-9]{1,9}")

_MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""Tokens of a JSON text except numbers and words: whole strings, brackets, braces and commas."""


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
    if rules := FeatureRules(**{key: parsed[key] for key in ("scaling", "nan", "pad", "mask") if key in parsed}):
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
    return Params(
        recipe,
        parsed.get("redirector", REDIRECTOR),
        branch_file if isinstance(branch_file, str) else None,
        parsed.get("preproc", ""),
        _notes(parsed, place),
    )


@dataclass(frozen=True)
class _Key:
    parse: Callable[[Any, str], Any]
    field: str = ""


def json_object(text: str, place: str) -> dict[str, Any]:
    """Return the JSON object in a text; `place` names it in messages. Raises: RequestError if there is none."""
    check_shape(text, place)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"{place} is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"{place} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RequestError(f"{place} holds {_kind(values)}; it must be one JSON object of keys and values")
    return values


def check_shape(text: str, place: str) -> None:
    """Check how many values a JSON text has, and how deeply they are nested, before any is parsed: a list of three
    characters takes about a hundred bytes. Raises: RequestError."""
    values = depth = 0
    for count, token in enumerate(_MARKS.finditer(text)):
        mark = text[token.start()]
        values += mark in "[{,"
        depth += (mark in "[{") - (mark in "]}")
        if values > MOST_VALUES or count > 5 * MOST_VALUES:  # a key, a string, a comma, and two braces
            raise RequestError(f"{place} has more than {MOST_VALUES:,} values")
        if depth > MOST_NESTED:
            raise RequestError(f"{place} is nested deeper than {MOST_NESTED} levels")


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def _wrong(place: str, value: Any, wanted: str) -> RequestError:
    return RequestError(f"{place} is {json.dumps(value)[:100]} ({_kind(value)}); it takes {wanted}")


def _whole(least: int, most: int | None = None, also: int | None = None) -> Callable[[Any, str], int]:
    """Return a parser of whole numbers from `least` to `most`, and `also`, which stands for all."""
    to = "" if most is None else f" to {most:,}"
    extra = "" if also is None else f", or {also} for all"

    def parse(value: Any, place: str) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or (value != also and (value < least or (most is not None and value > most))):
            raise _wrong(place, value, f"a whole number from {least}{to}{extra}")
        return int(value)

    return parse


def _flag(value: Any, place: str) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _wrong(place, value, "true or false")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _wrong(place, value, "text")
    return value


def _name(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(place, value, "a name")
    return value


def _names(value: Any, place: str) -> tuple[str, ...]:
    """Return the names and patterns in a list or in a comma-separated text."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise _wrong(place, value, "a list of branch names")
    check_patterns(value, place)
    return tuple(value)


def _names_or_file(value: Any, place: str) -> tuple[str, ...] | str:
    if isinstance(value, str) and value.endswith(".txt"):
        return value
    return _names(value, place)


def _one_of(*choices: str) -> Callable[[Any, str], str]:
    def parse(value: Any, place: str) -> str:
        if value not in choices:
            raise _wrong(place, value, " or ".join(json.dumps(choice) for choice in choices))
        return str(value)

    return parse


def _threshold(value: Any, place: str) -> float:
    if isinstance(value, bool):
        return 0.5
    if isinstance(value, dict) and set(value) == {"threshold"}:
        threshold = value["threshold"]
        if isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 < threshold < 1:
            return float(threshold)
    raise _wrong(place, value, 'true, or {"threshold": x} with x between 0 and 1')


def _expression(value: Any, place: str) -> str:
    text = _name(value, place).strip()
    parse(text, place)
    return text


def _expressions(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(place, value, "a list of branch names")
    return tuple(dict.fromkeys(_expression(item, f"{place}: item {number}") for number, item in enumerate(value, 1)))


def _balance(value: Any, place: str) -> Balance | None:
    """Return the balance in true, false, or {"branch": expression, "bins": edges}."""
    if isinstance(value, bool):
        return Balance() if value else None
    if not isinstance(value, dict) or set(value) != {"branch", "bins"}:
        raise _wrong(place, value, 'true, or {"branch": a branch or expression, "bins": edges}')
    edges = _edges(value["bins"], f"{place}: 'bins'")
    return Balance(_expression(value["branch"], f"{place}: 'branch'"), edges)


def _edges(value: Any, place: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) and all(map(is_number, value)) else []
    rising = all(one < other for one, other in pairwise(numbers))
    if not 2 <= len(numbers) <= MOST_EDGES or not rising:
        raise _wrong(place, value, f"a list of 2 to {MOST_EDGES:,} rising numbers, the edges of the bins")
    return tuple(map(float, numbers))


def _feature_value(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_FEATURE:
        raise _wrong(place, value, "a number of float32")
    return float(value)


def _by_pattern(value: Any, place: str) -> dict[str, Any]:
    """Return the value of each pattern; a value that is not an object is that of all branches."""
    values = value if isinstance(value, dict) else {"*": value}
    check_patterns(list(values), place)
    return values


def _scaling(value: Any, place: str) -> tuple[ScalingRule, ...]:
    return tuple(
        _scaling_rule(name, item, f"{place}, '{name[:100]}'") for name, item in _by_pattern(value, place).items()
    )


def _scaling_rule(name: str, value: Any, place: str) -> ScalingRule:
    values = {"kind": value} if isinstance(value, str) else value
    kinds = ", ".join(f'"{kind}"' for kind in SCALINGS)
    if (
        not isinstance(values, dict)
        or not set(values) <= {"kind", "clip"}
        or values.get("kind", "minmax") not in SCALINGS
    ):
        raise _wrong(place, value, f'one of {kinds}, or {{"kind": …, "clip": …}}')
    clip = values.get("clip")
    return ScalingRule(name, values.get("kind", "minmax"), None if clip is None else _clip(clip, f"{place}: 'clip'"))


def _clip(value: Any, place: str) -> tuple[float, float]:
    low, high = value if isinstance(value, list) and len(value) == 2 else (None, value)
    highest = _feature_value(high, place)
    lowest = -highest if low is None else _feature_value(low, place)
    if lowest >= highest:
        raise _wrong(place, value, "a number above 0, or [lowest, highest]")
    return lowest, highest


def _nan(value: Any, place: str) -> tuple[NanRule, ...]:
    """Return the rules in an object or "indicator"; none for another value, which MLaaS4HEP accepted."""
    if not isinstance(value, dict) and value != "indicator":
        return ()
    return tuple(
        NanRule(name, indicator=True)
        if item == "indicator"
        else NanRule(name, _feature_value(item, f"{place}, '{name[:100]}' (without \"indicator\")"))
        for name, item in _by_pattern(value, place).items()
    )


def _pad(value: Any, place: str) -> tuple[PadRule, ...]:
    values = _by_pattern(value, place)
    return tuple(PadRule(name, _feature_value(item, f"{place}, '{name[:100]}'")) for name, item in values.items())


def _mask(value: Any, place: str) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("*",) if value else ()
    return _names(value, place)


def _number(least: float, most: float = MOST_NUMBER, *, above: bool = False) -> Callable[[Any, str], float]:
    """Return a parser of numbers from `least` to `most`; above: of those above `least`."""
    wanted = f"a number {'above' if above else 'from'} {least:g} to {most:g}"

    def parse(value: Any, place: str) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or (above and value == least):
            raise _wrong(place, value, wanted)
        return float(value)

    return parse


def _class_weight(value: Any, place: str) -> str | tuple[tuple[int, float], ...]:
    if value == "balanced":
        return "balanced"
    if not isinstance(value, dict) or not value or not all(_LABEL.fullmatch(label) for label in value):
        raise _wrong(place, value, 'a factor for each label, as {"0": 1, "1": 5}, or "balanced"')
    factor = _number(0, above=True)
    return tuple(sorted((int(label), factor(number, f"{place}: '{label}'")) for label, number in value.items()))


_FACTOR, _EPOCHS = _number(0, 1, above=True), _whole(1, MOST_EPOCHS)

_SCHEDULES: Mapping[str, Mapping[str, Callable[[Any, str], Any]]] = {
    "cosine": {"final": _number(0, 1)},
    "warmup_cosine": {"warmup": _EPOCHS, "final": _number(0, 1)},
    "exponential": {"factor": _FACTOR},
    "step": {"factor": _FACTOR, "every": _EPOCHS},
    "reduce_on_plateau": {
        "factor": _FACTOR,
        "patience": _EPOCHS,
        "min_delta": _number(0),
        "cooldown": _whole(0, MOST_EPOCHS),
        "least": _number(0, 1),
    },
}
"""Arguments of each learning-rate schedule."""


def _schedule(value: Any, place: str) -> Schedule:
    """Return the schedule of a name, or of an object with a name and arguments."""
    values = {"name": value} if isinstance(value, str) else value
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in _SCHEDULES:
        names = ", ".join(json.dumps(name) for name in _SCHEDULES)
        raise _wrong(place, value, f"the name of a schedule, or an object with its 'name' and arguments: {names}")
    arguments = {key: argument for key, argument in values.items() if key != "name"}
    return Schedule(name=name, **_arguments(arguments, _SCHEDULES[name], f"{place}: '{name}'"))  # type: ignore[arg-type]


def _arguments(values: Mapping[str, Any], known: Mapping[str, Callable[[Any, str], Any]], place: str) -> dict[str, Any]:
    """Return the parsed arguments. Raises: RequestError naming an unknown one."""
    for key in values:
        if key not in known:
            raise RequestError(f"{place} has no argument '{key[:100]}'; known: {', '.join(known)}")
    return {key: known[key](value, f"{place}: '{key}'") for key, value in values.items()}


def _val_loss(value: Any, place: str) -> str:
    if value != "val_loss":
        wanted = '"val_loss"; for another metric define callbacks() in model.py'
        raise _wrong(place, value, wanted)
    return "val_loss"


def _early_stopping(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    known = {"patience": _whole(0, MOST_EPOCHS), "min_delta": _number(0), "restore_best_weights": _flag, **_OF_KERAS}
    arguments = _arguments(values, known, place)
    return {"patience": max(1, arguments.get("patience", 0)), "min_delta": arguments.get("min_delta", 0.0)}


def _reduce_on_plateau(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    known = {**_SCHEDULES["reduce_on_plateau"], **_OF_KERAS}
    arguments = {key: value for key, value in _arguments(values, known, place).items() if key not in _OF_KERAS}
    return {"learning_rate_schedule": Schedule(name="reduce_on_plateau", **arguments)}


def _scheduler(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    arguments = _arguments(values, {"schedule": _schedule, "verbose": _anything}, place)
    if "schedule" not in arguments:
        raise RequestError(f"{place} needs 'schedule', the name of a schedule: {', '.join(_SCHEDULES)}")
    return {"learning_rate_schedule": arguments["schedule"]}


_CALLBACKS: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "early_stopping": _early_stopping,
    "EarlyStopping": _early_stopping,
    "reduce_on_plateau": _reduce_on_plateau,
    "ReduceLROnPlateau": _reduce_on_plateau,
    "learning_rate_schedule": _scheduler,
    "LearningRateScheduler": _scheduler,
}
"""Names of callbacks, ours and those of Keras, and the fields of a recipe that they set."""


def _callbacks(value: Any, place: str) -> dict[str, Any]:
    """Return the fields of a recipe that a list of callbacks sets."""
    fields: dict[str, Any] = {}
    for one in value if isinstance(value, list) else [value]:
        values = {"name": one} if isinstance(one, str) else one
        name = values.get("name") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in _CALLBACKS:
            names = ", ".join(_CALLBACKS)
            raise _wrong(place, one, f"callbacks by name ({names}); for others define callbacks() in model.py")
        arguments = {key: argument for key, argument in values.items() if key != "name"}
        more = _CALLBACKS[name](arguments, f"{place}: '{name}'")
        if fields.keys() & more.keys():
            raise RequestError(f"{place}: two callbacks set the same; keep one of them")
        fields |= more
    return fields


def _anything(value: Any, place: str) -> Any:
    return value


_OF_KERAS: Mapping[str, Callable[[Any, str], Any]] = {
    "monitor": _val_loss,
    "mode": _one_of("auto", "min"),
    "verbose": _anything,
}
"""Arguments of Keras's callbacks that change nothing here."""

_KEYS: Mapping[str, _Key] = {
    "nevts": _Key(_whole(1, also=-1), "n_events"),
    "batch_size": _Key(_whole(1, MOST_BATCH), "batch_size"),
    "epochs": _Key(_whole(1, MOST_EPOCHS), "epochs"),
    "shuffle": _Key(_flag, "shuffle"),
    "branch": _Key(_name, "tree"),
    "identifier": _Key(_names, "identifiers"),
    "selected_branches": _Key(_names, "selected"),
    "exclude_branches": _Key(_names_or_file, "excluded"),
    "redirector": _Key(_text),
    "metrics": _Key(_threshold, "threshold"),
    "chunk_size": _Key(_whole(1, also=-1)),
    "training": _Key(_text),
    "split": _Key(_anything),
    "nan": _Key(_nan),
    "hist": _Key(_anything),
    "verbose": _Key(_anything),
    "preproc": _Key(_name),
    **{key: _Key(_anything) for key in PREPROCESSING_KEYS},
    "weight": _Key(_expression, "weight"),
    "label": _Key(_expression, "label"),
    "spectators": _Key(_expressions, "spectators"),
    "balance": _Key(_balance, "balance"),
    "negative_weights": _Key(_one_of("keep", "abs", "drop", "error"), "negative_weights"),
    "seed": _Key(_whole(0, MOST_SEED), "seed"),
    "split_seed": _Key(_whole(0), "split_seed"),
    "threads": _Key(_whole(1, MOST_THREADS), "threads"),
    "xla": _Key(_flag, "xla"),
    "order": _Key(_one_of("sorted", "tree"), "order"),
    "patience": _Key(_whole(1, MOST_EPOCHS), "patience"),
    "min_delta": _Key(_number(0), "min_delta"),
    "learning_rate": _Key(_number(0, above=True), "learning_rate"),
    "learning_rate_schedule": _Key(_schedule, "learning_rate_schedule"),
    "class_weight": _Key(_class_weight, "class_weight"),
    "callbacks": _Key(_callbacks),
    "surplus": _Key(_one_of("truncate", "error"), "surplus"),
    "scaling": _Key(_scaling),
    "pad": _Key(_pad),
    "mask": _Key(_mask),
    "segment_rows": _Key(_whole(1), "segment_rows"),
    "range_events": _Key(_whole(1, MOST_RANGE), "range_events"),
}

_RECIPE_FIELDS = {key.field for key in _KEYS.values() if key.field}

_WITHOUT_EFFECT = {
    "chunk_size": "events are read along the file's clusters, and every epoch sees all of them",
    "training": "every epoch sees all events, as 'standard' did in MLaaS4HEP",
    "split": "always 64 % training, 16 % validation, 20 % test, as in MLaaS4HEP",
    "nan": "slots without a value are 0, as in MLaaS4HEP",
    "hist": "branches.pdf, beside the model, has the histograms of all branches in any case",
}


def _notes(parsed: Mapping[str, Any], place: str) -> tuple[str, ...]:
    unused = [key for key in _WITHOUT_EFFECT if key in parsed and not (key == "nan" and parsed[key])]
    return tuple(f"{place}: '{key}' has no effect: {_WITHOUT_EFFECT[key]}" for key in unused)
