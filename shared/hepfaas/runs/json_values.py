"""Checks of values that come from JSON, with errors that name the place, the value and what the place takes. Pure."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.expressions.grammar import shown


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def wrong(place: str, value: Any, takes: str) -> RequestError:
    """Return the error for a value that a place does not take."""
    return RequestError(f"{place} is {json.dumps(value)[:100]} ({kind_of(value)}); it takes {takes}")


def check_keys(keys: Iterable[str], known: Iterable[str], place: str) -> None:
    """Raise RequestError naming the first unknown key and the closest known ones."""
    known = list(known)
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(key[:100], known, 3, 0.5)
            hint = f"closest: {', '.join(close)}" if close else f"known: {', '.join(known)}"
            raise RequestError(f"{place} has the unknown key '{shown(key[:100])}'; {hint}")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that fits a float64."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def an_object(value: Any, place: str, takes: str) -> dict[str, Any]:
    """Return a JSON object. Raises: RequestError."""
    if not isinstance(value, dict):
        raise wrong(place, value, takes)
    return value


def a_text(value: Any, place: str, takes: str) -> str:
    """Return a text that is not empty, without the blanks around it. Raises: RequestError."""
    if not isinstance(value, str) or not value.strip():
        raise wrong(place, value, takes)
    return value.strip()


def texts(value: Any, place: str, takes: str) -> tuple[str, ...]:
    """Return the texts in a list. Raises: RequestError."""
    if not isinstance(value, list):
        raise wrong(place, value, takes)
    return tuple(a_text(item, f"{place}: item {number}", takes) for number, item in enumerate(value, 1))


def a_flag(value: Any, place: str) -> bool:
    """Return true or false, which may be written as text in any case. Raises: RequestError."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise wrong(place, value, "true or false")
    return value
