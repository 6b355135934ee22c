"""Result of a benchmark: ratios to named alternatives, from medians of measurements taken alternately in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "bench"


@dataclass(frozen=True)
class Ratio:
    """One comparison. against: the alternative. bound: the target, as '>= 0.70'."""

    subject: str
    against: str
    ratio: float
    bound: str
    detail: str = field(default="", kw_only=True)

    @property
    def holds(self) -> bool:
        """Whether the ratio is within its bound."""
        sign, limit = self.bound.split()
        return self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)


def seconds(call: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_turn(rounds: int, **rivals: Callable[[], float]) -> Mapping[str, float]:
    """Return the median measurement of each rival. Each round measures all rivals; the first one is a warm-up."""
    measurements: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, measure in rivals.items():
            value = measure()
            if number:
                measurements[name].append(value)
    return {name: statistics.median(values) for name, values in measurements.items()}
