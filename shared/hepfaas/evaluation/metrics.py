"""Quality of the scores of held-back events: counts that add up over parts, and metrics of their sum. Pure.

Scores are binned on the logit axis, ln(p / (1 - p)), where a network's output is spread evenly: 4,096 bins from -20 to
20. All sums are of integers, so that they do not depend on the order of the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.runs.splits import HELD_BACK, Split

BINS = 4_096
EDGE = 20.0
LOSS_UNIT = 2.0**-32
"""Losses are added as whole multiples of this."""

LOSS_LIMIT = 1e6
"""Largest loss of one event. Only logits reach it: the loss of a probability is at most 20 (EDGE)."""

ROUNDING = 1e-5
"""How far float32 rounding may take a probability below 0 or above 1."""

CURVE_POINTS = 200
EFFICIENCIES = (0.3, 0.5, 0.7, 0.9)
"""Signal efficiencies at which the background rejection is reported."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ScoreCounts:
    """Counts of the scores of held-back events, for each split.

    histograms: (splits, curves, classes, bins); a binary network has one curve, the score of class 1, others have one
    for each class. confusion: (splits, true class, predicted class). losses: log-loss in units of 2**-32.
    n_not_finite: events with a NaN or infinite score. n_not_probable: events with a score outside [0, 1] that must be
    a probability. The other counts exclude both.
    """

    histograms: Counts
    confusion: Counts
    losses: tuple[int, ...]
    n_not_finite: int
    n_not_probable: int

    def __or__(self, other: ScoreCounts) -> ScoreCounts:
        """Return the counts of both sets of events."""
        return ScoreCounts(
            histograms=self.histograms + other.histograms,
            confusion=self.confusion + other.confusion,
            losses=tuple(one + two for one, two in zip(self.losses, other.losses, strict=True)),
            n_not_finite=self.n_not_finite + other.n_not_finite,
            n_not_probable=self.n_not_probable + other.n_not_probable,
        )

    def check(self) -> None:
        """Raise RequestError if a score was not finite or not a probability."""
        if self.n_not_finite:
            raise RequestError(f"the model's score of {self.n_not_finite} held-back events is NaN or infinite")
        if self.n_not_probable:
            raise RequestError(
                f"the model's score of {self.n_not_probable} held-back events is below 0 or above 1, so it is not a "
                "probability: end the network in a sigmoid or softmax, or compile it with a loss that has "
                "from_logits=True"
            )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of the histograms only the filled bins, each by its distance from the one before."""
        flat = self.histograms.reshape(-1)
        filled = np.flatnonzero(flat)
        return {
            "shape": list(self.histograms.shape),
            "gaps": np.diff(filled, prepend=0).tolist(),
            "counts": flat[filled].tolist(),
            "confusion": self.confusion.tolist(),
            "losses": list(self.losses),
            "n_not_finite": self.n_not_finite,
            "n_not_probable": self.n_not_probable,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ScoreCounts:
        """Return the counts from the values of `to_json`."""
        flat = np.zeros(int(np.prod(values["shape"])), dtype=np.int64)
        flat[np.cumsum(values["gaps"], dtype=np.int64)] = values["counts"]
        return cls(
            histograms=flat.reshape(values["shape"]),
            confusion=np.array(values["confusion"], dtype=np.int64),
            losses=tuple(values["losses"]),
            n_not_finite=values["n_not_finite"],
            n_not_probable=values["n_not_probable"],
        )


def counts_of(
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    splits: NDArray[np.int64],
    n_classes: int,
    *,
    logits: bool,
    threshold: float = 0.5,
) -> ScoreCounts:
    """Return the counts of events: scores (events, outputs), labels (events,), splits (events,), numbers of `Split`.

    logits: whether the scores precede the sigmoid (one output) or softmax. threshold: probability above which a binary
    network predicts class 1; others predict the class with the highest score.
    """
    finite = np.isfinite(scores).all(axis=1)
    probable = finite if logits else finite & (np.abs(scores - 0.5) <= 0.5 + ROUNDING).all(axis=1)
    kept, labels, places = scores[probable].astype(np.float64), labels[probable], splits[probable] - HELD_BACK[0]
    probabilities = _probabilities(kept, logits)
    position = np.log(probabilities) - np.log1p(-probabilities)
    bins = np.clip((position + EDGE) * (BINS / (2 * EDGE)), 0, BINS - 1).astype(np.int64)
    curves = bins[:, 1:] if n_classes == 2 else bins
    histograms = np.zeros((len(HELD_BACK), curves.shape[1], n_classes, BINS), dtype=np.int64)
    for curve in range(curves.shape[1]):
        np.add.at(histograms[:, curve], (places, labels, curves[:, curve]), 1)
    is_binary = n_classes == 2
    predicted = (probabilities[:, 1] > threshold).astype(np.int64) if is_binary else probabilities.argmax(axis=1)
    confusion = np.zeros((len(HELD_BACK), n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (places, labels, predicted), 1)
    loss = np.rint(_losses(kept, probabilities, labels, logits) / LOSS_UNIT).astype(np.int64)
    losses = tuple(sum(loss[places == place].tolist()) for place in range(len(HELD_BACK)))
    return ScoreCounts(
        histograms=histograms,
        confusion=confusion,
        losses=losses,
        n_not_finite=int((~finite).sum()),
        n_not_probable=int((finite & ~probable).sum()),
    )


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How well a score separates one class, the signal, from the others, the background.

    auc: probability that a signal event scores higher than a background event. uncertainty: its standard error
    (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837, on binned scores, ties counted half). signal,
    background: efficiencies above falling thresholds, each from 0 to 1. rejection: 1 / background efficiency at a
    signal efficiency of 0.3, 0.5, 0.7, 0.9; None if no background is left. threshold: probability that maximises the
    geometric mean of signal efficiency and background rejection. All None or empty without signal or background.
    """

    auc: float | None
    uncertainty: float | None
    signal: tuple[float, ...]
    background: tuple[float, ...]
    rejection: Mapping[str, float | None]
    threshold: float | None


def curve_of(signal: Counts, background: Counts) -> Curve:
    """Return the curve of two histograms of scores, (bins,)."""
    n_signal, n_background = int(signal.sum()), int(background.sum())
    if not n_signal or not n_background:
        return Curve(auc=None, uncertainty=None, signal=(), background=(), rejection={}, threshold=None)
    below = (np.cumsum(background) - background / 2) / n_background  # share of background below this bin
    above = 1 - (np.cumsum(signal) - signal / 2) / n_signal  # share of signal above this bin
    auc = float((signal * below).sum() / n_signal)
    variance = _variance(below, signal, auc) / n_signal + _variance(above, background, auc) / n_background
    kept_signal = np.concatenate([[0.0], np.cumsum(signal[::-1]) / n_signal])
    kept_background = np.concatenate([[0.0], np.cumsum(background[::-1]) / n_background])
    best = int(np.argmax(kept_signal * (1 - kept_background)))
    points = _thinned(kept_signal, kept_background)
    return Curve(
        auc=auc,
        uncertainty=float(np.sqrt(variance)),
        signal=tuple(kept_signal[points].tolist()),
        background=tuple(kept_background[points].tolist()),
        rejection={str(at): _rejection(kept_signal, kept_background, at) for at in EFFICIENCIES},
        threshold=float(1 / (1 + np.exp(-(EDGE - best * 2 * EDGE / BINS)))),
    )


def quality(counts: ScoreCounts, split: Split) -> dict[str, Any]:
    """Return the metrics of one split as JSON values: events, loss (log-loss), accuracy, confusion, auc with its
    uncertainty, and a curve for each output.

    For several classes auc is the mean over each class against the rest, and its uncertainty the mean of theirs. This
    is an upper bound, because the curves share events and histograms do not show their correlation.
    """
    place = HELD_BACK.index(split)
    confusion = counts.confusion[place]
    events = int(confusion.sum())
    curves = _curves(counts.histograms[place])
    known = [(curve.auc, curve.uncertainty) for curve in curves if curve.auc is not None]
    auc, uncertainty = np.array(known, dtype=float).mean(axis=0).tolist() if known else (None, None)
    return {
        "events": events,
        "loss": counts.losses[place] * LOSS_UNIT / events if events else None,
        "accuracy": float(np.trace(confusion) / events) if events else None,
        "auc": auc,
        "auc_uncertainty": uncertainty,
        "confusion": confusion.tolist(),
        "curves": [vars(curve) for curve in curves],
    }


def distribution(histogram: Counts, bins: int) -> Counts:
    """Return a histogram of scores from 0 to 1 in `bins` equal bins, (bins,), from one on the logit axis, (4096,)."""
    centres = (np.arange(BINS) + 0.5) * (2 * EDGE / BINS) - EDGE
    indices = np.minimum((bins / (1 + np.exp(-centres))).astype(np.int64), bins - 1)
    return np.bincount(indices, weights=histogram, minlength=bins).astype(np.int64)


def _curves(histograms: Counts) -> list[Curve]:
    """Return the curves of one split; histograms: (curves, classes, bins)."""
    if len(histograms) == 1:
        return [curve_of(histograms[0, 1], histograms[0, 0])]
    return [curve_of(by_class[k], by_class.sum(axis=0) - by_class[k]) for k, by_class in enumerate(histograms)]


def _probabilities(scores: NDArray[np.float64], logits: bool) -> NDArray[np.float64]:
    """Return the probability of each class, (events, classes), within the range of the logit axis."""
    if scores.shape[1] == 1:
        one = 1 / (1 + np.exp(-np.clip(scores, -EDGE, EDGE))) if logits else scores
        scores = np.concatenate([1 - one, one], axis=1)
    elif logits:
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
    least = 1 / (1 + np.exp(EDGE))
    return np.clip(scores, least, 1 - least)


def _losses(
    scores: NDArray[np.float64], probabilities: NDArray[np.float64], labels: NDArray[np.int64], logits: bool
) -> NDArray[np.float64]:
    """Return the log-loss of each event, (events,). That of logits is computed without probabilities, whose loss is at
    most 20."""
    rows = np.arange(len(labels))
    if not logits:
        return -np.log(probabilities[rows, labels])
    levels = np.concatenate([np.zeros_like(scores), scores], axis=1) if scores.shape[1] == 1 else scores
    levels = levels - levels.max(axis=1, keepdims=True)
    losses: NDArray[np.float64] = np.log(np.exp(levels).sum(axis=1)) - levels[rows, labels]
    return np.minimum(losses, LOSS_LIMIT)


def _variance(values: NDArray[np.float64], counts: Counts, mean: float) -> float:
    total = int(counts.sum())
    return float((counts * (values - mean) ** 2).sum() / (total - 1)) if total > 1 else 0.0


def _thinned(signal: NDArray[np.float64], background: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return indices of at most 200 points spaced evenly along the curve, including its ends."""
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(signal), np.diff(background)))])
    spaced = np.linspace(0, lengths[-1], CURVE_POINTS)
    return np.unique(np.concatenate([[0], np.searchsorted(lengths, spaced[1:-1]), [len(lengths) - 1]]))


def _rejection(signal: NDArray[np.float64], background: NDArray[np.float64], at: float) -> float | None:
    left = background[int(np.searchsorted(signal, at))]
    return float(1 / left) if left else None
