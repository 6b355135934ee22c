"""Quality of predicted numbers: counts of residuals that add up over parts, and metrics of their sum. Pure.

A residual is the prediction minus the true value. Residuals are binned on the axis sign(r) ln(1 + |r| / unit): 256 bins
for each factor of e far from 0, so that a quantile is known to 0.4 % of itself, or to 0.4 % of the unit near 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.metrics import positive_total
from hepfaas.evaluation.tally import Floats, Tally, tally
from hepfaas.exact import ExactSum

BINS_PER_E = 256
HALF = 40 * BINS_PER_E
"""Bins on each side of 0: up to residuals of 2e17 units."""

CENTRAL = (0.16, 0.5, 0.84)
"""Shares of the residuals below the central 68 %, the median, and its end."""

NEAR = 0.04
"""The density at a quantile is that of the residuals whose share is at most this far from the quantile's."""


@dataclass(frozen=True, kw_only=True)
class ResidualCounts:
    """Residuals of one target.

    unit: width of the bins near 0 is unit / 256, in the target's unit. histogram: (bins,). total, squares: sums of
    weight times residual and times its square. total_true, squares_true: the same of the true value. n_not_finite:
    events whose prediction is NaN or infinite; the other counts exclude them.
    """

    unit: float
    histogram: Tally
    total: ExactSum
    squares: ExactSum
    total_true: ExactSum
    squares_true: ExactSum
    n_not_finite: int

    def __or__(self, other: ResidualCounts) -> ResidualCounts:
        """Return the counts of both sets of events."""
        if self.unit != other.unit:
            raise ValueError(f"residuals in units of {self.unit} and {other.unit} cannot be added")
        return ResidualCounts(
            unit=self.unit,
            histogram=self.histogram | other.histogram,
            total=self.total | other.total,
            squares=self.squares | other.squares,
            total_true=self.total_true | other.total_true,
            squares_true=self.squares_true | other.squares_true,
            n_not_finite=self.n_not_finite + other.n_not_finite,
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        sums = {name: getattr(self, name).to_json() for name in _SUMS}
        return {"unit": self.unit, "histogram": self.histogram.to_json(), **sums, "n_not_finite": self.n_not_finite}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ResidualCounts:
        """Return the counts from the values of `to_json`."""
        return cls(
            unit=values["unit"],
            histogram=Tally.from_json(values["histogram"]),
            **{name: ExactSum.from_json(values[name]) for name in _SUMS},
            n_not_finite=values["n_not_finite"],
        )


_SUMS = ("total", "squares", "total_true", "squares_true")


def residuals_of(
    predicted: Floats,
    true: Floats,
    *,
    unit: float,
    weights: Floats | None = None,
    weight_unit: float = 1.0,
) -> ResidualCounts:
    """Return the counts of events: predictions and true values, (events,) each, in the target's unit.

    unit: of the bins near 0, such as a hundredth of the target's spread. weights, weight_unit: as of `tally`. Raises:
    RequestError as that does.
    """
    finite = np.isfinite(predicted)
    residuals, values = predicted[finite] - true[finite], true[finite]
    used = None if weights is None else weights[finite]
    factors = np.ones(len(values)) if used is None else used
    return ResidualCounts(
        unit=unit,
        histogram=tally(_bins(residuals, unit), (2 * HALF,), used, weight_unit),
        total=ExactSum.of(factors * residuals),
        squares=ExactSum.of(factors * residuals**2),
        total_true=ExactSum.of(factors * values),
        squares_true=ExactSum.of(factors * values**2),
        n_not_finite=int((~finite).sum()),
    )


def regression_of(counts: ResidualCounts) -> dict[str, Any]:
    """Return the metrics as JSON values: events, bias (mean residual), rmse (root of the mean squared residual),
    median, resolution (half of the width of the central 68 % of the residuals), and r2 (share of the variance of the
    true values that is explained); bias, rmse and resolution with standard errors, that of the resolution for many
    events.

    All are None if the sum of weights is not positive; with negative weights rmse is None if the mean square is
    negative, and the resolution is that of the first crossings of its shares.
    """
    names = ("bias", "bias_uncertainty", "rmse", "rmse_uncertainty", "median", "resolution", "resolution_uncertainty")
    total = positive_total(counts.histogram)
    result: dict[str, Any] = {"events": int(counts.histogram.events.sum()), **dict.fromkeys((*names, "r2"))}
    if total is None:
        return result
    bias, square = float(counts.total) / total, float(counts.squares) / total
    centres = _centres(counts.unit)
    variances = counts.histogram.variances
    spread = float((variances * (centres - bias) ** 2).sum())
    spread_of_squares = float((variances * (centres**2 - square) ** 2).sum())
    rmse = math.sqrt(square) if square >= 0 else None
    low, middle, high = _quantiles(counts.histogram, centres, total, CENTRAL)
    true_variance = float(counts.squares_true) / total - (float(counts.total_true) / total) ** 2
    return result | {
        "bias": bias,
        "bias_uncertainty": math.sqrt(spread) / total,
        "rmse": rmse,
        "rmse_uncertainty": math.sqrt(spread_of_squares) / (2 * total * rmse) if rmse else rmse,
        "median": middle,
        "resolution": (high - low) / 2,
        "resolution_uncertainty": _error_of_resolution(counts.histogram, centres, total),
        "r2": 1 - square / true_variance if true_variance > 0 else None,
    }


def distribution(counts: ResidualCounts, edges: Floats) -> Floats:
    """Return the yields of the residuals in wider bins: edges (bins + 1,), in the target's unit."""
    return _in_bins(counts, edges, counts.histogram.yields)


def distribution_variances(counts: ResidualCounts, edges: Floats) -> Floats:
    """Return the variances of `distribution`."""
    return _in_bins(counts, edges, counts.histogram.variances)


def _in_bins(counts: ResidualCounts, edges: Floats, values: Floats) -> Floats:
    sums: Floats = np.histogram(_centres(counts.unit), edges, weights=values)[0].astype(np.float64)
    return sums


@dataclass(frozen=True)
class Profile:
    """Residuals in bins of a branch: edges (bins + 1,), events (bins,), and sums of weights, of weight times residual
    and of weight times squared residual for each bin."""

    edges: tuple[float, ...]
    events: tuple[int, ...]
    weights: tuple[ExactSum, ...]
    totals: tuple[ExactSum, ...]
    squares: tuple[ExactSum, ...]

    def __or__(self, other: Profile) -> Profile:
        """Return the profile of both sets of events."""
        if self.edges != other.edges:
            raise ValueError("profiles with different edges cannot be added")
        return Profile(
            self.edges,
            tuple(one + two for one, two in zip(self.events, other.events, strict=True)),
            tuple(map(or_, self.weights, other.weights)),
            tuple(map(or_, self.totals, other.totals)),
            tuple(map(or_, self.squares, other.squares)),
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return for each bin its edges, events, bias and spread (standard deviation of the residuals); None where the
        sum of weights is not positive."""
        rows = []
        for number, events in enumerate(self.events):
            total = float(self.weights[number])
            bias = float(self.totals[number]) / total if total > 0 else None
            variance = float(self.squares[number]) / total - bias**2 if bias is not None else None
            rows.append(
                {
                    "low": self.edges[number],
                    "high": self.edges[number + 1],
                    "events": events,
                    "bias": bias,
                    "spread": None if variance is None or variance < 0 else math.sqrt(variance),
                }
            )
        return rows


def profile_of(
    predicted: Floats, true: Floats, branch: Floats, edges: Floats, weights: Floats | None = None
) -> Profile:
    """Return the residuals against a branch, (events,) each; events outside of the edges (bins + 1,) or without a
    finite prediction are left out."""
    place = np.searchsorted(edges, branch, side="right") - 1
    place = np.where(branch == edges[-1], len(edges) - 2, place)
    inside = np.isfinite(predicted) & (place >= 0) & (place < len(edges) - 1) & np.isfinite(branch)
    place, residuals = place[inside], (predicted - true)[inside]
    used = np.ones(len(place)) if weights is None else weights[inside]
    chosen = [place == number for number in range(len(edges) - 1)]

    def sums(values: Floats) -> tuple[ExactSum, ...]:
        return tuple(ExactSum.of(values[mine]) for mine in chosen)

    return Profile(
        tuple(edges.tolist()),
        tuple(int(mine.sum()) for mine in chosen),
        sums(used),
        sums(used * residuals),
        sums(used * residuals**2),
    )


def _bins(residuals: Floats, unit: float) -> NDArray[np.int64]:
    place = np.sign(residuals) * np.log1p(np.abs(residuals) / unit) * BINS_PER_E
    bins: NDArray[np.int64] = np.clip(np.floor(place) + HALF, 0, 2 * HALF - 1).astype(np.int64)
    return bins


def _centres(unit: float) -> Floats:
    """Return the residual at the centre of each bin, (bins,)."""
    place = (np.arange(2 * HALF) - HALF + 0.5) / BINS_PER_E
    centres: Floats = np.sign(place) * np.expm1(np.abs(place)) * unit
    return centres


def _quantiles(histogram: Tally, centres: Floats, total: float, shares: Sequence[float]) -> list[float]:
    below = np.cumsum(histogram.yields) / total
    return [float(centres[int(np.argmax(below >= share))]) for share in shares]


def _error_of_resolution(histogram: Tally, centres: Floats, total: float) -> float:
    """Return the standard error of half the difference of both outer quantiles, from their asymptotic covariance
    min(p, q) (1 - max(p, q)) / (n f(p) f(q)) with the density f (Kendall and Stuart, The Advanced Theory of Statistics,
    volume 1, section 10.11)."""
    low, _, high = CENTRAL
    ends = _quantiles(histogram, centres, total, [low - NEAR, low + NEAR, high - NEAR, high + NEAR])
    at_low, at_high = ((ends[number + 1] - ends[number]) / (2 * NEAR) for number in (0, 2))  # 1 / density
    own, both = low * (1 - low), low * (1 - high)
    variance = own * at_low**2 + own * at_high**2 - 2 * both * at_low * at_high
    n_effective = total**2 / float(histogram.variances.sum())
    return math.sqrt(max(0.0, variance) / n_effective) / 2
