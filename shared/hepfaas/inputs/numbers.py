"""Numbers from outside, in the type that they are wanted in. They keep their value, but for the rounding to floats:
what would become another number is refused, by its place. Pure."""

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
"""What a value is called, by its number among all that were sent."""

_TAKEN = {"f": frozenset({float, int}), "i": frozenset({int}), "u": frozenset({int}), "b": frozenset({bool})}
"""Types in JSON that are taken as they are, by the kind of the type that is wanted."""

_FLOATS_OR_NULL = _TAKEN["f"] | {type(None)}

_LISTS = frozenset({list})

_EXACT = 2.0**53
"""A whole number below is the same as float64."""


def place_in_list(at: int) -> str:
    """The name of a value that stands in one list."""
    return f"value {at}"


def place_of_event(at: int) -> str:
    """The name of a value of a flat branch."""
    return f"event {at}"


def place_in_events(counts: NDArray[np.int64]) -> Place:
    """The name of a value of a jagged branch, which has so many in each event."""

    def place(at: int) -> str:
        ends = np.cumsum(counts)
        if at >= counts.sum():  # it stands in a list in an event's
            return place_in_list(at)
        event = int(np.searchsorted(ends, at, side="right"))
        return f"value {at - int(ends[event] - counts[event])} of event {event}"

    return place


def from_json(
    values: Any, type_: DTypeLike, what: str, null: bool = False, place: Place = place_in_list
) -> NDArray[Any]:
    """Numbers of a list, or of lists of equal length in it, in the shape of the lists; null: it is NaN among floats.

    1.0 is taken as a whole number, 0 and 1 as false and true. Raises: RequestError naming the first that does not fit.
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
        pass  # which one it is, is looked for below
    for at, leaf in enumerate(leaves):
        if not _fits(leaf, wanted, null):
            raise _refused(what, place(at), _said(leaf), wanted)
    try:
        shape = np.asarray(values, dtype=np.float64).shape
    except ValueError as error:
        raise RequestError(f"{what} are no lists of equal length: {error}") from error
    return np.asarray([leaf if leaf is None else _whole(leaf, wanted) for leaf in leaves], dtype=wanted).reshape(shape)


def cast(values: NDArray[Any], type_: DTypeLike, what: str, place: Place = place_in_list) -> NDArray[Any]:
    """Numbers of one type in another. Raises: RequestError naming the first that does not fit."""
    wanted = np.dtype(type_)
    if values.dtype == wanted:
        return values
    if values.dtype.kind == "b":
        raise RequestError(f"{what}: its values are of type bool; it takes {expected(wanted)}")
    if wanted.kind == "f" or values.dtype.kind == "f":
        values = values.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        found = values.astype(wanted)
    keeps = _keeps(values, found)
    if not keeps.all():
        at = int(np.argmin(keeps))
        said = str(values.reshape(-1)[at])
        raise _refused(what, place(at), "missing (null or NaN)" if said == "nan" else said, wanted)
    return found


def expected(type_: DTypeLike) -> str:
    """What a type takes, as words."""
    wanted = np.dtype(type_)
    if wanted.kind == "b":
        return "true and false (bool)"
    if wanted.kind == "f":
        return f"numbers up to {np.finfo(wanted).max:.3g} ({wanted.name})"
    limits = np.iinfo(wanted)
    return f"whole numbers from {limits.min} to {limits.max} ({wanted.name})"


def _leaves(values: list[Any]) -> list[Any]:
    """What lists hold in the end, one after the other."""
    leaves = values
    while leaves and _LISTS.issuperset(map(type, leaves)):
        leaves = list(itertools.chain.from_iterable(leaves))
    return leaves


def _said(leaf: Any) -> str:
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


def _keeps(values: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values are the same in their new type, but for rounding."""
    keeps: NDArray[np.bool_]
    if found.dtype.kind == "f":
        keeps = np.isfinite(found) | ~np.isfinite(values)
    elif found.dtype.kind == "b":
        keeps = (values == 0) | (values == 1)
    else:
        limits = np.iinfo(found.dtype)
        keeps = (values >= limits.min) & (values < int(limits.max) + 1)  # the largest itself may be no float
        if values.dtype.kind == "f":
            keeps &= found == values
    return keeps


def _refused(what: str, place: str, found: str, wanted: np.dtype[Any]) -> RequestError:
    return RequestError(f"{what}: {place} is {found[:40]}; it takes {expected(wanted)}")
