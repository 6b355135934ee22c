"""Sums of floats without rounding, so neither the order of the values nor the way they are cut into parts matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 53
"""Number of bits in the mantissa of a float64."""

_MOST = 2**25
"""Most values that are added as float64 at once: each is a whole number below 2**28, so their sum is exact."""


@dataclass(frozen=True)
class ExactSum:
    """A sum of float64 numbers, numerator × 2**exponent. The numerator is odd or 0, so equal sums are equal values."""

    numerator: int = 0
    exponent: int = 0

    @classmethod
    def of(cls, values: NDArray[Any]) -> ExactSum:
        """Return the sum of the values, any shape. Raises: ValueError if one is NaN or infinite."""
        if _are_large(values):
            high, low = _halves(values)
            return cls.of(high)._times(2**32) | cls.of(low)
        mantissas, exponents = _parts(values)
        return _added(mantissas, exponents)

    @classmethod
    def of_squares(cls, values: NDArray[Any]) -> ExactSum:
        """Return the sum of the squares of the values, which are not rounded either. Raises: as `of`."""
        if _are_large(values):  # (2³²h + l)², with 2hl = (h + l)² - h² - l²
            high, low = _halves(values)
            both, of_high, of_low = (cls.of_squares(part) for part in (high + low, high, low))
            return both._times(2**32) | of_high._times(2**64 - 2**32) | of_low._times(1 - 2**32)
        mantissas, exponents = _parts(values)
        high, low = mantissas >> 26, mantissas & (2**26 - 1)
        twice = 2 * exponents
        return (
            _added(high * high, twice + 52) | _added(high * low, twice + 27) | _added(low * low, twice)  # (h + l)²
        )

    def __or__(self, other: ExactSum) -> ExactSum:
        """Return the sum of both."""
        exponent = min(self.exponent, other.exponent)
        return _normal(
            (self.numerator << (self.exponent - exponent)) + (other.numerator << (other.exponent - exponent)), exponent
        )

    def _times(self, factor: int) -> ExactSum:
        return _normal(self.numerator * factor, self.exponent)

    def __float__(self) -> float:
        """Return the nearest float64; infinity if the sum is larger than all of them."""
        try:
            if self.exponent >= 0:
                return float(self.numerator << self.exponent)
            return self.numerator / (1 << -self.exponent)
        except OverflowError:
            return math.inf if self.numerator > 0 else -math.inf

    @property
    def fraction(self) -> Fraction:
        """The sum as a fraction, for further arithmetic without rounding."""
        return Fraction(self.numerator) * Fraction(2) ** self.exponent

    def to_json(self) -> list[Any]:
        """Return JSON values: the numerator as hexadecimal text, and the exponent."""
        return [format(self.numerator, "x"), self.exponent]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> ExactSum:
        """Return the sum from the values of `to_json`."""
        numerator, exponent = values
        return _normal(int(numerator, 16), int(exponent))


def _are_large(values: NDArray[Any]) -> bool:
    """Return whether there are integers that float64 may not represent."""
    integers = np.asarray(values)
    return integers.dtype.kind in "iu" and bool(((integers > 2**53) | (integers < -(2**53))).any())


def _halves(integers: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the upper and lower 32 bits of integers of 64 bits: value = 2**32 × upper + lower."""
    return (integers >> 32).astype(np.int64), (integers & 0xFFFFFFFF).astype(np.int64)


def _parts(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return whole numbers below 2**53 and exponents of two, whose products are the values."""
    numbers = np.ravel(np.asarray(values, dtype=np.float64))
    if not np.isfinite(numbers).all():
        raise ValueError("a value is NaN or infinite")
    mantissas, exponents = np.frexp(numbers)
    return (mantissas * 2.0**_BITS).astype(np.int64), exponents.astype(np.int64) - _BITS


def _added(numbers: NDArray[np.int64], exponents: NDArray[np.int64]) -> ExactSum:
    """Return the sum of numbers × 2**exponents, |numbers| < 2**55: numbers with one exponent are added first."""
    if not len(numbers):
        return ExactSum()
    least = int(exponents.min())
    sums = [0] * (int(exponents.max()) - least + 1)
    for start in range(0, len(numbers), _MOST):
        part, bins = numbers[start : start + _MOST], exponents[start : start + _MOST] - least
        for shift, weights in ((27, part >> 27), (0, part & (2**27 - 1))):
            for index, weight in enumerate(np.bincount(bins, weights).tolist()):
                sums[index] += int(weight) << shift
    return _normal(sum(value << index for index, value in enumerate(sums) if value), least)


def _normal(numerator: int, exponent: int) -> ExactSum:
    if not numerator:
        return ExactSum()
    zeros = (numerator & -numerator).bit_length() - 1
    return ExactSum(numerator >> zeros, exponent + zeros)
