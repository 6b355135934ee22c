"""Events counted in cells of an array, with exact sums of their weights. Pure.

A sum of floats depends on the order of its terms. So each weight is rounded to a whole number of steps, and the whole
numbers are added: a tally depends neither on the order of the events nor on how they are divided into parts. `ExactSum`
does not round, but takes one sum at a time; a tally has thousands of cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

DIGIT_BITS = 30
LARGEST_WEIGHT = 2.0**36
"""Largest weight, in units of `weight_unit`."""

WEIGHT_DIGITS, SQUARE_DIGITS = 2, 3
"""Weights are rounded to 2**-60 of the largest weight, and squares to 2**-90 of its square: a weight of a billionth of
the largest one has a relative error of at most 1e-9, and its square one of 1e-9 too."""


@dataclass(frozen=True)
class CellSums:
    """Sums of floats in the cells of an array, as integers.

    digits: (digits, *shape), the most significant first: the sum of a cell is largest × Σ digits[k] × 2**(-30 (k + 1)).
    largest: a power of two that no term exceeds. Each digit of a term is at most 2**30, so that 8 billion terms can be
    added without an overflow.
    """

    digits: Counts
    largest: float

    @classmethod
    def of(cls, cells: Counts, values: Floats, shape: Sequence[int], *, largest: float, digits: int) -> CellSums:
        """Return the sums of values, (terms,), by the index of their cell in the flattened array, (terms,).

        Raises: RequestError if a value is NaN or exceeds `largest`.
        """
        if not np.all(np.abs(values) <= largest):
            worst = float(values[~(np.abs(values) <= largest)][0])
            raise RequestError(
                f"an event weight is {worst:g}, and the largest one that was found in the "
                f"survey of the files is at most {largest:g}"
            )
        sums = np.zeros((digits, math.prod(shape)), dtype=np.int64)
        left = values / largest
        for digit in sums:
            left = left * 2.0**DIGIT_BITS  # exact: a power of two
            whole = np.rint(left)
            np.add.at(digit, cells, whole.astype(np.int64))
            left = left - whole  # exact, too
        return cls(sums.reshape(digits, *shape), largest)

    def __add__(self, other: CellSums) -> CellSums:
        if self.largest != other.largest:
            raise ValueError(f"sums in units of {self.largest} and {other.largest} cannot be added")
        return CellSums(self.digits + other.digits, self.largest)

    def apply(self, change: Callable[[Counts], Counts]) -> CellSums:
        """Return the sums after a linear change of the array, such as a sum over an axis or a choice of cells."""
        return CellSums(np.stack([change(digit) for digit in self.digits]), self.largest)

    def numbers(self) -> Floats:
        """Return the sums as floats. Equal sums give equal floats, whatever terms they were made of."""
        step = 2.0**-DIGIT_BITS
        total = np.zeros(self.digits.shape[1:])
        for power, digit in reversed(list(enumerate(_carried(self.digits), 1))):
            total = total + digit * step**power
        return total * self.largest

    def whole(self, cells: Any) -> list[int]:
        """Return the sums of some cells of the flattened array as multiples of the last digit."""
        total = [0] * len(cells)
        for digit in self.digits.reshape(len(self.digits), -1)[:, cells].tolist():
            total = [(value << DIGIT_BITS) + one for value, one in zip(total, digit, strict=True)]
        return total

    @classmethod
    def from_whole(
        cls, cells: Any, values: Sequence[int], shape: Sequence[int], *, largest: float, digits: int
    ) -> CellSums:
        """Return the sums from the values of `whole`; those of other cells are 0."""
        sums = np.zeros((digits, math.prod(shape)), dtype=np.int64)
        left = list(values)
        for digit in reversed(range(1, digits)):
            sums[digit, cells] = [value & ((1 << DIGIT_BITS) - 1) for value in left]
            left = [value >> DIGIT_BITS for value in left]
        sums[0, cells] = left
        return cls(sums.reshape(digits, *shape), largest)


@dataclass(frozen=True)
class Tally:
    """Events in the cells of an array.

    events: their number. sums, squares: of their weights and of the squares of these; None without weights.
    """

    events: Counts
    sums: CellSums | None = None
    squares: CellSums | None = None

    def __or__(self, other: Tally) -> Tally:
        """Return the tally of both sets of events."""
        return Tally(self.events + other.events, _added(self.sums, other.sums), _added(self.squares, other.squares))

    def __sub__(self, part: Tally) -> Tally:
        """Return the tally without the events of another one, which are among them."""
        return self | part.apply(np.negative)

    @property
    def is_weighted(self) -> bool:
        """True if the events have weights."""
        return self.sums is not None

    @property
    def yields(self) -> Floats:
        """The sum of weights of each cell; the number of events without weights."""
        return self.events.astype(np.float64) if self.sums is None else self.sums.numbers()

    @property
    def variances(self) -> Floats:
        """The sum of squared weights of each cell, which estimates the variance of its yield."""
        return self.events.astype(np.float64) if self.squares is None else self.squares.numbers()

    def apply(self, change: Callable[[Counts], Counts]) -> Tally:
        """Return the tally after a linear change of the array, such as a sum over an axis or a choice of cells."""
        return Tally(
            change(self.events),
            None if self.sums is None else self.sums.apply(change),
            None if self.squares is None else self.squares.apply(change),
        )

    def __getitem__(self, cells: Any) -> Tally:
        return self.apply(lambda values: values[cells])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the cells with events, each by its distance from the one before."""
        flat = self.events.reshape(-1)
        filled = np.flatnonzero(flat)
        values: dict[str, Any] = {
            "shape": list(self.events.shape),
            "gaps": np.diff(filled, prepend=0).tolist(),
            "counts": flat[filled].tolist(),
        }
        if self.sums is not None and self.squares is not None:
            values |= {
                "sums": self.sums.whole(filled),
                "squares": self.squares.whole(filled),
                "largest": self.sums.largest,
            }
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Return the tally from the values of `to_json`."""
        shape, largest = values["shape"], values.get("largest")
        cells = np.cumsum(values["gaps"], dtype=np.int64)
        events = np.zeros(math.prod(shape), dtype=np.int64)
        events[cells] = values["counts"]
        if largest is None:
            return cls(events.reshape(shape))
        return cls(
            events.reshape(shape),
            CellSums.from_whole(cells, values["sums"], shape, largest=largest, digits=WEIGHT_DIGITS),
            CellSums.from_whole(cells, values["squares"], shape, largest=largest**2, digits=SQUARE_DIGITS),
        )


def tally(cells: Counts, shape: Sequence[int], weights: Floats | None = None, unit: float = 1.0) -> Tally:
    """Return the tally of events by the index of their cell in the flattened array, (events,).

    weights: (events,). unit: a power of two; no weight exceeds 2**36 units.

    Raises: RequestError if a weight is larger than that, or NaN.
    """
    events = np.bincount(cells, minlength=math.prod(shape)).astype(np.int64).reshape(shape)
    if weights is None:
        return Tally(events)
    largest = unit * LARGEST_WEIGHT
    sums = CellSums.of(cells, weights, shape, largest=largest, digits=WEIGHT_DIGITS)
    return Tally(events, sums, CellSums.of(cells, weights**2, shape, largest=largest**2, digits=SQUARE_DIGITS))


def _added(one: CellSums | None, other: CellSums | None) -> CellSums | None:
    if one is None or other is None:
        if one is not other:
            raise ValueError("a tally with weights and one without cannot be added")
        return None
    return one + other


def _carried(digits: Counts) -> Counts:
    """Return equal sums whose digits, except the first, are from 0 to 2**30 - 1."""
    carried = digits.copy()
    for place in range(len(digits) - 1, 0, -1):
        carried[place - 1] += carried[place] >> DIGIT_BITS
        carried[place] &= (1 << DIGIT_BITS) - 1
    return carried
