"""Everything that a score step counts of one prepared part in a regression, and the metrics of the sum. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.evaluation.regression import ResidualCounts, regression_of, residuals_of
from hepfaas.evaluation.tally import Floats
from hepfaas.runs.splits import HELD_BACK, Split
from hepfaas.runs.targets import Target

BINS_PER_DEVIATION = 100
"""The unit of the residuals' bins is the standard deviation of the target over this."""


@dataclass(frozen=True)
class PredictionCounts:
    """Residuals of the held-back events of prepared parts, which add up: for each split, those of each target."""

    splits: tuple[tuple[ResidualCounts, ...], ...]

    def __or__(self, other: PredictionCounts) -> PredictionCounts:
        """Return the counts of both sets of events."""
        pairs = zip(self.splits, other.splits, strict=True)
        return PredictionCounts(tuple(tuple(map(or_, one, two)) for one, two in pairs))

    def of(self, split: Split) -> tuple[ResidualCounts, ...]:
        """Return the counts of each target in a split."""
        return self.splits[HELD_BACK.index(split)]

    def check(self, targets: Sequence[Target]) -> None:
        """Raise RequestError if a prediction was not finite."""
        for number, target in enumerate(targets):
            if n_wrong := sum(split[number].n_not_finite for split in self.splits):
                raise RequestError(
                    f"the model's prediction of '{target.name}' is NaN or infinite for {n_wrong:,} held-back events"
                )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"targets": [[counts.to_json() for counts in split] for split in self.splits]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PredictionCounts:
        """Return the counts from the values of `to_json`."""
        return cls(tuple(tuple(map(ResidualCounts.from_json, split)) for split in values["targets"]))


def prediction_counts(
    predicted: Floats,
    true: Floats,
    splits: NDArray[np.int64],
    targets: Sequence[Target],
    *,
    weights: Floats | None = None,
    unit: float = 1.0,
) -> PredictionCounts:
    """Return the counts of a part: predicted, true (events, targets) in the targets' units, splits, weights (events,).
    unit: of the weights, as of `tally`. Events of other splits than the held-back ones are left out."""

    def of(split: Split, number: int) -> ResidualCounts:
        chosen = splits == split
        return residuals_of(
            predicted[chosen, number],
            true[chosen, number],
            unit=targets[number].deviation / BINS_PER_DEVIATION,
            weights=None if weights is None else weights[chosen],
            weight_unit=unit,
        )

    return PredictionCounts(tuple(tuple(of(split, number) for number in range(len(targets))) for split in HELD_BACK))


def metrics_of(counts: PredictionCounts, targets: Sequence[Target]) -> dict[str, Any]:
    """Return for each held-back split the number of events and the metrics of each target, as JSON values."""
    report = {}
    for split in HELD_BACK:
        found = [regression_of(each) for each in counts.of(split)]
        named = [{"name": target.name, **values} for target, values in zip(targets, found, strict=True)]
        report[split.label] = {"events": found[0]["events"], "targets": named}
    return report
