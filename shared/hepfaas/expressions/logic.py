"""Comparisons, and true and false with missing values: a comparison with a missing value or with NaN is missing, and
`and`, `or`, `not` follow the rules of SQL (true or missing is true, not missing is missing). Pure NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hepfaas.expressions.arrays import Column, Misfit, Scalar, aligned, column, elementwise, number


def joined(function: Callable[..., Any], *values: Column | Scalar) -> Column | Scalar:
    """Return function(...) of values that fit each other; masks are left to the caller."""
    fitting = aligned(values)
    data = [value.data if isinstance(value, Column) else value for value in fitting]
    like = next((value for value in fitting if isinstance(value, Column)), None)
    with np.errstate(all="ignore"):
        result = function(*_fitting_types(data))
    if like is None:
        plain: Scalar = np.asarray(result).item()
        return plain
    return Column(result, like.layout)


def _fitting_types(data: list[Any]) -> list[Any]:
    """Return integers that need more bits than the arrays have as floating-point numbers."""
    signed = any(isinstance(value, np.ndarray) and value.dtype.kind == "i" for value in data)
    unsigned = any(isinstance(value, np.ndarray) and value.dtype.kind == "u" for value in data)

    def fits(value: Any) -> bool:
        return not isinstance(value, int) or ((value < 2**63 or not signed) and (value >= 0 or not unsigned))

    return [value if fits(value) else float(value) for value in data]


def compared(function: np.ufunc, left: Column | Scalar, right: Column | Scalar) -> Column | Scalar:
    """Return a comparison; it is missing where a side is missing or NaN."""
    one, two = aligned([left, right])
    like = next((value for value in (one, two) if isinstance(value, Column)), None)
    data = [value.data if isinstance(value, Column) else value for value in (one, two)]
    if like is None:
        return bool(function(*data))
    missing = _absent(one) | _absent(two)
    return column(function(*data), like.layout, np.broadcast_to(missing, like.data.shape) if np.any(missing) else None)


def _absent(value: Column | Scalar) -> Any:
    if isinstance(value, Column) and (value.missing is not None or value.data.dtype.kind == "f"):
        return value.absent
    return np.bool_(value != value) if isinstance(value, float) else np.bool_(False)


def flag(value: Column | Scalar) -> Column | Scalar:
    """Return a condition without its mask: missing is false."""
    return Column(value.data, value.layout) if isinstance(value, Column) else value


def opposite(value: Column | Scalar) -> Column | Scalar:
    """Return `not`; the opposite of missing is missing."""
    if not isinstance(value, Column):
        return not value
    return column(~value.data, value.layout, value.missing)


def both(left: Column | Scalar, right: Column | Scalar) -> Column | Scalar:
    """Return `and` of two conditions: false if one is false, else missing if one is missing."""
    return _three_valued(np.logical_and, left, right)


def either(left: Column | Scalar, right: Column | Scalar) -> Column | Scalar:
    """Return `or` of two conditions: true if one is true, else missing if one is missing."""
    return _three_valued(np.logical_or, left, right)


def _three_valued(function: np.ufunc, left: Column | Scalar, right: Column | Scalar) -> Column | Scalar:
    data = joined(function, flag(left), flag(right))
    if all(not isinstance(side, Column) or side.missing is None for side in (left, right)):
        return data
    possible = joined(function, _possible(left), _possible(right))
    if not isinstance(data, Column) or not isinstance(possible, Column):
        return data
    return Column(data.data, data.layout, possible.data & ~data.data)


def _possible(value: Column | Scalar) -> Column | Scalar:
    """Return whether a condition is true or missing."""
    if not isinstance(value, Column) or value.missing is None:
        return value
    return Column(value.data | value.missing, value.layout)


def bitwise(function: np.ufunc, left: Column | Scalar, right: Column | Scalar) -> Column | Scalar:
    """Return '&', '|', '<<' or '>>' of integers.

    Raises:
        Misfit: a side is a floating-point number.
    """
    sides = [_integer(side) for side in (left, right)]
    if all(not isinstance(side, Column) for side in sides):
        return int(function(*(np.int64(side) for side in sides)))
    unsigned = [isinstance(side, Column) and side.data.dtype.kind == "u" for side in sides]
    if any(unsigned) and not all(unsigned):  # NumPy has no common integer type
        sides = [_signed(side) for side in sides]
    return elementwise(function, *sides)


def inverted(value: Column | Scalar) -> Column | Scalar:
    """Return '~' of integers: all bits are inverted."""
    return elementwise(np.invert, _integer(value)) if isinstance(value, Column) else ~_integer(value)


def _integer(value: Column | Scalar) -> Any:
    value = number(value)
    if (value.data.dtype.kind == "f") if isinstance(value, Column) else isinstance(value, float):
        raise Misfit("the operator needs integers, or true and false; join conditions with 'and', 'or'")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Misfit("the operator needs integers of 64 bits with a sign")
    return value


def _signed(side: Any) -> Any:
    return Column(side.data.astype(np.int64), side.layout, side.missing) if isinstance(side, Column) else side


def power(base: Column | Scalar, exponent: Column | Scalar) -> Column | Scalar:
    """Return base ** exponent: an integer for an integer base and a plain exponent of at least 0, else a
    floating-point number."""
    base, exponent = number(base), number(exponent)
    if isinstance(exponent, int) and exponent >= 0:
        return elementwise(np.power, base, exponent)
    if isinstance(base, Column) and base.data.dtype.kind in "iu":
        data = base.data.astype(np.float64)
        base = column(data, base.layout, base.missing)
    return elementwise(np.power, float(base) if isinstance(base, int) else base, exponent)


def divided(function: np.ufunc, left: Column | Scalar, right: Column | Scalar) -> Column | Scalar:
    """Return '//', '%' or fmod. A division of integers by zero is missing."""
    left, right = number(left), number(right)
    if not isinstance(right, Column):
        by_zero = right == 0 and not _is_float(left) and not _is_float(right)
        return elementwise(function, left, math.nan if by_zero else right)
    if _is_float(left) or _is_float(right):
        return elementwise(function, left, right)
    zero = right.data == 0
    missing = zero if right.missing is None else zero | right.missing
    return elementwise(function, left, Column(right.data + zero.astype(right.data.dtype), right.layout, missing))


def _is_float(value: Column | Scalar) -> bool:
    return value.data.dtype.kind == "f" if isinstance(value, Column) else isinstance(value, float)
