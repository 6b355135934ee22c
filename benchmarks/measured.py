"""What a benchmark gives: ratios of ours to a named alternative, measured in turn in one run, medians compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "bench"


@dataclass(frozen=True)
class Ratio:
    """One comparison. bound: '>= 0.70', what it should be; against: the alternative."""

    what: str
    against: str
    ratio: float
    bound: str
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether the ratio is within its bound."""
        sign, limit = self.bound.split()
        return self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)


def seconds(done: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    done()
    return time.perf_counter() - began


def in_turn(rounds: int, **rivals: Callable[[], float]) -> Mapping[str, float]:
    """The median of what each rival gives, asked one after the other, round after round, after one that is not
    counted."""
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name, rival in rivals.items():
            value = rival()
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}
