"""Reductions and orders over the objects of each event. Each list is reduced on its own, from its first object to its
last one, so a result never depends on the other events of an array. Pure NumPy."""

from __future__ import annotations

import numpy as np

from hepfaas.expressions.arrays import Column, Misfit, Numbers, nan_for_missing, number, taken


def objects(values: object) -> Column:
    """Return a jagged column as it is.

    Raises:
        Misfit: the value has one number for each event.
    """
    if not isinstance(values, Column) or values.offsets is None:
        raise Misfit("a function over the objects of an event needs a jagged value; this has one number for each event")
    return values


def _numbers(values: Column) -> Column:
    """Return true and false as 1 and 0, and missing integers as NaN."""
    values = number(values)  # type: ignore[assignment]  # a column stays a column
    return nan_for_missing(values)


def total(values: Column) -> Column:
    """Return the sum of each list, 0 for an empty list, NaN if an object is NaN. The type is that of the values."""
    values = _numbers(values)
    sums = np.zeros(values.events, values.data.dtype)
    with np.errstate(all="ignore"):
        np.add.at(sums, values.owners, values.data)
    return Column(sums)


def count(values: Column) -> Column:
    """Return the number of objects of each event."""
    return Column(values.counts)


def mean(values: Column) -> Column:
    """Return the mean of each list in double precision; NaN for an empty list."""
    values = _numbers(values)
    double = Column(values.data.astype(np.float64), values.offsets)
    with np.errstate(all="ignore"):
        return Column(total(double).data / values.counts)


def largest(values: Column) -> Column:
    """Return the largest number of each list; NaN is left out; missing if there is none."""
    return _extreme(values, np.fmax, np.maximum)


def smallest(values: Column) -> Column:
    """Return the smallest number of each list; NaN is left out; missing if there is none."""
    return _extreme(values, np.fmin, np.minimum)


def _extreme(values: Column, of_floats: np.ufunc, of_integers: np.ufunc) -> Column:
    values = _numbers(values)
    data = values.data
    if data.dtype.kind == "f":
        result = np.full(values.events, np.nan, data.dtype)
        of_floats.at(result, values.owners, data)
        return Column(result + 0)  # -0.0 becomes 0.0
    limits = np.iinfo(data.dtype)
    result = np.full(values.events, limits.min if of_integers is np.maximum else limits.max, data.dtype)
    of_integers.at(result, values.owners, data)
    return Column(result, None, values.counts == 0)


def position_of_largest(values: Column) -> Column:
    """Return the position of the first largest number of each list; missing if there is none."""
    return _position(values, largest(values))


def position_of_smallest(values: Column) -> Column:
    """Return the position of the first smallest number of each list; missing if there is none."""
    return _position(values, smallest(values))


def _position(values: Column, wanted: Column) -> Column:
    values = _numbers(values)
    owners = values.owners
    hits = np.flatnonzero(values.data == wanted.data[owners])
    events, first = np.unique(owners[hits], return_index=True)
    position = np.zeros(values.events, np.int64)
    missing = np.ones(values.events, bool)
    position[events] = hits[first] - values.starts[events]
    missing[events] = False
    return Column(position, None, missing)


def any_of(values: Column) -> Column:
    """Return whether a value of the list is true; False for an empty list. values: true or false."""
    return Column(total(values).data > 0)


def all_of(values: Column) -> Column:
    """Return whether all values of the list are true; True for an empty list. values: true or false."""
    return Column(total(values).data == values.counts)


def first(values: Column) -> Column:
    """Return the first object of each event; missing if there is none."""
    return taken(values, 0)


def last(values: Column) -> Column:
    """Return the last object of each event; missing if there is none."""
    return taken(values, -1)


def ordered(values: Column) -> Column:
    """Return each list in ascending order; NaN comes last."""
    values = _numbers(values)
    return Column(values.data[_order(values)], values.offsets)


def order(values: Column) -> Column:
    """Return the positions that bring each list into ascending order; equal values keep their order."""
    values = _numbers(values)
    return Column(_order(values) - values.starts[values.owners], values.offsets)


def _order(values: Column) -> Numbers:
    return np.lexsort((values.data, values.owners))
