"""Keys of params.json for early stopping, learning rates, class weights and callbacks by name. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs.json_values import Key, Parse, a_flag, a_number, anything, one_of, whole, wrong
from hepfaas.runs.schedule import Schedule

MOST_EPOCHS = 10_000

_LABEL = re.compile(r"-?[0-9]{1,9}")


def _class_weight(value: Any, place: str) -> str | tuple[tuple[int, float], ...]:
    if value == "balanced":
        return "balanced"
    if not isinstance(value, dict) or not value or not all(_LABEL.fullmatch(label) for label in value):
        raise wrong(place, value, 'a factor for each label, as {"0": 1, "1": 5}, or "balanced"')
    factor = a_number(0, above=True)
    return tuple(sorted((int(label), factor(number, f"{place}: '{label}'")) for label, number in value.items()))


_FACTOR, _EPOCHS = a_number(0, 1, above=True), whole(1, MOST_EPOCHS)

_SCHEDULES: Mapping[str, Mapping[str, Parse]] = {
    "cosine": {"final": a_number(0, 1)},
    "warmup_cosine": {"warmup": _EPOCHS, "final": a_number(0, 1)},
    "exponential": {"factor": _FACTOR},
    "step": {"factor": _FACTOR, "every": _EPOCHS},
    "reduce_on_plateau": {
        "factor": _FACTOR,
        "patience": _EPOCHS,
        "min_delta": a_number(0),
        "cooldown": whole(0, MOST_EPOCHS),
        "least": a_number(0, 1),
    },
}
"""Arguments of each learning-rate schedule."""


def _schedule(value: Any, place: str) -> Schedule:
    """Return the schedule of a name, or of an object with a name and arguments."""
    values = {"name": value} if isinstance(value, str) else value
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in _SCHEDULES:
        names = ", ".join(json.dumps(name) for name in _SCHEDULES)
        raise wrong(place, value, f"the name of a schedule, or an object with its 'name' and arguments: {names}")
    arguments = {key: argument for key, argument in values.items() if key != "name"}
    return Schedule(name=name, **_arguments(arguments, _SCHEDULES[name], f"{place}: '{name}'"))  # type: ignore[arg-type]


def _arguments(values: Mapping[str, Any], known: Mapping[str, Parse], place: str) -> dict[str, Any]:
    """Return the parsed arguments. Raises: RequestError naming an unknown one."""
    for key in values:
        if key not in known:
            raise RequestError(f"{place} has no argument '{key[:100]}'; known: {', '.join(known)}")
    return {key: known[key](value, f"{place}: '{key}'") for key, value in values.items()}


def _val_loss(value: Any, place: str) -> str:
    if value != "val_loss":
        wanted = '"val_loss"; for another metric define callbacks() in model.py'
        raise wrong(place, value, wanted)
    return "val_loss"


def _early_stopping(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    known = {"patience": whole(0, MOST_EPOCHS), "min_delta": a_number(0), "restore_best_weights": a_flag, **_OF_KERAS}
    arguments = _arguments(values, known, place)
    return {"patience": max(1, arguments.get("patience", 0)), "min_delta": arguments.get("min_delta", 0.0)}


def _reduce_on_plateau(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    known = {**_SCHEDULES["reduce_on_plateau"], **_OF_KERAS}
    arguments = {key: value for key, value in _arguments(values, known, place).items() if key not in _OF_KERAS}
    return {"learning_rate_schedule": Schedule(name="reduce_on_plateau", **arguments)}


def _scheduler(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    arguments = _arguments(values, {"schedule": _schedule, "verbose": anything}, place)
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
            raise wrong(place, one, f"callbacks by name ({names}); for others define callbacks() in model.py")
        arguments = {key: argument for key, argument in values.items() if key != "name"}
        more = _CALLBACKS[name](arguments, f"{place}: '{name}'")
        if fields.keys() & more.keys():
            raise RequestError(f"{place}: two callbacks set the same; keep one of them")
        fields |= more
    return fields


_OF_KERAS: Mapping[str, Parse] = {
    "monitor": _val_loss,
    "mode": one_of("auto", "min"),
    "verbose": anything,
}
"""Arguments of Keras's callbacks that change nothing here."""


KEYS: Mapping[str, Key] = {
    "patience": Key(whole(1, MOST_EPOCHS), "patience"),
    "min_delta": Key(a_number(0), "min_delta"),
    "learning_rate": Key(a_number(0, above=True), "learning_rate"),
    "learning_rate_schedule": Key(_schedule, "learning_rate_schedule"),
    "class_weight": Key(_class_weight, "class_weight"),
    "callbacks": Key(_callbacks),
}
