"""Everything that a score step counts of one prepared part. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.counts import ScoreCounts, counts_of_valid, scored
from hepfaas.evaluation.pairwise import pairs_of
from hepfaas.evaluation.tally import Floats, Tally
from hepfaas.runs.splits import Split


@dataclass(frozen=True, kw_only=True)
class PartCounts:
    """Counts of the events of prepared parts, which add up.

    rows: events of each split in the parts, not only those that are scored. scores: of all held-back events. training:
    scores of a sample of the training events, (curves, classes, bins). pairs: of `pairs_of`, of the test events.
    n_folds: networks whose counts these are; each event is counted in one split of each.
    """

    rows: tuple[int, ...]
    scores: ScoreCounts
    training: Tally
    pairs: Tally | None
    n_folds: int = 1

    def __or__(self, other: PartCounts) -> PartCounts:
        """Return the counts of both sets of events."""
        return PartCounts(
            rows=tuple(one + two for one, two in zip(self.rows, other.rows, strict=True)),
            scores=self.scores | other.scores,
            training=self.training | other.training,
            pairs=None if self.pairs is None or other.pairs is None else self.pairs | other.pairs,
        )

    def scale(self, split: Split) -> float:
        """Return all events divided by those of a split: yields of the split times this are those of all events."""
        return sum(self.rows) / self.n_folds / max(1, self.rows[split])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **self.scores.to_json(),
            "rows": list(self.rows),
            "training": self.training.to_json(),
            "pairs": None if self.pairs is None else self.pairs.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PartCounts:
        """Return the counts from the values of `to_json`."""
        return cls(
            rows=tuple(values["rows"]),
            scores=ScoreCounts.from_json(values),
            training=Tally.from_json(values["training"]),
            pairs=None if values["pairs"] is None else Tally.from_json(values["pairs"]),
        )


def part_counts(
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    splits: NDArray[np.int64],
    *,
    rows: tuple[int, ...],
    logits: bool,
    threshold: float = 0.5,
    weights: Floats | None = None,
    unit: float = 1.0,
) -> PartCounts:
    """Return the counts of a part. rows: as of `PartCounts`; the others as of `counts_of`, with training events.

    Only the invalid scores of held-back events are counted. Raises: as `counts_of`.
    """

    def of(chosen: NDArray[np.bool_]) -> Any:
        used = None if weights is None else weights[chosen]
        return scored(scores[chosen], labels[chosen], splits[chosen], logits=logits, weights=used, unit=unit)

    training, _, _ = of(splits == Split.TRAINING)
    held_back, n_not_finite, n_not_probable = of(splits != Split.TRAINING)
    test = held_back[held_back.splits == Split.TEST]
    return PartCounts(
        rows=rows,
        scores=counts_of_valid(
            held_back,
            logits=logits,
            threshold=threshold,
            n_not_finite=n_not_finite,
            n_not_probable=n_not_probable,
        ),
        training=training.histograms(np.zeros_like(training.labels), 1)[0],
        pairs=pairs_of(test),
    )
