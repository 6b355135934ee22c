"""AUC of each pair of classes. Pure."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from hepfaas.evaluation.counts import EDGE, ScoredEvents
from hepfaas.evaluation.metrics import auc_of
from hepfaas.evaluation.tally import Tally

BINS = 512
MOST_CLASSES = 10


def pairs_of(events: ScoredEvents) -> Tally | None:
    """Return histograms of ln(p_b / p_a) for each pair of classes a < b, (pairs, 2, bins): first of the events of a,
    then of those of b. None for two classes, whose only pair is the score, and for more than 10.

    The ratio separates a pair best if the probabilities are right.
    """
    if not 2 < events.n_classes <= MOST_CLASSES:
        return None
    pairs = list(combinations(range(events.n_classes), 2))
    total: Tally | None = None
    for number, (one, other) in enumerate(pairs):
        mine = events[(events.labels == one) | (events.labels == other)]
        ratio = np.log(mine.probabilities[:, other]) - np.log(mine.probabilities[:, one])
        bins = np.clip((ratio + EDGE) * (BINS / (2 * EDGE)), 0, BINS - 1).astype(np.int64)
        counts = mine.tally((2 * number + (mine.labels == other)) * BINS + bins, (len(pairs), 2, BINS))
        total = counts if total is None else total | counts
    return total


def pairwise_auc(pairs: Tally, n_classes: int) -> list[list[float | None]]:
    """Return the AUC of each pair of classes, (classes, classes), equal on both sides of the diagonal, which is None
    (Hand and Till, Machine Learning 45 (2001) 171, with the ratio of both probabilities as the score)."""
    matrix: list[list[float | None]] = [[None] * n_classes for _ in range(n_classes)]
    for number, (one, other) in enumerate(combinations(range(n_classes), 2)):
        matrix[one][other] = matrix[other][one] = auc_of(pairs[number, 1], pairs[number, 0])
    return matrix
