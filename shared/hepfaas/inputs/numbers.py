"""Conversion of numbers from requests to the type that a model needs. Pure.

Values are kept, except for rounding to floats: a value that would change is refused, with its place.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hepfaas.errors import RequestError

Place = Callable[[int], str]
"""Returns how messages name a value, by its index among all values."""

_TAKEN = {"f": frozenset({float, int}), "i": frozenset({int}), "u": frozenset({int}), "b": frozenset({bool})}
"""JSON types that are accepted without a check, by the kind of the numpy type."""

_FLOATS_OR_NULL = _TAKEN["f"] | {type(None)}

_LISTS = frozenset({list})

_EXACT = 2.0**53
"""Whole numbers below this are exact in float64."""


def place_in_list(at: int) -> str:
    """Return the name of a value in a flat list."""
    return f"value {at}"


def place_of_event(at: int) -> str:
    """Return the name of a value of a flat branch."""
    return f"event {at}"


def place_in_events(counts: NDArray[np.int64]) -> Place:
    """Return the function that names a value of a jagged branch. counts: values of each event."""

    def place(at: int) -> str:
        ends = np.cumsum(counts)
        if at >= counts.sum():  # it is in a nested list
            return place_in_list(at)
        event = int(np.searchsorted(ends, at, side="right"))
        return f"value {at - int(ends[event] - counts[event])} of event {event}"

    return place


def from_json(
    values: Any, type_: DTypeLike, what: str, *, null: bool = False, place: Place = place_in_list
) -> NDArray[Any]:
    """Return the numbers of nested lists of equal length, in their shape. null: allow it, as NaN, for floats.

    1.0 is accepted as a whole number, 0 and 1 as false and true. what: the name of the values in messages.
    Raises: RequestError naming the first value that does not fit.
    """
    wanted, leaves = np.dtype(type_), _leaves(values)
    taken = _FLOATS_OR_NULL if null and wanted.kind == "f" else _TAKEN[wanted.kind]
    try:
        if taken.issuperset(map(type, leaves)):
            with np.errstate(over="raise"):
                return np.asarray(values, dtype=wanted)
        if wanted.kind != "f" and _TAKEN["f"].issuperset(map(type, leaves)):
            wide = np.asarray(values, dtype=np.float64)
            if np.abs(wide).max(initial=0) < _EXACT:
                return cast(wide, wanted, what, place)
    except (ValueError, OverflowError, FloatingPointError):
        pass  # the first value that does not fit is found below
    for at, leaf in enumerate(leaves):
        if not _fits(leaf, wanted, null):
            raise _refusal(what, place(at), _shown(leaf), wanted)
    try:
        shape = np.asarray(values, dtype=np.float64).shape
    except ValueError as error:
        raise RequestError(f"{what} are not lists of equal length: {error}") from error
    return np.asarray([leaf if leaf is None else _whole(leaf, wanted) for leaf in leaves], dtype=wanted).reshape(shape)


def cast(values: NDArray[Any], type_: DTypeLike, what: str, place: Place = place_in_list) -> NDArray[Any]:
    """Return numbers in another type. Raises: RequestError naming the first value that does not fit."""
    wanted = np.dtype(type_)
    if values.dtype == wanted:
        return values
    if values.dtype.kind == "b":
        raise RequestError(f"{what}: its values are of type bool; it takes {expected(wanted)}")
    if wanted.kind == "f" or values.dtype.kind == "f":
        values = values.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        converted = values.astype(wanted)
    is_kept = _is_kept(values, converted)
    if not is_kept.all():
        at = int(np.argmin(is_kept))
        text = str(values.reshape(-1)[at])
        raise _refusal(what, place(at), "missing (null or NaN)" if text == "nan" else text, wanted)
    return converted


def expected(type_: DTypeLike) -> str:
    """Return the values that a type takes, in words."""
    wanted = np.dtype(type_)
    if wanted.kind == "b":
        return "true and false (bool)"
    if wanted.kind == "f":
        return f"numbers up to {np.finfo(wanted).max:.3g} ({wanted.name})"
    limits = np.iinfo(wanted)
    return f"whole numbers from {limits.min} to {limits.max} ({wanted.name})"


def _leaves(values: list[Any]) -> list[Any]:
    """Return the values in nested lists, flattened."""
    leaves = values
    while leaves and _LISTS.issuperset(map(type, leaves)):
        leaves = list(itertools.chain.from_iterable(leaves))
    return leaves


def _shown(leaf: Any) -> str:
    return "a list" if isinstance(leaf, list) else "an object" if isinstance(leaf, dict) else json.dumps(leaf)


def _fits(leaf: Any, wanted: np.dtype[Any], null: bool) -> bool:
    if leaf is None:
        return null and wanted.kind == "f"
    if type(leaf) not in (bool, int, float):
        return False
    if wanted.kind == "b":
        return leaf in (0, 1)
    if type(leaf) is bool:
        return False
    if wanted.kind == "f":
        return not math.isfinite(leaf) or abs(leaf) <= float(np.finfo(wanted).max)
    return float(leaf).is_integer() and np.iinfo(wanted).min <= leaf <= np.iinfo(wanted).max


def _whole(leaf: Any, wanted: np.dtype[Any]) -> Any:
    return leaf if wanted.kind == "f" else int(leaf)


def _is_kept(values: NDArray[Any], converted: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values are the same in their new type, except for rounding."""
    is_kept: NDArray[np.bool_]
    if converted.dtype.kind == "f":
        is_kept = np.isfinite(converted) | ~np.isfinite(values)
    elif converted.dtype.kind == "b":
        is_kept = (values == 0) | (values == 1)
    else:
        limits = np.iinfo(converted.dtype)
        is_kept = (values >= limits.min) & (values < int(limits.max) + 1)  # the maximum itself may not exist as a float
        if values.dtype.kind == "f":
            is_kept &= converted == values
    return is_kept


def _refusal(what: str, place: str, value: str, wanted: np.dtype[Any]) -> RequestError:
    return RequestError(f"{what}: {place} is {value[:40]}; it takes {expected(wanted)}")
