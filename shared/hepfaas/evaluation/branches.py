"""Histograms of branches by class, and the efficiency of the selection against them. Pure; from a sample of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.sample import Sample
from hepfaas.evaluation.tally import Floats

BINS = 40
MOST_BRANCHES = 200
TAIL = 0.002
"""Share of the values at each end that may lie outside of a histogram."""

SHORT = 0.15
"""A tail is shown whole if it is at most this many times as wide as the range of the other values."""

ROUNDING = 1e-6
"""Rounding tolerance for whole numbers after scaling to float32 and back, as a share of their range."""

LEAST_EFFECTIVE = 10
"""Fewest effective events of a bin whose efficiency is known well enough to be drawn."""


@dataclass(frozen=True, kw_only=True)
class BranchHistogram:
    """Values of a branch by class.

    edges: (bins + 1,). yields, variances: sums of weights and of their squares, (classes, bins). passing,
    passing_variances: the same of the events that pass the selection. outside: share of the values that are lower or
    higher than the edges, by number.
    """

    name: str
    edges: Floats
    yields: Floats
    variances: Floats
    passing: Floats
    passing_variances: Floats
    outside: float

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Return True for bins with enough events for an efficiency, (classes, bins)."""
        return (self.yields > 0) & (self.yields**2 >= LEAST_EFFECTIVE * self.variances)

    def efficiency(self) -> tuple[Floats, Floats]:
        """Return the efficiency of the selection and its standard error, (classes, bins) each; NaN where no yield is
        positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            efficiency = np.where(self.yields > 0, self.passing / self.yields, np.nan)
            failing = self.variances - self.passing_variances
            variance = (1 - efficiency) ** 2 * self.passing_variances + efficiency**2 * failing
            return efficiency, np.sqrt(np.maximum(variance, 0)) / self.yields


def branch_histograms(sample: Sample, passed: NDArray[np.bool_]) -> list[BranchHistogram]:
    """Return the histograms of at most 200 branches and of the multiplicities of jagged ones, in the branches' own
    units. passed: whether each event passes the selection, (events,)."""
    branches = dict(list(sample.branches.items())[:MOST_BRANCHES])
    return [
        histogram_of(name, values, sample, passed) for name, values in {**branches, **multiplicities(branches)}.items()
    ]


def scaled_histograms(sample: Sample, passed: NDArray[np.bool_]) -> list[BranchHistogram]:
    """Return the histograms of the same branches as the network sees them."""
    branches = list(sample.scaled.items())[:MOST_BRANCHES]
    return [histogram_of(name, values, sample, passed) for name, values in branches]


def multiplicities(branches: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return how many slots with a value each event has, (events, 1), for each collection of jagged branches: of
    branches with one prefix, as `Muon_pt` and `Muon_eta`, and one number of slots the first one is taken."""
    found: dict[tuple[str, int], Floats] = {}
    for name, values in branches.items():
        if values.shape[1] > 1:
            found.setdefault(
                (collection_of(name), values.shape[1]), np.isfinite(values).sum(axis=1, keepdims=True) + 0.0
            )
    names: dict[str, Floats] = {}
    for (collection, slots), counts in found.items():
        name = f"number of {collection}"
        names[f"{name} ({slots} slots)" if name in names else name] = counts
    return names


def collection_of(name: str) -> str:
    """Return the name of the collection of objects that a branch belongs to: what is before the first '_'."""
    return name.partition("_")[0]


def histogram_of(name: str, values: Floats, sample: Sample, passed: NDArray[np.bool_]) -> BranchHistogram:
    """Return the histogram of values, (events, slots) or (events,), by class; NaN and infinite values are left out."""
    table = values.reshape(len(sample), -1)
    rows, slots = np.nonzero(np.isfinite(table))
    finite = table[rows, slots]
    edges = edges_of(finite)
    bins = np.searchsorted(edges, finite, side="right") - 1
    bins[finite == edges[-1]] = len(edges) - 2
    inside = (bins >= 0) & (bins < len(edges) - 1)
    rows, bins = rows[inside], bins[inside]
    shape = (sample.n_classes, len(edges) - 1)
    cells, weights = sample.labels[rows] * shape[1] + bins, sample.weights[rows]
    kept = passed[rows]

    def total(chosen: Any, values: Floats) -> Floats:
        sums = np.bincount(cells[chosen], weights=values[chosen], minlength=shape[0] * shape[1])
        return sums.astype(np.float64).reshape(shape)

    return BranchHistogram(
        name=name,
        edges=edges,
        yields=total(slice(None), weights),
        variances=total(slice(None), weights**2),
        passing=total(kept, weights),
        passing_variances=total(kept, weights**2),
        outside=float(1 - inside.mean()) if len(inside) else 0.0,
    )


def edges_of(values: Floats) -> Floats:
    """Return the edges of 40 equal bins, or fewer for whole numbers, that show finite values without long tails."""
    if not len(values):
        return np.array([0.0, 1.0])
    lowest, low, high, highest = np.quantile(values, [0, TAIL, 1 - TAIL, 1], method="nearest").tolist()
    width = high - low
    low = lowest if low - lowest <= SHORT * width else low
    high = highest if highest - high <= SHORT * width else high
    if low == high:
        return np.array([low - 0.5, low + 0.5]) if abs(low) < 2**52 else np.array([low, np.nextafter(low, np.inf)])
    if high - low < 10 * BINS and _are_whole(values, ROUNDING * (highest - lowest)):
        first, last = round(low), round(high)
        step = -(-(last - first + 1) // BINS)
        return np.arange(first - 0.5, last + 0.5 + step, step)
    edges: Floats = np.unique(np.linspace(low, high, BINS + 1))  # fewer where the values are a rounding apart
    return edges


def _are_whole(values: Floats, rounding: float) -> bool:
    return rounding < 0.01 and bool((np.abs(values - np.rint(values)) <= rounding).all())


def selection(sample: Sample, threshold: float) -> NDArray[np.bool_]:
    """Return whether each event passes: of two classes whether the score is above the threshold, of more whether the
    most probable one is the true one."""
    if sample.n_classes == 2:
        return sample.probabilities[:, 1] > threshold
    right: NDArray[np.bool_] = sample.probabilities.argmax(axis=1) == sample.labels
    return right


def to_json(histograms: Sequence[BranchHistogram]) -> list[dict[str, Any]]:
    """Return the histograms as JSON values."""
    return [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(each).items()}
        for each in histograms
    ]


def from_json(values: Sequence[Mapping[str, Any]]) -> list[BranchHistogram]:
    """Return the histograms from the values of `to_json`."""
    arrays = ("edges", "yields", "variances", "passing", "passing_variances")
    return [BranchHistogram(**{**each, **{name: np.array(each[name]) for name in arrays}}) for each in values]
