"""Predictions of a regression against the true values and against branches. Pure; from a sample of events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hepfaas.evaluation.predictions import BINS_PER_DEVIATION
from hepfaas.evaluation.regression import regression_of, residuals_of
from hepfaas.evaluation.tally import LARGEST_WEIGHT, Floats
from hepfaas.runs.targets import Target

MOST_BINS, EVENTS_PER_BIN = 20, 50
"""A profile has 20 bins, or fewer so that each has about 50 events."""

MOST_BRANCHES, MOST_PROFILES = 20, 100
"""Branches of one target, and profiles of all targets, that of each target against itself aside."""

BINS_2D = 50
TAIL = 0.005
"""Share of the values at each end that lies outside of the bins."""


def profiles(
    predicted: Floats, true: Floats, branches: Mapping[str, Floats], weights: Floats, targets: Sequence[Target]
) -> list[dict[str, Any]]:
    """Return for each target, as JSON values, `plane`: yields by true and predicted value; and `branches`: bias and
    resolution in bins of the target itself and of the first 20 branches, fewer of more than 5 targets.

    predicted, true: (events, targets), in the targets' units. branches: (events,) each; NaN where an event has no
    value. weights: (events,).
    """
    n_branches = min(MOST_BRANCHES, MOST_PROFILES // len(targets))
    chosen = dict(list(branches.items())[:n_branches])
    found = []
    for number, target in enumerate(targets):
        mine, truth = predicted[:, number], true[:, number]
        against = {target.name: truth, **{name: values for name, values in chosen.items() if name != target.name}}
        rows = [(name, profile(mine, truth, values, weights, target)) for name, values in against.items()]
        found.append(
            {
                "name": target.name,
                "plane": _plane(mine, truth, weights),
                "branches": [{"branch": name, "bins": bins} for name, bins in rows if bins],
            }
        )
    return found


def profile(
    predicted: Floats, true: Floats, branch: Floats, weights: Floats, target: Target
) -> list[dict[str, float | None]]:
    """Return the metrics of `regression_of` in bins of a branch with about equal numbers of events; none if the branch
    is constant. Events without a value, and half a percent at each end, are left out. All arrays: (events,)."""
    edges = edges_of(branch)
    places = np.searchsorted(edges, branch, side="right") - 1
    places[branch == edges[-1]] = len(edges) - 2
    unit = weight_unit(weights)
    bins = []
    for place in range(len(edges) - 1):
        mine = places == place
        counts = residuals_of(
            predicted[mine],
            true[mine],
            unit=target.deviation / BINS_PER_DEVIATION,
            weights=weights[mine],
            weight_unit=unit,
        )
        bins.append({"low": float(edges[place]), "high": float(edges[place + 1]), **regression_of(counts)})
    return bins


def edges_of(branch: Floats) -> Floats:
    """Return the edges of at most 20 bins with about equal numbers of the finite values; one edge if they are equal."""
    finite = branch[np.isfinite(branch)]
    if not len(finite):
        return np.zeros(1)
    n_bins = min(MOST_BINS, max(1, len(finite) // EVENTS_PER_BIN))
    edges: Floats = np.unique(np.quantile(finite, np.linspace(TAIL, 1 - TAIL, n_bins + 1), method="nearest"))
    return edges


def weight_unit(weights: Floats) -> float:
    """Return the power of two of which `tally` adds whole multiples."""
    largest = float(np.abs(weights).max(initial=0))
    return 2.0 ** math.ceil(math.log2(largest / LARGEST_WEIGHT)) if largest else 1.0


def _plane(predicted: Floats, true: Floats, weights: Floats) -> dict[str, Any]:
    """Return the edges of both axes and the yields, (true, predicted)."""
    low, high = np.quantile(true, [TAIL, 1 - TAIL], method="nearest").tolist()
    edges = np.linspace(low, high, BINS_2D + 1) if low < high else np.array([low - 0.5, low + 0.5])
    yields, _, _ = np.histogram2d(true, predicted, bins=(edges, edges), weights=weights)
    return {"edges": edges.tolist(), "yields": yields.tolist()}
