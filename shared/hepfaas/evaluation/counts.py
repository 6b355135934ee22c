"""Counts of the scores of held-back events, which add up over parts. Pure.

Scores are binned on the logit axis, ln(p / (1 - p)), where a network's output is spread evenly: 4,096 bins from -20 to
20. All sums are exact, so that they do not depend on the order of the parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.evaluation.tally import Counts, Floats, Tally, tally
from hepfaas.exact import ExactSum
from hepfaas.runs.splits import HELD_BACK

BINS = 4_096
EDGE = 20.0
LOSS_UNIT = 2.0**-32
"""Losses are added as whole multiples of this."""

LOSS_LIMIT = 1e6
"""Largest loss of one event. Only logits reach it: the loss of a probability is at most 20 (EDGE)."""

ROUNDING = 1e-5
"""Tolerance for float32 rounding of a probability below 0 or above 1."""

LEAST_PROBABILITY = float(1 / (1 + np.exp(EDGE)))


@dataclass(frozen=True, kw_only=True)
class ScoreCounts:
    """Counts of the scores of held-back events, for each split.

    histograms: (splits, curves, classes, bins); a binary network has one curve, the score of class 1, others have one
    for each class. confusion: (splits, true class, predicted class). losses: log-loss in units of 2**-32.
    weighted_losses: log-loss times weight; None without weights. n_not_finite: events with a NaN or infinite
    score. n_not_probable: events with a score outside [0, 1] that must be a probability. The other counts exclude both.
    """

    histograms: Tally
    confusion: Tally
    losses: tuple[int, ...]
    weighted_losses: tuple[ExactSum, ...] | None = None
    n_not_finite: int
    n_not_probable: int

    def __or__(self, other: ScoreCounts) -> ScoreCounts:
        """Return the counts of both sets of events."""
        one, two = self.weighted_losses, other.weighted_losses
        return ScoreCounts(
            histograms=self.histograms | other.histograms,
            confusion=self.confusion | other.confusion,
            losses=tuple(first + second for first, second in zip(self.losses, other.losses, strict=True)),
            weighted_losses=one and two and tuple(map(or_, one, two)),
            n_not_finite=self.n_not_finite + other.n_not_finite,
            n_not_probable=self.n_not_probable + other.n_not_probable,
        )

    def check(self) -> None:
        """Raise RequestError if a score was not finite or not a probability."""
        check_valid(self.n_not_finite, self.n_not_probable)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of the histograms only the filled bins."""
        values = {
            **self.histograms.to_json(),
            "confusion": self.confusion.events.tolist(),
            "losses": list(self.losses),
            "n_not_finite": self.n_not_finite,
            "n_not_probable": self.n_not_probable,
        }
        if self.weighted_losses is not None:
            values["weighted_confusion"] = self.confusion.to_json()
            values["weighted_losses"] = [loss.to_json() for loss in self.weighted_losses]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ScoreCounts:
        """Return the counts from the values of `to_json`."""
        is_weighted = "weighted_losses" in values
        confusion = Tally(np.array(values["confusion"], dtype=np.int64))
        return cls(
            histograms=Tally.from_json(values),
            confusion=Tally.from_json(values["weighted_confusion"]) if is_weighted else confusion,
            losses=tuple(values["losses"]),
            weighted_losses=tuple(map(ExactSum.from_json, values["weighted_losses"])) if is_weighted else None,
            n_not_finite=values["n_not_finite"],
            n_not_probable=values["n_not_probable"],
        )


@dataclass(frozen=True, kw_only=True)
class ScoredEvents:
    """Events whose scores are valid.

    scores: as the network gives them, (events, outputs). probabilities: of each class, (events, classes), within the
    range of the logit axis. labels: (events,). splits: numbers of `Split`, (events,). weights: (events,), None without;
    unit: of these (`tally`).
    """

    scores: Floats
    probabilities: Floats
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    weights: Floats | None
    unit: float

    def __getitem__(self, chosen: NDArray[Any]) -> ScoredEvents:
        return ScoredEvents(
            scores=self.scores[chosen],
            probabilities=self.probabilities[chosen],
            labels=self.labels[chosen],
            splits=self.splits[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            unit=self.unit,
        )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])

    def predicted(self, threshold: float) -> Counts:
        """Return the predicted class, (events,): of two classes 1 above the threshold, else the most probable one."""
        if self.n_classes == 2:
            return (self.probabilities[:, 1] > threshold).astype(np.int64)
        most_probable: Counts = self.probabilities.argmax(axis=1)
        return most_probable

    def tally(self, cells: Counts, shape: Sequence[int]) -> Tally:
        """Return the tally of the events by the index of their cell, (events,)."""
        return tally(cells, shape, self.weights, self.unit)

    def histograms(self, places: NDArray[np.int64], n_places: int) -> Tally:
        """Return histograms of the scores, (places, curves, classes, bins). places: (events,)."""
        position = np.log(self.probabilities) - np.log1p(-self.probabilities)
        bins = np.clip((position + EDGE) * (BINS / (2 * EDGE)), 0, BINS - 1).astype(np.int64)
        curves = bins[:, 1:] if self.n_classes == 2 else bins
        n_curves = curves.shape[1]
        first = (places[:, None] * n_curves + np.arange(n_curves)) * self.n_classes + self.labels[:, None]
        weights = None if self.weights is None else np.repeat(self.weights, n_curves)
        shape = (n_places, n_curves, self.n_classes, BINS)
        return tally((first * BINS + curves).reshape(-1), shape, weights, self.unit)


def check_valid(n_not_finite: int, n_not_probable: int) -> None:
    """Raise RequestError if scores of events are not finite or not probabilities."""
    if n_not_finite:
        raise RequestError(f"the model's score of {n_not_finite} held-back events is NaN or infinite")
    if n_not_probable:
        raise RequestError(
            f"the model's score of {n_not_probable} held-back events is below 0 or above 1, so it is not a "
            "probability: end the network in a sigmoid or softmax, or compile it with a loss that has from_logits=True"
        )


def scored(
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    splits: NDArray[np.int64],
    *,
    logits: bool,
    weights: Floats | None = None,
    unit: float = 1.0,
) -> tuple[ScoredEvents, int, int]:
    """Return the events with valid scores, and how many have scores that are not finite and that are not probabilities.
    Arguments as of `counts_of`."""
    finite = np.logical_and.reduce(np.isfinite(scores), axis=1)
    probable = np.logical_and.reduce(np.abs(scores - 0.5) <= 0.5 + ROUNDING, axis=1)
    valid = finite if logits else finite & probable
    kept = scores[valid].astype(np.float64)
    events = ScoredEvents(
        scores=kept,
        probabilities=_probabilities(kept, logits),
        labels=labels[valid],
        splits=splits[valid],
        weights=None if weights is None else weights[valid],
        unit=unit,
    )
    return events, int((~finite).sum()), int((finite & ~valid).sum())


def counts_of(
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    splits: NDArray[np.int64],
    *,
    logits: bool,
    threshold: float = 0.5,
    weights: Floats | None = None,
    unit: float = 1.0,
) -> ScoreCounts:
    """Return the counts of held-back events: scores (events, outputs), labels (events,), splits (events,), numbers of
    `Split`.

    logits: whether the scores precede the sigmoid (one output) or softmax. threshold: probability above which a binary
    network predicts class 1; others predict the class with the highest score. weights: of the events, (events,). unit:
    of the weights (`tally`). Raises: RequestError if a weight is NaN or exceeds 2**36 units.
    """
    events, n_not_finite, n_not_probable = scored(scores, labels, splits, logits=logits, weights=weights, unit=unit)
    return counts_of_valid(
        events, logits=logits, threshold=threshold, n_not_finite=n_not_finite, n_not_probable=n_not_probable
    )


def counts_of_valid(
    events: ScoredEvents, *, logits: bool, threshold: float, n_not_finite: int, n_not_probable: int
) -> ScoreCounts:
    """Return the counts of held-back events with valid scores and the numbers of the others."""
    n_classes, places = events.n_classes, events.splits - HELD_BACK[0]
    cells = (places * n_classes + events.labels) * n_classes + events.predicted(threshold)
    histograms = events.histograms(places, len(HELD_BACK))
    loss = _losses(events.scores, events.probabilities, events.labels, logits)
    whole = np.rint(loss / LOSS_UNIT).astype(np.int64)
    return ScoreCounts(
        histograms=histograms,
        confusion=events.tally(cells, (len(HELD_BACK), n_classes, n_classes)),
        losses=tuple(sum(whole[places == place].tolist()) for place in range(len(HELD_BACK))),
        weighted_losses=None if events.weights is None else _by_place(loss * events.weights, places),
        n_not_finite=n_not_finite,
        n_not_probable=n_not_probable,
    )


def probabilities_of_bins() -> Floats:
    """Return the probability at the centre of each bin, (bins,)."""
    return _sigmoid((np.arange(BINS) + 0.5) * (2 * EDGE / BINS) - EDGE)


def thresholds_of_bins() -> Floats:
    """Return the probabilities at the edges of the bins, (bins + 1,), in falling order, as thresholds are scanned."""
    return _sigmoid(EDGE - np.arange(BINS + 1) * (2 * EDGE / BINS))


def distribution(histogram: Floats, bins: int) -> Floats:
    """Return a histogram of scores from 0 to 1 in `bins` equal bins, (bins,), from one on the logit axis, (4096,)."""
    indices = np.minimum((bins * probabilities_of_bins()).astype(np.int64), bins - 1)
    return np.bincount(indices, weights=histogram, minlength=bins).astype(np.float64)


def _by_place(values: Floats, places: NDArray[np.int64]) -> tuple[ExactSum, ...]:
    return tuple(ExactSum.of(values[places == place]) for place in range(len(HELD_BACK)))


def _probabilities(scores: NDArray[np.float64], logits: bool) -> NDArray[np.float64]:
    """Return the probability of each class, (events, classes), within the range of the logit axis."""
    if scores.shape[1] == 1:
        one = _sigmoid(np.clip(scores, -EDGE, EDGE)) if logits else scores
        scores = np.concatenate([1 - one, one], axis=1)
    elif logits:
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
    return np.clip(scores, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)


def _sigmoid(logits: NDArray[np.floating[Any]]) -> Floats:
    probabilities: Floats = 1 / (1 + np.exp(-logits))
    return probabilities


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
