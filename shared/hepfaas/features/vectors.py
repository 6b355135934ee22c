"""From raw events to the vectors of a model: preprocessing, then the matrix. Pure; serving uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.features.jagged import Values, events_where
from hepfaas.features.matrix import matrix, surplus_events
from hepfaas.features.spec import FeatureSpec


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


def vectors_of(arrays: Mapping[str, Values], spec: FeatureSpec, spectators: Sequence[str] = ()) -> Vectors:
    """Return the vectors of events; arrays: the inputs of the spec and of the spectators, each (events,) or
    (events, var).

    Raises: RequestError if a branch is missing or of the wrong form; what `matrix` raises.
    """
    if not spec.preprocessing and not spectators:
        return Vectors(matrix(arrays, spec), None, int(surplus_events(arrays, spec).sum()))
    from hepfaas.features.extra import one_number  # most models need neither, and answer sooner
    from hepfaas.features.preprocess import preprocessed

    n_events = len(next(iter(arrays.values())))
    result = preprocessed(arrays, spec.preprocessing)
    branches: dict[str, Any] = {name: result.arrays[name] for name in spec.names}
    if result.passed is not None:
        branches = {name: events_where(values, result.passed) for name, values in branches.items()}
    return Vectors(
        matrix(branches, spec),
        result.passed,
        int(surplus_events(branches, spec).sum()),
        {name: one_number(result.arrays, name, n_events) for name in spectators},
    )
