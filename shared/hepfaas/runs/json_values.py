"""Checks of values that come from JSON, with errors that name the place, the value and what the place takes. Pure."""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hepfaas.errors import RequestError
from hepfaas.expressions.grammar import shown
from hepfaas.expressions.patterns import check_patterns

MOST_VALUES, MOST_NESTED = 100_000, 50
"""Maximum number of values in a JSON text, and maximum nesting depth."""

MOST_NUMBER = 1e12
"""Largest number that a key takes unless it says otherwise."""

_MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""Tokens of a JSON text except numbers and words: whole strings, brackets, braces and commas."""

Parse: TypeAlias = Callable[[Any, str], Any]
"""Return the parsed value; the second argument names its place in messages. Raises: RequestError."""


@dataclass(frozen=True)
class Key:
    """A key of params.json: the parser of its value, and the field of the recipe that it sets, '' for none."""

    parse: Parse
    field: str = ""


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


def json_value(text: str, place: str, unique: bool = False) -> Any:
    """Return the value in a JSON text; `place` names it in messages.

    unique: refuse an object that has a key twice. Otherwise, its last value counts, as in json.loads.
    Raises: RequestError if the text is not JSON.
    """
    check_shape(text, place)
    try:
        return json.loads(text, object_pairs_hook=functools.partial(_unique, place) if unique else None)
    except json.JSONDecodeError as error:
        raise RequestError(f"{place} is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"{place} cannot be read: {error}") from error


def _unique(place: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise RequestError(f"{place} has the key '{name[:100]}' twice")
        values[name] = value
    return values


def json_object(text: str, place: str) -> dict[str, Any]:
    """Return the JSON object in a text; `place` names it in messages. Raises: RequestError if there is none."""
    values = json_value(text, place)
    if not isinstance(values, dict):
        raise RequestError(f"{place} holds {kind_of(values)}; it must be one JSON object of keys and values")
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


def whole(least: int, most: int | None = None, also: int | None = None) -> Callable[[Any, str], int]:
    """Return a parser of whole numbers from `least` to `most`, and `also`, which stands for all."""
    to = "" if most is None else f" to {most:,}"
    extra = "" if also is None else f", or {also} for all"

    def parse(value: Any, place: str) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or (value != also and (value < least or (most is not None and value > most))):
            raise wrong(place, value, f"a whole number from {least}{to}{extra}")
        return int(value)

    return parse


def any_text(value: Any, place: str) -> str:
    """Return a text, which may be empty."""
    if not isinstance(value, str):
        raise wrong(place, value, "text")
    return value


def a_name(value: Any, place: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise wrong(place, value, "a name")
    return value


def one_of(*choices: str) -> Callable[[Any, str], str]:
    """Return a parser of one of some words."""

    def parse(value: Any, place: str) -> str:
        if value not in choices:
            raise wrong(place, value, " or ".join(json.dumps(choice) for choice in choices))
        return str(value)

    return parse


def a_number(least: float, most: float = MOST_NUMBER, *, above: bool = False) -> Callable[[Any, str], float]:
    """Return a parser of numbers from `least` to `most`; above: of those above `least`."""
    wanted = f"a number {'above' if above else 'from'} {least:g} to {most:g}"

    def parse(value: Any, place: str) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or (above and value == least):
            raise wrong(place, value, wanted)
        return float(value)

    return parse


def anything(value: Any, place: str) -> Any:
    """Return the value as it is."""
    return value


def branch_patterns(value: Any, place: str) -> tuple[str, ...]:
    """Return the names and patterns in a list or in a comma-separated text."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise wrong(place, value, "a list of branch names")
    check_patterns(value, place)
    return tuple(value)
