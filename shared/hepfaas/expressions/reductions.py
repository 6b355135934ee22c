"""Reductions and orders over the objects of each event. Each list is reduced on its own, from its first object to its
last one, so a result never depends on the other events of an array. Pure NumPy.

Lists of one length are the columns of a matrix, (objects of one event, events), so NumPy works on many events at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hepfaas.expressions.arrays import Column, Misfit, Numbers, nan_for_missing, number, taken

LONG = 64
"""Length from which a list is added up by a slower function of NumPy, which does not need a call for each object."""


def objects(values: object) -> Column:
    """Return a jagged column as it is.

    Raises:
        Misfit: the value has one number for each event.
    """
    if not isinstance(values, Column) or values.layout is None:
        raise Misfit("a function over the objects of an event needs a jagged value; this has one number for each event")
    return values


def _numbers(values: Column) -> Column:
    """Return true and false as 1 and 0, and missing integers as NaN."""
    values = number(values)  # type: ignore[assignment]  # a column stays a column
    return nan_for_missing(values)


def _reduced(values: Column, function: Callable[[Numbers], Numbers], empty: Numbers) -> Numbers:
    """Return function(...) of the matrix of each length, (events,); `empty` has the results of empty lists."""
    with np.errstate(all="ignore"):
        for events, places in values.lists.by_length:
            empty[events] = function(values.data.take(places))
    return empty


def total(values: Column) -> Column:
    """Return the sum of each list, 0 for an empty list, NaN if an object is NaN. The type is that of the values."""
    values = _numbers(values)
    return Column(_reduced(values, _sums, np.zeros(values.events, values.data.dtype)))


def _sums(lists: Numbers) -> Numbers:
    """Return 0 + first + second + ...; `np.sum` would add in an order that depends on the shape of the matrix."""
    if len(lists) > LONG:
        return np.asarray(np.add.accumulate(lists, axis=0)[-1] + 0)  # -0.0 becomes 0.0
    sums: Numbers = lists[0] + 0
    for place in lists[1:]:
        sums += place
    return sums


def count(values: Column) -> Column:
    """Return the number of objects of each event."""
    return Column(values.lists.counts)


def mean(values: Column) -> Column:
    """Return the mean of each list in double precision; NaN for an empty list."""
    values = _numbers(values)
    double = Column(values.data.astype(np.float64), values.layout)
    with np.errstate(all="ignore"):
        return Column(total(double).data / values.lists.counts)


def largest(values: Column) -> Column:
    """Return the largest number of each list; NaN is left out; missing if there is none."""
    return _extreme(values, np.fmax)


def smallest(values: Column) -> Column:
    """Return the smallest number of each list; NaN is left out; missing if there is none."""
    return _extreme(values, np.fmin)


def _extreme(values: Column, of_two: np.ufunc) -> Column:
    values = _numbers(values)
    is_float = values.data.dtype.kind == "f"
    empty = np.full(values.events, np.nan if is_float else 0, values.data.dtype)
    result = _reduced(values, lambda lists: of_two.reduce(lists, axis=0), empty)
    return Column(result + 0) if is_float else Column(result, None, values.lists.counts == 0)  # -0.0 becomes 0.0


def position_of_largest(values: Column) -> Column:
    """Return the position of the first largest number of each list; missing if there is none."""
    return _position(values, np.fmax)


def position_of_smallest(values: Column) -> Column:
    """Return the position of the first smallest number of each list; missing if there is none."""
    return _position(values, np.fmin)


def _position(values: Column, of_two: np.ufunc) -> Column:
    def positions(lists: Numbers) -> Numbers:
        hits = lists == of_two.reduce(lists, axis=0)
        return np.where(hits.any(axis=0), hits.argmax(axis=0), -1)

    result = _reduced(_numbers(values), positions, np.full(values.events, -1, np.int64))
    return Column(np.maximum(result, 0), None, result < 0)


def any_of(values: Column) -> Column:
    """Return whether a value of the list is true; False for an empty list. values: true or false."""
    return Column(_reduced(values, lambda lists: np.logical_or.reduce(lists, axis=0), np.zeros(values.events, bool)))


def all_of(values: Column) -> Column:
    """Return whether all values of the list are true; True for an empty list. values: true or false."""
    return Column(_reduced(values, lambda lists: np.logical_and.reduce(lists, axis=0), np.ones(values.events, bool)))


def first(values: Column) -> Column:
    """Return the first object of each event; missing if there is none."""
    return taken(values, 0)


def last(values: Column) -> Column:
    """Return the last object of each event; missing if there is none."""
    return taken(values, -1)


def ordered(values: Column) -> Column:
    """Return each list in ascending order; NaN comes last."""
    values = _numbers(values)
    return _rearranged(values, lambda lists: np.sort(lists, axis=0, kind="stable"), np.empty_like(values.data))


def order(values: Column) -> Column:
    """Return the positions that bring each list into ascending order; equal values keep their order."""
    positions = np.empty(len(values.data), np.int64)
    return _rearranged(_numbers(values), lambda lists: np.argsort(lists, axis=0, kind="stable"), positions)


def _rearranged(values: Column, function: Callable[[Numbers], Numbers], result: Numbers) -> Column:
    for _, places in values.lists.by_length:
        result[places] = function(values.data.take(places))
    return Column(result, values.layout)
