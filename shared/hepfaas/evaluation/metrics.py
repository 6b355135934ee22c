"""Metrics of the counts of scores: curves, AUC, loss, accuracy, yields. Pure.

Events with weights count by their weights. A weight may be negative: then efficiencies may fall where the threshold
falls, and may be below 0 or above 1. They are reported as they are. A metric is None if the sum of weights that it
divides by is not positive, or a millionth of its standard error: then it is the rounding error of what cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.counts import LOSS_UNIT, ScoreCounts, thresholds_of_bins
from hepfaas.evaluation.tally import Floats, Tally
from hepfaas.runs.splits import HELD_BACK, Split

CURVE_POINTS = 200
EFFICIENCIES = (0.3, 0.5, 0.7, 0.9)
"""Signal efficiencies at which the background rejection is reported."""

BACKGROUND_EFFICIENCIES = (0.1, 0.01, 0.001)
"""Background efficiencies of the working points."""

ROUNDING = 1e-9

CANCELLED = 1e-6
"""A sum of weights below this share of its standard error counts as zero."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """ROC curve of one class, the signal, against the others, the background.

    auc: probability that a signal event scores higher than a background event, each pair counted by the product of its
    weights. uncertainty: its standard error (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837, on binned
    scores, ties counted half; with weights `_variance`). signal, background: efficiencies above falling thresholds,
    each from 0 to 1. rejection: 1 / background efficiency at a signal efficiency of 0.3, 0.5, 0.7, 0.9; None if no
    background is left. threshold: probability that maximises the geometric mean of signal efficiency and background
    rejection. working_points: of `working_point`, by background efficiency. resolution: background efficiency of one
    effective event, Σw² / (Σw)²; smaller ones are what is left of weights that cancel. All None or empty without signal
    or background.
    """

    auc: float | None
    uncertainty: float | None
    signal: tuple[float, ...]
    background: tuple[float, ...]
    rejection: Mapping[str, float | None]
    threshold: float | None
    working_points: Mapping[str, Mapping[str, float]]
    resolution: float | None


def curve_of(signal: Tally, background: Tally) -> Curve:
    """Return the curve of two histograms of scores, (bins,)."""
    in_signal, in_background = signal.yields, background.yields
    total_signal, total_background = positive_total(signal), positive_total(background)
    if total_signal is None or total_background is None:
        return Curve(
            auc=None,
            uncertainty=None,
            signal=(),
            background=(),
            rejection={},
            threshold=None,
            working_points={},
            resolution=None,
        )
    below = (np.cumsum(in_background) - in_background / 2) / total_background  # share of background below this bin
    above = 1 - (np.cumsum(in_signal) - in_signal / 2) / total_signal  # share of signal above this bin
    auc = float((in_signal * below).sum() / total_signal)
    variance = _variance(below, signal, auc) + _variance(above, background, auc)
    kept_signal, kept_background = above_thresholds(in_signal), above_thresholds(in_background)
    kept_signal, kept_background = kept_signal / total_signal, kept_background / total_background
    best = int(np.argmax(kept_signal * (1 - kept_background)))
    points = thinned(kept_signal, kept_background)
    return Curve(
        auc=auc,
        uncertainty=float(np.sqrt(variance)),
        signal=tuple(kept_signal[points].tolist()),
        background=tuple(kept_background[points].tolist()),
        rejection={str(at): _rejection(kept_signal, kept_background, at) for at in EFFICIENCIES},
        threshold=float(thresholds_of_bins()[best]),
        working_points={str(at): working_point(signal, background, at) for at in BACKGROUND_EFFICIENCIES},
        resolution=float(background.variances.sum() / total_background**2),
    )


def rejections_of(curve: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Return signal efficiencies and background rejections of the values of a curve, from one effective event on."""
    signal, background = np.array(curve["signal"]), np.array(curve["background"])
    known = (background > 0) & (background >= (1 - ROUNDING) * curve["resolution"])
    return signal[known], 1 / background[known]


def auc_of(signal: Tally, background: Tally) -> float | None:
    """Return the AUC of two histograms of scores, (bins,); None without signal or background."""
    total_signal, total_background = positive_total(signal), positive_total(background)
    if total_signal is None or total_background is None:
        return None
    below = np.cumsum(background.yields) - background.yields / 2
    return float((signal.yields * below).sum()) / total_signal / total_background


def working_point(signal: Tally, background: Tally, at: float) -> dict[str, float]:
    """Return the signal efficiency at the lowest threshold above which no threshold keeps a larger share of the
    background than `at`, with its standard error, this threshold, and the background that is left: its efficiency and
    its number of events.

    The error has two terms: that of the signal above a fixed threshold, and half the difference of the signal
    efficiencies at background efficiencies one standard error lower and higher, since the threshold depends on the
    background's events.
    """
    kept_signal, kept_background = _efficiencies(signal), _efficiencies(background)
    place = _last_within(kept_background, at)
    spread = _efficiency_error(background, place)
    low, high = (kept_signal[_last_within(kept_background, at + shift)] for shift in (-spread, spread))
    return {
        "signal": float(kept_signal[place]),
        "uncertainty": float(np.hypot(_efficiency_error(signal, place), (high - low) / 2)),
        "threshold": float(thresholds_of_bins()[place]),
        "background": float(kept_background[place]),
        "background_events": int(above_thresholds(background.events)[place]),
    }


def quality(counts: ScoreCounts, split: Split, scale: float = 1.0) -> dict[str, Any]:
    """Return the metrics of one split as JSON values: events, loss (log-loss), accuracy, confusion, auc with its
    uncertainty, and a curve for each output; with weights also the weighted confusion and the yield of each class.

    scale: number by which yields are multiplied, since a split is a part of all events. For several classes auc is the
    mean over each class against the rest, and its uncertainty the mean of theirs. This is an upper bound, because the
    curves share events and histograms do not show their correlation.
    """
    place = HELD_BACK.index(split)
    confusion = counts.confusion[place]
    curves = curves_of(counts, split)
    known = [(curve.auc, curve.uncertainty) for curve in curves if curve.auc is not None]
    auc, uncertainty = np.array(known, dtype=float).mean(axis=0).tolist() if known else (None, None)
    total = positive_total(confusion)
    weighted = {
        "weighted_confusion": confusion.yields.tolist(),
        "yields": yields_of(confusion, scale),
    }
    return {
        "events": int(confusion.events.sum()),
        "loss": _loss(counts, place) / total if total else None,
        "accuracy": float(np.trace(confusion.yields) / total) if total else None,
        "auc": auc,
        "auc_uncertainty": uncertainty,
        "confusion": confusion.events.tolist(),
        **(weighted if confusion.is_weighted else {}),
        "curves": [vars(curve) for curve in curves],
    }


def curves_of(counts: ScoreCounts, split: Split) -> list[Curve]:
    """Return the curves of one split: one of a binary network, otherwise one for each class."""
    return [curve_of(*pair) for pair in signal_and_background(counts.histograms[HELD_BACK.index(split)])]


def yields_of(confusion: Tally, scale: float = 1.0) -> list[dict[str, float]]:
    """Return the yield of each true class: events, sum of weights and its standard error (both multiplied by `scale`),
    and the effective number of events, (Σw)² / Σw²: as many events without weights have the same relative error."""
    by_class = confusion.apply(lambda values: values.sum(axis=-1))
    return [
        {
            "events": int(events),
            "sum": scale * total,
            "uncertainty": scale * float(np.sqrt(variance)),
            "effective": total**2 / variance if variance else 0.0,
        }
        for events, total, variance in zip(
            by_class.events.tolist(), by_class.yields.tolist(), by_class.variances.tolist(), strict=True
        )
    ]


def positive_total(tally: Tally) -> float | None:
    """Return the sum of all weights; None if it is not positive, within rounding."""
    total = tally.apply(lambda values: values.sum(keepdims=True))
    value, variance = float(total.yields.item()), float(total.variances.item())
    return value if value > CANCELLED * np.sqrt(variance) else None


def above_thresholds(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of a histogram, (bins,), above each threshold of `thresholds_of_bins`, (bins + 1,)."""
    return np.concatenate([np.zeros(1, dtype=values.dtype), np.cumsum(values[::-1])])


def thinned(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Return indices of at most 200 points spaced evenly along a curve, including its ends."""
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    spaced = np.linspace(0, lengths[-1], CURVE_POINTS)
    return np.unique(np.concatenate([[0], np.searchsorted(lengths, spaced[1:-1]), [len(lengths) - 1]]))


def signal_and_background(histograms: Tally) -> list[tuple[Tally, Tally]]:
    """Return the histograms of the class of each curve and of all others, (bins,); of (curves, classes, bins)."""
    n_curves = len(histograms.events)
    if n_curves == 1:
        return [(histograms[0, 1], histograms[0, 0])]
    total = histograms.apply(lambda values: values.sum(axis=1))
    return [(histograms[k, k], total[k] - histograms[k, k]) for k in range(n_curves)]


def _loss(counts: ScoreCounts, place: int) -> float:
    if counts.weighted_losses is None:
        return counts.losses[place] * LOSS_UNIT
    return float(counts.weighted_losses[place])


def _variance(values: Floats, tally: Tally, mean: float) -> float:
    """Return the variance of the weighted mean of `values` of the bins over a tally, (bins,): Σw²(v - mean)² / (Σw)²
    times n / (n - 1). The events and their weights are a random sample, so that a bootstrap over events finds the same.
    Without weights it is the variance of the values divided by n."""
    n_events = int(tally.events.sum())
    if n_events < 2:
        return 0.0
    spread = float((tally.variances * (values - mean) ** 2).sum()) / float(tally.yields.sum()) ** 2
    return spread * n_events / (n_events - 1)


def _rejection(signal: Floats, background: Floats, at: float) -> float | None:
    left = background[int(np.argmax(signal >= at))]  # weights may be negative: not sorted
    return float(1 / left) if left > 0 else None


def _efficiencies(tally: Tally) -> Floats:
    kept = above_thresholds(tally.yields)
    efficiencies: Floats = kept / kept[-1]
    return efficiencies


def _last_within(kept: Floats, at: float) -> int:
    """Return the index of the last threshold before the first one that keeps more than `at`."""
    return max(0, int(np.argmax(np.append(kept, np.inf) > max(at, 0.0))) - 1)


def _efficiency_error(tally: Tally, place: int) -> float:
    """Return the standard error of the efficiency above a threshold: √((1 - ε)² Σw²(above) + ε² Σw²(below)) / Σw. With
    equal weights it is the binomial one, √(ε (1 - ε) / n)."""
    squares, kept = above_thresholds(tally.variances), above_thresholds(tally.yields)
    efficiency = kept[place] / kept[-1]
    variance = (1 - efficiency) ** 2 * squares[place] + efficiency**2 * (squares[-1] - squares[place])
    return float(np.sqrt(variance) / kept[-1])
