"""From raw events to the vectors of a model: preprocessing, then the matrix. Pure; serving uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.features.jagged import Values, events_where, values_and_counts
from hepfaas.features.matrix import matrix, surplus_events
from hepfaas.features.spec import FeatureSpec

if TYPE_CHECKING:
    from hepfaas.expressions.evaluation import Check

BLOCK_VALUES = 20_000
"""Values of the longest branch that are preprocessed at once, unless a single event has more: new branches take memory
for one block only."""

PENDING = 64
"""Most arrays that one expression needs at once, beside those that it reads."""


@dataclass(frozen=True)
class Vectors:
    """The vectors of events.

    features: of the selected events, (selected, features), float32. selected: whether each event passes the model's
    cuts, (events,); None: all do. n_surplus: selected events with surplus values, which are dropped. spectators: of all
    events, (events,) each.
    """

    features: NDArray[np.float32]
    selected: NDArray[np.bool_] | None = None
    n_surplus: int = 0
    spectators: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.features) if self.selected is None else len(self.selected)

    def of_all(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of all events, (events, outputs), from those of the selected ones; NaN for the others."""
        if self.selected is None:
            return scores
        everything = np.full((len(self.selected), scores.shape[1]), np.nan, dtype=np.float32)
        everything[self.selected] = scores
        return everything


def vectors_of(
    arrays: Mapping[str, Values], spec: FeatureSpec, spectators: Sequence[str] = (), check: Check | None = None
) -> Vectors:
    """Return the vectors of events; arrays: the inputs of the spec and of the spectators, each (events,) or
    (events, var). check: as for `preprocessed`.

    Raises: RequestError if a branch is missing or of the wrong form; what `matrix` and `check` raise.
    """
    if not spec.preprocessing and not spectators:
        return Vectors(matrix(arrays, spec), None, int(surplus_events(arrays, spec).sum()))
    parts = [
        _block({name: branch[block] for name, branch in arrays.items()}, spec, spectators, check)
        for block in _blocks(_longest(arrays))
    ]
    if len(parts) == 1:
        return parts[0]
    return Vectors(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.selected for part in parts if part.selected is not None])
        if spec.preprocessing.cuts
        else None,
        sum(part.n_surplus for part in parts),
        {name: np.concatenate([part.spectators[name] for part in parts]) for name in spectators},
    )


def preprocessing_bytes(arrays: Mapping[str, Values], spec: FeatureSpec) -> int:
    """Return the memory that `vectors_of` needs beside the events and their features, at most."""
    if not spec.preprocessing:
        return 0
    values = _longest(arrays)
    n_values = min(int(values.sum()), BLOCK_VALUES + int(values.max(initial=0)))
    return np.dtype(np.float64).itemsize * n_values * (len(spec.preprocessing.new) + len(spec.inputs) + PENDING)


def _longest(arrays: Mapping[str, Values]) -> NDArray[np.int64]:
    """Return the number of values of each event in the branch that has most, at least 1, (events,)."""
    longest = np.ones(len(next(iter(arrays.values()), ())), dtype=np.int64)
    for branch in arrays.values():
        counts = values_and_counts(branch)[1]
        if counts is not None:
            np.maximum(longest, counts, out=longest)
    return longest


def _blocks(longest: NDArray[np.int64]) -> Iterator[slice]:
    """Yield ranges of events with up to `BLOCK_VALUES` values, or with one event."""
    stops = np.cumsum(longest)
    start = 0
    while start < len(stops) or start == 0:
        before = int(stops[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(stops, before + BLOCK_VALUES, side="right")))
        yield slice(start, stop)
        start = stop


def _block(arrays: Mapping[str, Values], spec: FeatureSpec, spectators: Sequence[str], check: Check | None) -> Vectors:
    """Return the vectors of a few events."""
    from hepfaas.features.extra import one_number  # most models need neither, and answer sooner
    from hepfaas.features.preprocess import preprocessed

    n_events = len(next(iter(arrays.values())))
    result = preprocessed(arrays, spec.preprocessing, check)
    branches: dict[str, Any] = {name: result.arrays[name] for name in spec.names}
    if result.passed is not None:
        branches = {name: events_where(values, result.passed) for name, values in branches.items()}
    return Vectors(
        matrix(branches, spec),
        result.passed,
        int(surplus_events(branches, spec).sum()),
        {name: one_number(result.arrays, name, n_events) for name in spectators},
    )
