"""Values during an evaluation: one number for each event, or one for each object of each event. Pure NumPy.

A missing value (an object that does not exist) is NaN in a column of floating-point numbers. Columns of integers and of
true and false have a mask instead, so that integers stay exact, and that `not` of a missing value is missing, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[Any]]
Scalar = bool | int | float


class Misfit(Exception):
    """Values do not fit an operation; the message is for the user. The evaluation adds the place."""


class Layout:
    """Number of objects of each event (`counts`). Derived arrays are computed once and shared by all columns.

    offsets: the objects of event i are offsets[i] up to offsets[i + 1].
    """

    def __init__(self, counts: Numbers, offsets: Numbers | None = None) -> None:
        self.counts = counts
        if offsets is not None:
            self.offsets = offsets

    @functools.cached_property
    def offsets(self) -> Numbers:
        """Return the position of the first object of each event, and the number of all objects."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])

    @property
    def starts(self) -> Numbers:
        """Return the position of the first object of each event."""
        return self.offsets[:-1]

    @functools.cached_property
    def owners(self) -> Numbers:
        """Return the event of each object."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @functools.cached_property
    def by_length(self) -> list[tuple[Numbers, Numbers]]:
        """Return the events of each number of objects but 0, and the positions of their objects, (objects, events)."""
        if not self.offsets[-1]:
            return []
        sizes = np.bincount(self.counts)
        order = np.argsort(self.counts.astype(np.min_scalar_type(len(sizes))), kind="stable")  # small integers: faster
        groups = np.split(order, np.cumsum(sizes[np.flatnonzero(sizes)])[:-1])
        starts = [self.starts[events] for events in groups]
        return [
            (events, first + np.arange(count)[:, np.newaxis])
            for count, events, first in zip(np.flatnonzero(sizes).tolist(), groups, starts, strict=True)
            if count
        ]

    def __eq__(self, other: object) -> bool:
        """Return whether all events have the same numbers of objects."""
        return other is self or (isinstance(other, Layout) and np.array_equal(self.counts, other.counts))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Numbers of all events.

    data: shape (events,), or (objects of all events,) if there is a layout.
    layout: None if each event has one value.
    missing: values that do not exist; None if data are floating-point numbers (NaN), or if all exist.
    """

    data: Numbers
    layout: Layout | None = None
    missing: Numbers | None = None

    @property
    def lists(self) -> Layout:
        """Return the layout of a jagged column.

        Raises:
            Misfit: there is one number for each event.
        """
        if self.layout is None:
            raise Misfit("objects are needed, and there is one number for each event")
        return self.layout

    @property
    def events(self) -> int:
        """Return the number of events."""
        return len(self.data) if self.layout is None else len(self.layout.counts)

    @property
    def absent(self) -> Numbers:
        """Return the mask of values that are missing, or NaN."""
        if self.data.dtype.kind == "f":
            return np.isnan(self.data)
        return np.zeros(len(self.data), bool) if self.missing is None else self.missing


def column(data: Numbers, layout: Layout | None = None, missing: Numbers | None = None) -> Column:
    """Return a column. Missing floating-point numbers become NaN; a missing true or false has False below the mask."""
    if missing is not None and data.dtype.kind == "f":
        data, missing = np.where(missing, data.dtype.type(np.nan), data), None
    elif missing is not None and data.dtype.kind == "b":
        data = data & ~missing
    return Column(data, layout, missing)


def aligned(values: Sequence[Column | Scalar]) -> list[Column | Scalar]:
    """Return the values with one shape: a column with one value for each event is repeated for the event's objects.

    Raises:
        Misfit: two jagged columns have different numbers of objects.
    """
    jagged = next((value for value in values if isinstance(value, Column) and value.layout is not None), None)
    if jagged is None:
        return list(values)
    return [value if not isinstance(value, Column) else _spread(value, jagged) for value in values]


def _spread(value: Column, like: Column) -> Column:
    layout = like.lists
    if value.layout is None:
        missing = None if value.missing is None else value.missing.take(layout.owners)
        return Column(value.data.take(layout.owners), layout, missing)
    if value.layout != layout:
        event = int(np.flatnonzero(value.layout.counts != layout.counts)[0])
        raise Misfit(
            f"the values have different numbers of objects, such as {layout.counts[event]} and "
            f"{value.layout.counts[event]} in one event; reduce one of them with sum, max, any or [0]"
        )
    return Column(value.data, layout, value.missing)


def missing_of(columns: Sequence[Column]) -> Numbers | None:
    """Return the union of the masks of aligned columns."""
    masks = [column.missing for column in columns if column.missing is not None]
    return np.logical_or.reduce(masks) if masks else None


def nan_for_missing(value: Column) -> Column:
    """Return missing integers as NaN, in double precision; other columns as they are."""
    if value.missing is None or value.data.dtype.kind not in "iu":
        return value
    return column(value.data.astype(np.float64), value.layout, value.missing)


def number(value: Column | Scalar) -> Column | Scalar:
    """Return true and false as 1 and 0; other values as they are. A missing true or false is 0."""
    if isinstance(value, Column):
        return Column(value.data.astype(np.int64), value.layout) if value.data.dtype.kind == "b" else value
    return int(value) if isinstance(value, bool) else value


def elementwise(function: Callable[..., Any], *values: Column | Scalar) -> Column | Scalar:
    """Return function(...) for each event or object, with the types of NumPy; no warning is given."""
    fitting = aligned([number(value) for value in values])
    columns = [value for value in fitting if isinstance(value, Column)]
    with np.errstate(all="ignore"):
        if not columns:
            return _scalar(function, [value for value in fitting if not isinstance(value, Column)])
        arrays = [value.data for value in columns]
        result = function(*(v.data if isinstance(v, Column) else _within(v, arrays) for v in fitting))
    return column(result, columns[0].layout, missing_of(columns))


def _within(value: Scalar, arrays: list[Numbers]) -> Scalar:
    """Return an integer that does not fit the type of the integer arrays as a floating-point number."""
    if not isinstance(value, int):
        return value
    limits = [np.iinfo(array.dtype) for array in arrays if array.dtype.kind in "iu"]
    return value if all(limit.min <= value <= limit.max for limit in limits) else float(value)


def _scalar(function: Callable[..., Any], values: Sequence[Scalar]) -> Scalar:
    """Return function(...) of numbers; an integer result is exact, and a floating-point number beyond 2⁵³."""
    approximate = function(*(float(value) for value in values))
    if all(isinstance(value, int) for value in values) and abs(approximate) < 2**53:
        return _plain(function(*(value if abs(value) < 2**63 else float(value) for value in values)))
    return _plain(approximate)


def _plain(value: Any) -> Scalar:
    result: Scalar = np.asarray(value).item()
    return result


def truth(value: Column | Scalar) -> Column | Scalar:
    """Return the value as true or false: numbers other than 0 are true, NaN is missing."""
    if not isinstance(value, Column):
        return bool(value == value and value != 0)
    if value.data.dtype.kind == "b":
        return value
    return column(value.data != 0, value.layout, value.absent)


def as_column(value: Column | Scalar, events: int) -> Column:
    """Return a column of `events` events: a number is repeated, a column is returned unchanged."""
    return value if isinstance(value, Column) else Column(np.full(events, value))


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Objects that are taken from jagged columns of one layout.

    at: position of each among the objects of all events; 0 if it does not exist. exists: whether it does.
    layout: of the result.
    """

    at: Numbers
    exists: Numbers
    layout: Layout | None


def taken(values: Column, index: Column | Scalar) -> Column:
    """Return one object of each event (a number, or a column of one number for each event), or one for each number of
    a jagged column. Objects that do not exist are missing. Only a plain number counts from the end if it is negative;
    a negative number of a column is the position of no object.
    """
    return at_places(values, places(values.lists, index))


def places(layout: Layout, index: Column | Scalar) -> Places:
    """Return the objects that `taken` gives, for several columns of one layout."""
    starts, counts = layout.starts, layout.counts
    if not isinstance(index, Column):
        whole = _whole(index)
        exists = counts > whole if whole >= 0 else counts >= -whole
        start = starts if whole >= 0 else layout.offsets[1:]
        return Places(np.where(exists, start + whole, 0), exists, None)
    position, absent = _positions(index)
    if index.layout is not None:
        starts, counts = starts.take(index.layout.owners), counts.take(index.layout.owners)
    exists = ~absent & (position >= 0) & (position < counts)
    return Places(np.where(exists, starts + position, 0), exists, index.layout)


def at_places(values: Column, where: Places) -> Column:
    """Return the objects of a column."""
    if not len(values.data):
        return column(np.zeros(len(where.at), values.data.dtype), where.layout, ~where.exists)
    missing = ~where.exists if values.missing is None else ~where.exists | values.missing.take(where.at)
    data = values.data.take(where.at)
    if data.dtype.kind == "f":
        data[missing] = np.nan
        return Column(data, where.layout)
    return column(data, where.layout, missing)


def _whole(index: Scalar) -> int:
    if isinstance(index, bool) or not float(index).is_integer():
        raise Misfit(f"an index has to be a whole number; found {index}")
    return max(-(2**62), min(int(index), 2**62))


def _positions(index: Column) -> tuple[Numbers, Numbers]:
    absent = index.absent
    if index.data.dtype.kind != "f":
        return index.data.astype(np.int64), absent
    if np.any((index.data != np.floor(index.data)) & ~absent):
        raise Misfit("an index has to be a whole number; some of these have a fraction")
    absent = absent | ~(np.abs(index.data) < 2**53)
    return np.where(absent, 0, index.data).astype(np.int64), absent


def kept(values: Column, condition: Column) -> Column:
    """Return the objects whose condition is true."""
    keep = _spread(condition, values).data
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)])
    offsets = total.take(values.lists.offsets)
    missing = None if values.missing is None else values.missing.compress(keep)
    return Column(values.data.compress(keep), Layout(np.diff(offsets), offsets), missing)
