"""Overtraining check: compare the scores of training and test events. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hepfaas.evaluation.metrics import positive_total
from hepfaas.evaluation.tally import Tally

TERMS = 100


def kolmogorov_smirnov(one: Tally, other: Tally) -> dict[str, float] | None:
    """Return the largest distance of two distributions and the probability of a larger one by chance, of two histograms
    with equal bins, (bins,). None if one has no positive sum.

    The probability is Kolmogorov's limit for many events, with the effective numbers of events (Σw)² / Σw². It is a
    little too high for binned values, and only a guide with negative weights.
    """
    totals = positive_total(one), positive_total(other)
    if totals[0] is None or totals[1] is None:
        return None
    shares = np.cumsum(one.yields) / totals[0] - np.cumsum(other.yields) / totals[1]
    distance = float(np.abs(shares).max())
    first, second = (
        total**2 / float(tally.variances.sum()) for total, tally in zip(totals, (one, other), strict=True) if total
    )
    return {"distance": distance, "probability": survival(distance * math.sqrt(first * second / (first + second)))}


def survival(value: float) -> float:
    """Return the probability that Kolmogorov's statistic exceeds a value, 2 Σ (-1)^(k-1) exp(-2 k² value²)
    (Kolmogorov, Giorn. Ist. Ital. Attuari 4 (1933) 83)."""
    if value < 0.2:
        return 1.0  # to 1e-12; the series converges slowly
    terms = [math.exp(-2 * k * k * value * value) for k in range(1, TERMS)]
    return min(1.0, max(0.0, 2 * (sum(terms[::2]) - sum(terms[1::2]))))


def overtraining(training: Tally, test: Tally) -> list[list[dict[str, Any] | None]]:
    """Return the comparison of training and test scores for each curve and true class; of histograms (curves, classes,
    bins)."""
    n_curves, n_classes, _ = training.events.shape
    return [
        [kolmogorov_smirnov(training[curve, number], test[curve, number]) for number in range(n_classes)]
        for curve in range(n_curves)
    ]
