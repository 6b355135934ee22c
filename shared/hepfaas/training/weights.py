"""Weights of events: sums over all events of a run, and the factors that follow from them. Pure.

The weight of an event is physical: luminosity × cross section × weight / sum of weights. Metrics use it as it is. The
training weight is made from it: negative weights are treated as the recipe says, classes are balanced if the recipe
says so, and the mean over all selected events is 1, so that the loss and the learning rate keep their usual sizes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.exact import ExactSum
from hepfaas.runs.weighting import Balance, NegativeWeights

MOST_CLASSES = 1_000
"""Most different values of a label expression."""

MOST_CELLS, MOST_SUMS = 10_000, 500_000
"""Sums of weights by class and bin of the balance: of one file, and of all files of a run."""

LEAST = 1e-100
"""Smallest normalisation, and smallest of the largest weights of a run."""

UNIT_BITS = 36
"""The largest weight is at most 2**36 units: score counts are sums of whole units (metrics.py)."""


@dataclass(frozen=True)
class BinSum:
    """The selected events of one class in one bin of the balance: their number and the sum of their weights, after
    negative weights were treated as the recipe says."""

    events: int = 0
    weight: ExactSum = ExactSum()  # noqa: RUF009  # immutable

    def __or__(self, other: BinSum) -> BinSum:
        return BinSum(self.events + other.events, self.weight | other.weight)


@dataclass(frozen=True)
class FileWeights:
    """Weights of the events of one file, before any normalisation.

    total: sum over all events, before any cut. largest: absolute weight of a selected event. n_negative: selected
    events with a negative weight. classes: by label, the sums in each bin of the balance.
    """

    total: ExactSum
    largest: float
    n_negative: int
    classes: Mapping[int, tuple[BinSum, ...]]

    def __or__(self, other: FileWeights) -> FileWeights:
        """Return the weights of both sets of events."""
        classes = dict(self.classes)
        for label, bins in other.classes.items():
            classes[label] = tuple(map(or_, classes[label], bins)) if label in classes else bins
        _check_classes(classes, max(map(len, classes.values()), default=0))
        return FileWeights(
            self.total | other.total,
            max(self.largest, other.largest),
            self.n_negative + other.n_negative,
            classes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "total": self.total.to_json(),
            "largest": self.largest,
            "n_negative": self.n_negative,
            "classes": {
                str(label): [[one.events, one.weight.to_json()] for one in bins]
                for label, bins in sorted(self.classes.items())
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FileWeights:
        """Return the weights from the values of `to_json`."""
        return cls(
            ExactSum.from_json(values["total"]),
            values["largest"],
            values["n_negative"],
            {
                int(label): tuple(BinSum(events, ExactSum.from_json(weight)) for events, weight in bins)
                for label, bins in values["classes"].items()
            },
        )


@dataclass(frozen=True)
class WeightSurvey:
    """Weights of the events of each file, by its identity."""

    files: Mapping[str, FileWeights] = field(default_factory=dict)

    def __or__(self, other: WeightSurvey) -> WeightSurvey:
        """Return the survey of both sets of events."""
        files = dict(self.files)
        for identity, weights in other.files.items():
            files[identity] = files[identity] | weights if identity in files else weights
        if (sums := sum(len(bins) for one in files.values() for bins in one.classes.values())) > MOST_SUMS:
            raise RequestError(
                f"the weights have {sums:,} sums, one for each file, class and bin of the balance; at most "
                f"{MOST_SUMS:,}: use fewer bins, or fewer and larger files"
            )
        return WeightSurvey(files)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {identity: weights.to_json() for identity, weights in self.files.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WeightSurvey:
        """Return the survey from the values of `to_json`."""
        return cls({identity: FileWeights.from_json(weights) for identity, weights in values.items()})


def weights_of(
    weights: NDArray[np.float64],
    *,
    selected: NDArray[np.bool_],
    labels: NDArray[np.int64],
    bins: NDArray[np.int64],
    n_bins: int,
    negative: NegativeWeights,
) -> FileWeights:
    """Return the weights of events: weights, selected (events,); labels, bins of the balance (selected events,).

    Raises: RequestError if there are negative weights and the recipe refuses them.
    """
    kept = weights[selected]
    n_negative = int((kept < 0).sum())
    if n_negative and negative == "error":
        raise RequestError(
            f"{n_negative} of {len(kept)} events have a negative weight; 'negative_weights' in params.json may be "
            "'keep', 'abs' or 'drop'"
        )
    treated = treated_weights(kept, negative)
    used = np.ones(len(kept), dtype=bool) if negative != "drop" else kept >= 0
    known, numbers = np.unique(labels, return_inverse=True)
    _check_classes(known.tolist(), n_bins)
    sums = [[BinSum()] * n_bins for _ in known]
    cells = numbers * n_bins + bins
    order = np.argsort(cells, kind="stable")
    for events in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1) if len(order) else ():
        row, column = divmod(int(cells[events[0]]), n_bins)
        sums[row][column] = BinSum(int(used[events].sum()), ExactSum.of(treated[events]))
    classes = dict(zip(known.tolist(), map(tuple, sums), strict=True))
    return FileWeights(ExactSum.of(weights), float(np.abs(kept).max(initial=0.0)), n_negative, classes)


def treated_weights(weights: NDArray[np.float64], negative: NegativeWeights) -> NDArray[np.float64]:
    """Return weights for training, (events,), with negative ones kept, made positive, or 0."""
    if negative == "abs":
        return np.abs(weights)
    return np.maximum(weights, 0.0) if negative == "drop" else weights


def bins_of(values: NDArray[np.float64], balance: Balance | None) -> NDArray[np.int64]:
    """Return the bin of the balance of each value, (events,); NaN falls into the last one."""
    if balance is None or not balance.edges:
        return np.zeros(len(values), dtype=np.int64)
    return np.clip(np.searchsorted(balance.edges, values, side="right") - 1, 0, balance.n_bins - 1)


@dataclass(frozen=True)
class Factors:
    """Factors that make the weights of events.

    scales: by a file's identity, luminosity × cross section / sum of weights. unit: power of two of which score counts
    add whole multiples. labels: of the classes, sorted, if each event has its own. training: by class and bin of the
    balance, the factor from the physical to the training weight.
    """

    scales: Mapping[str, float]
    unit: float
    labels: tuple[int, ...]
    training: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "labels": list(self.labels), "training": [list(bins) for bins in self.training]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Factors:
        """Return the factors from the values of `to_json`; a result may have more values."""
        return cls(values["scales"], values["unit"], tuple(values["labels"]), tuple(map(tuple, values["training"])))


def factors_of(
    survey: WeightSurvey,
    files: Sequence[tuple[str, int, str]],
    samples: Sequence[tuple[str, float | None, tuple[str, ...]]],
    balance: Balance | None,
) -> Factors:
    """Return the factors of a run; files, samples: as in the step `Weigh`.

    Raises: RequestError if a class has no event, or a sum of weights is not positive.
    """
    scales = _scales(survey, files, samples)
    labels = _labels(survey) if any(number < 0 for _, number, _ in files) else ()
    numbers = {label: place for place, label in enumerate(labels)}
    n_classes = len(labels) or 1 + max(number for _, number, _ in files)
    n_bins = balance.n_bins if balance else 1
    events = np.zeros((n_classes, n_bins))
    terms: list[list[list[float]]] = [[[] for _ in range(n_bins)] for _ in range(n_classes)]
    for identity, number, _ in files:
        for label, bins in survey.files[identity].classes.items() if identity in survey.files else ():
            row = numbers[label] if number < 0 else number
            for column, one in enumerate(bins):
                events[row, column] += one.events
                terms[row][column].append(scales[identity] * float(one.weight))
    sums = np.array([[math.fsum(parts) for parts in row] for row in terms])
    return Factors(scales, _unit(survey, scales), labels, _training(events, sums, labels, balance))


def training_weights(
    weights: NDArray[np.float64],
    classes: NDArray[np.int64],
    bins: NDArray[np.int64],
    *,
    factors: Factors,
    negative: NegativeWeights,
) -> NDArray[np.float32]:
    """Return the training weight of each event, (events,), from its physical weight, class and bin of the balance."""
    table: NDArray[np.float64] = np.array(factors.training)
    factor: NDArray[np.float64] = table[classes, bins]
    return (treated_weights(weights, negative) * factor).astype(np.float32)


def _scales(
    survey: WeightSurvey,
    files: Sequence[tuple[str, int, str]],
    samples: Sequence[tuple[str, float | None, tuple[str, ...]]],
) -> dict[str, float]:
    by_name = {name: (factor, sums) for name, factor, sums in samples}
    scales = {}
    for name in {sample for _, _, sample in files}:
        identities = [identity for identity, _, sample in files if sample == name]
        factor, sums = by_name.get(name, (None, ()))
        scale = 1.0
        if factor is not None:
            parts = [_sum_in(text) for text in sums] or [
                survey.files[identity].total for identity in identities if identity in survey.files
            ]
            total = float(reduce(or_, parts, ExactSum()))
            if not math.isfinite(total) or total <= 0:
                raise RequestError(
                    f"sample '{name}': the sum of weights is {total:g}, so its events cannot be normalised to a cross "
                    "section; look at its 'weight' and 'sum_of_weights'"
                )
            scale = factor / total
            if not LEAST < scale < 1 / LEAST:
                raise RequestError(
                    f"sample '{name}': luminosity × cross section / sum of weights is {scale:g}; it has to be between "
                    f"{LEAST:g} and {1 / LEAST:g}"
                )
        scales.update(dict.fromkeys(identities, scale))
    return scales


def _sum_in(text: str) -> ExactSum:
    values = json.loads(text)
    return ExactSum.from_json(values) if isinstance(values, list) else ExactSum.of(np.array([values], dtype=float))


def _labels(survey: WeightSurvey) -> tuple[int, ...]:
    classes = {label for weights in survey.files.values() for label in weights.classes}
    _check_classes(classes)
    return tuple(sorted(classes))


def _check_classes(classes: Collection[int], n_bins: int = 1) -> None:
    if len(classes) * n_bins > MOST_CELLS:
        raise RequestError(
            f"{len(classes):,} classes in {n_bins:,} bins of 'balance' have {len(classes) * n_bins:,} sums of weights; "
            f"at most {MOST_CELLS:,}: use fewer bins"
        )
    if len(classes) > MOST_CLASSES:
        raise RequestError(
            f"the label of events has more than {MOST_CLASSES:,} different values, such as "
            f"{', '.join(map(str, sorted(classes)[:3]))}; a label names a class"
        )


def _unit(survey: WeightSurvey, scales: Mapping[str, float]) -> float:
    largest = max((weights.largest * scales[identity] for identity, weights in survey.files.items()), default=0.0)
    if not largest or not math.isfinite(largest):
        raise RequestError("the weights of all selected events are 0" if not largest else "a weight is too large")
    if not LEAST < largest < 1 / LEAST:  # their squares and units have to be numbers, too
        raise RequestError(
            f"the largest weight of a selected event is {largest:g}; it has to be between {LEAST:g} and {1 / LEAST:g}: "
            "look at 'weight', 'cross_section' and 'sum_of_weights'"
        )
    return 2.0 ** (math.ceil(math.log2(largest)) - UNIT_BITS)


def _training(
    events: NDArray[np.float64], sums: NDArray[np.float64], labels: Sequence[int], balance: Balance | None
) -> tuple[tuple[float, ...], ...]:
    """Return the factors by class and bin; events, sums: (classes, bins)."""
    counted, added = events.sum(axis=1), sums.sum(axis=1)
    for number in np.flatnonzero(counted == 0).tolist() if balance or labels else ():
        raise RequestError(f"class {labels[number] if labels else number} has no selected event, so it has no weight")
    if labels and len(counted) < 2:
        raise RequestError(f"all selected events have label {labels[0]}; a classifier needs events of two labels")
    total = events.sum()
    if balance is None:
        if added.sum() <= 0:
            raise RequestError(_not_positive("all events", float(added.sum())))
        return tuple((float(total / added.sum()),) for _ in counted)
    factors = np.zeros_like(sums)
    for row, column in np.argwhere(events > 0).tolist():
        if sums[row, column] <= 0:
            place = f"class {labels[row] if labels else row}" + (f" in bin {column}" if sums.shape[1] > 1 else "")
            raise RequestError(_not_positive(place, float(sums[row, column])))
        filled = int((events[row] > 0).sum())
        factors[row, column] = total / (len(counted) * filled * sums[row, column])
    return tuple(map(tuple, factors.tolist()))


def _not_positive(place: str, total: float) -> str:
    return (
        f"the weights of {place} add up to {total:g}, so they cannot be used in training; set 'negative_weights' to "
        "'abs' or 'drop', or use wider bins of 'balance'"
    )
