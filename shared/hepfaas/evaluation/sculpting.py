"""Sculpting: distributions of spectators, such as a mass, in slices of the score. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.branches import edges_of
from hepfaas.evaluation.sample import Sample
from hepfaas.evaluation.tally import Floats

MOST_SPECTATORS = 20
SLICES = (0.0, 0.5, 0.8, 0.95, 1.0)
"""Shares of the background, by rising score, at which the slices begin and end."""


def divergence(one: Floats, other: Floats) -> float | None:
    """Return the Jensen-Shannon divergence of two histograms in bits (Lin, IEEE Trans. Inf. Theory 37 (1991) 145): 0 if
    they are proportional, 1 if they do not overlap. Negative bins count as empty. None if one of them is empty."""
    first, second = np.maximum(one, 0), np.maximum(other, 0)
    if not first.sum() or not second.sum():
        return None
    first, second = first / first.sum(), second / second.sum()
    middle = (first + second) / 2
    return max(0.0, _relative_entropy(first, middle) / 2 + _relative_entropy(second, middle) / 2)


def by_chance(n_bins: int, one: float, other: float) -> float:
    """Return the expected divergence of two samples of one distribution, (bins - 1) (1/n + 1/m) / (8 ln 2), of the
    effective numbers of events n and m: the leading term for many events."""
    return (n_bins - 1) * (1 / one + 1 / other) / (8 * math.log(2))


def sculpting(sample: Sample, thresholds: list[float]) -> list[dict[str, Any]]:
    """Return for each spectator and each curve the distributions of the background in slices of its score, as JSON
    values.

    thresholds: of the selection on the score, one for each curve (one for two classes). divergence: of the background
    that passes and the background that fails; chance: the same as expected without any relation. profile: mean score of
    the background in each bin, None where it has no positive yield. A curve without background is left out.
    """
    found = []
    for name, values in list(sample.spectators.items())[:MOST_SPECTATORS]:
        finite = np.isfinite(values)
        edges = edges_of(values[finite])
        bins = np.searchsorted(edges, values, side="right") - 1
        inside = finite & (bins >= 0) & (bins < len(edges) - 1)
        for curve, threshold in enumerate(thresholds):
            signal = curve if len(thresholds) > 1 else 1
            rows = np.flatnonzero(inside & (sample.labels != signal))
            if len(rows) and np.abs(sample.weights[rows]).sum():
                score = sample.probabilities[rows, signal]
                values_of = _curve(bins[rows], len(edges) - 1, score, sample.weights[rows], threshold)
                found.append({"name": name, "curve": curve, "edges": edges.tolist(), **values_of})
    return found


def _curve(bins: NDArray[np.int64], n_bins: int, score: Floats, weights: Floats, threshold: float) -> dict[str, Any]:
    limits = _quantiles(score, np.abs(weights), SLICES)
    place = np.clip(np.searchsorted(limits[1:-1], score, side="right"), 0, len(SLICES) - 2)
    slices = [_histogram(bins, n_bins, weights, place == number) for number in range(len(SLICES) - 1)]
    passed = score > threshold
    passing, failing = (_histogram(bins, n_bins, weights, chosen) for chosen in (passed, ~passed))
    total = _histogram(bins, n_bins, weights, np.ones(len(bins), dtype=bool))
    effective = [_effective(weights[chosen]) for chosen in (passed, ~passed)]
    filled = int((total[0] > 0).sum())
    sums = np.bincount(bins, weights=weights * score, minlength=n_bins).tolist()
    return {
        "limits": limits.tolist(),
        "slices": [[yields.tolist(), variances.tolist()] for yields, variances in slices],
        "threshold": threshold,
        "divergence": divergence(passing[0], failing[0]),
        "chance": by_chance(filled, effective[0], effective[1]) if all(effective) and filled else None,
        "profile": [part / whole if whole > 0 else None for part, whole in zip(sums, total[0].tolist(), strict=True)],
    }


def _quantiles(values: Floats, weights: Floats, shares: tuple[float, ...]) -> Floats:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    places = np.searchsorted(below, np.array(shares) * below[-1])
    found: Floats = values[order][np.minimum(places, len(values) - 1)]
    return found


def _histogram(
    bins: NDArray[np.int64], n_bins: int, weights: Floats, chosen: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    def total(values: Floats) -> Floats:
        return np.bincount(bins[chosen], weights=values[chosen], minlength=n_bins).astype(np.float64)

    return total(weights), total(weights**2)


def _effective(weights: Floats) -> float:
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _relative_entropy(shares: Floats, reference: Floats) -> float:
    filled = shares > 0
    return float((shares[filled] * np.log2(shares[filled] / reference[filled])).sum())
