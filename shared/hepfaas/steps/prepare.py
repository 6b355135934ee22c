"""prepare: one entry range of a file -> the matrix of its events, with training, validation and test rows apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.errors import RequestError
from hepfaas.exact import ExactSum
from hepfaas.features.jagged import flat_values
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import FeatureSpec
from hepfaas.features.targets import standardised
from hepfaas.platform.storage import Store
from hepfaas.runs.folds import Folds
from hepfaas.runs.splits import SplitRule
from hepfaas.runs.steps import Prepare
from hepfaas.runs.targets import targets_in
from hepfaas.runs.weighting import Weighting
from hepfaas.steps.events import Events, events_of
from hepfaas.steps.objects import result_of
from hepfaas.training.prepared import (
    IDENTIFIER,
    LABEL,
    SPECTATOR,
    TARGET,
    TRAINING_WEIGHT,
    WEIGHT,
    PreparedRows,
    part_of,
)
from hepfaas.training.split import groups_of, split_of
from hepfaas.training.weights import Factors, training_weights


def perform(step: Prepare, store: Store, reading: Reading = PLAIN) -> None:
    """Raises: RequestError if the file has changed since the run opened it; UnavailableError; MissingError."""
    spec = FeatureSpec.from_json(json.loads(store.get(step.spec)))
    inputs = dict.fromkeys([*spec.input_names, *spec.identifiers, *step.inputs])
    read = events_of(step, list(inputs), spec.preprocessing, store, reading)
    arrays = read.of_selected(spec.names)
    entries = read.entries[read.selected]
    columns = {f"{IDENTIFIER}{name}": flat_values(read.as_read[name], name)[read.selected] for name in spec.identifiers}
    columns |= {f"{SPECTATOR}{name}": read.numbers(name)[read.selected] for name in step.spectators}
    columns |= {
        f"{TARGET}{number}": standardised(read.target(target.name), target)
        for number, target in enumerate(targets_in(step.targets))
    }
    flow: tuple[tuple[Any, Any], ...] = ()
    if step.weigh:
        weighting, factors = Weighting.from_text(step.weighting), Factors.from_json(result_of(step.weigh, store))
        weights = read.weights(weighting) * factors.scales.get(step.file, 1.0)
        columns |= _weighted(step, read, weights=weights[read.selected], weighting=weighting, factors=factors)
        flow = _flow(read, weights)

    def events(rows: slice) -> PreparedRows:
        branches = {name: branch[rows] for name, branch in arrays.items()}
        return PreparedRows(
            matrix(branches, spec), entries[rows], {name: values[rows] for name, values in columns.items()}
        )

    part = part_of(
        file=step.file,
        entries=step.entries,
        label=step.label,
        selected=entries,
        split=_split(step, read, entries),
        n_groups=folds.n_groups if (folds := Folds.from_text(step.folds)) else 0,
        events=events,
        rejected=read.rejected,
        flow=flow,
    )
    store.create(step.key, memoryview(part))


def _split(step: Prepare, read: Events, entries: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the split of each selected event; its group, if the run has folds."""
    rule, folds = SplitRule.from_text(step.split), Folds.from_text(step.folds)
    if folds:
        values = read.numbers(folds.by)[read.selected] if folds.by else None
        return groups_of(step.file, entries, step.split_seed, folds, rule, values)
    is_training = read.condition(rule.training)[read.selected] if rule.training else None
    return split_of(step.file, entries, step.split_seed, rule, is_training)


def _weighted(
    step: Prepare, read: Events, *, weights: NDArray[np.float64], weighting: Weighting, factors: Factors
) -> dict[str, NDArray[Any]]:
    """Return the columns of the selected events with their weights and, if each has its own label, their classes."""
    columns: dict[str, NDArray[Any]] = {}
    classes = np.full(len(weights), max(step.label, 0))
    if weighting.label:
        labels, known = read.labels(weighting), np.array(factors.labels)
        classes = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        if (wrong := np.flatnonzero(known[classes] != labels)).size:
            raise RequestError(
                f"the label of an event of {read.place} is {labels[wrong[0]]}, which no event of the training has"
            )
        columns[LABEL] = classes.astype(np.int32)
    bins = read.bins(weighting)
    columns[WEIGHT] = weights
    columns[TRAINING_WEIGHT] = training_weights(weights, classes, bins, factors=factors, negative=weighting.negative)
    return columns


def _flow(read: Events, weights: NDArray[np.float64]) -> tuple[tuple[Any, Any], ...]:
    """Return the exact sums of weights and squared weights of the events that each cut rejects, and of the selected."""
    flow = np.zeros(len(weights), dtype=np.uint8) if read.flow is None else read.flow
    parts = [weights[flow == number] for number in range(read.n_cuts + 1)]
    return tuple((ExactSum.of(part).to_json(), ExactSum.of_squares(part).to_json()) for part in parts)
