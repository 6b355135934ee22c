"""A histogram whose bins depend on no value, so that those of parts add up; and its quantiles. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = float(np.array(0x7F7F << 16, dtype=np.uint32).view(np.float32))
"""The largest float32 with 7 bits of mantissa."""


@dataclass(frozen=True)
class Histogram:
    """The number of values in each bin that has one.

    A bin has the values that round to one number of sign, exponent and 7 bits of mantissa (bfloat16): they differ from
    it by at most 1/256 (0.4 %) of it. Its key is the upper half of the number as a float32. Values beyond ±3.39e38 are
    in the outermost bins, those below 5e-41 in the bin of 0.
    """

    counts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: NDArray[Any]) -> Histogram:
        """Return the histogram of finite values, (values,)."""
        clipped = np.clip(values.astype(np.float64), -_LARGEST, _LARGEST).astype(np.float32) + np.float32(0)
        keys = (clipped.view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16)
        counts = np.bincount(keys)
        return cls({int(key): int(counts[key]) for key in np.flatnonzero(counts)})

    def __or__(self, other: Histogram) -> Histogram:
        """Return the histogram of both sets of values."""
        keys = sorted({*self.counts, *other.counts})
        return Histogram({key: self.counts.get(key, 0) + other.counts.get(key, 0) for key in keys})

    def quantile(self, part: int, parts: int) -> float:
        """Return the smallest number of a bin with at least part/parts of all values in it and the bins below: the
        exact quantile within 1/256 of its size."""
        wanted, seen = part * sum(self.counts.values()), 0
        for number, count in sorted((_number(key), count) for key, count in self.counts.items()):
            seen += count * parts
            if seen >= wanted:
                return number
        raise ValueError("a histogram without values has no quantile")

    def to_json(self) -> list[list[int]]:
        """Return JSON values."""
        return [list(self.counts), list(self.counts.values())]

    @classmethod
    def from_json(cls, values: list[list[int]]) -> Histogram:
        """Return the histogram from the values of `to_json`."""
        return cls(dict(zip(*values, strict=True)))


def _number(key: int) -> float:
    return float(np.array(key << 16, dtype=np.uint32).view(np.float32)) + 0.0
