"""The events of one entry range: read, preprocessed, and with the weight and the label of each. Survey and prepare
steps share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.formats import ROOT, format_named, place_of
from hepfaas.datasets.opened import read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.errors import RequestError
from hepfaas.features.extra import one_number
from hepfaas.features.jagged import Values, events_where, type_of
from hepfaas.features.preprocess import preprocessed
from hepfaas.features.spec import InputBranch
from hepfaas.platform.storage import Store
from hepfaas.platform.work_limit import STEP_S, work_limit
from hepfaas.runs.identities import file_of
from hepfaas.runs.preprocessing import Preprocessing
from hepfaas.runs.steps import Prepare, Survey
from hepfaas.runs.weighting import Weighting
from hepfaas.steps.objects import layout_of
from hepfaas.training.weights import bins_of

LARGEST_LABEL, LARGEST_WEIGHT = 2**53, 1e100


@dataclass(frozen=True)
class Events:
    """All events of an entry range, after preprocessing.

    place: tree and file, for messages. inputs: the branches that were read. as_read: their values. arrays: branches
    after preprocessing, new ones too, each (events,) or (events, var). entries: (events,). flow: number of the first
    cut that rejects each event, (events,); the number of cuts for a selected event. None if there is no cut.
    """

    place: str
    inputs: tuple[InputBranch, ...]
    as_read: Mapping[str, Values]
    arrays: Mapping[str, Values]
    entries: NDArray[np.int64]
    flow: NDArray[np.uint8] | None
    n_cuts: int

    @property
    def selected(self) -> NDArray[np.bool_]:
        """True for selected events, (events,)."""
        return np.ones(len(self.entries), dtype=bool) if self.flow is None else self.flow == self.n_cuts

    @property
    def rejected(self) -> tuple[int, ...]:
        """Number of events that each cut rejects."""
        if self.flow is None:
            return ()
        return tuple(np.bincount(self.flow, minlength=self.n_cuts + 1)[: self.n_cuts].tolist())

    def of_selected(self, names: Sequence[str]) -> dict[str, Values]:
        """Return branches of the selected events."""
        if self.flow is None:
            return {name: self.arrays[name] for name in names}
        selected = self.selected
        return {name: events_where(self.arrays[name], selected) for name in names}

    def numbers(self, expression: str) -> NDArray[Any]:
        """Return the value of an expression for each event, (events,). Raises: RequestError if it is not one number."""
        return one_number(self.arrays, expression, len(self.entries))

    def condition(self, expression: str) -> NDArray[np.bool_]:
        """Return whether an expression is true, or a number other than 0, for each event, (events,)."""
        values = self.numbers(expression)
        return np.asarray((values != 0) & ~np.isnan(values))

    def weights(self, weighting: Weighting) -> NDArray[np.float64]:
        """Return the weight of each event, (events,), before any normalisation; 0 for a rejected event without one.

        Raises: RequestError if the weight of a selected event is NaN, infinite or above `LARGEST_WEIGHT`.
        """
        if not weighting.weight:
            return np.ones(len(self.entries))
        weights = self.numbers(weighting.weight).astype(np.float64)
        finite = np.abs(weights) <= LARGEST_WEIGHT
        if (wrong := np.flatnonzero(~finite & self.selected)).size:
            raise RequestError(
                f"the weight of entry {self.entries[wrong[0]]} of {self.place} is {weights[wrong[0]]}; add a cut that "
                f"rejects such events, such as isfinite({weighting.weight})"
            )
        return np.where(finite, weights, 0.0)

    def labels(self, weighting: Weighting) -> NDArray[np.int64]:
        """Return the label of each selected event, (selected,). Raises: RequestError if it is not a whole number."""
        values = self.numbers(weighting.label)[self.selected]
        if values.dtype.kind in "biu":
            return values.astype(np.int64)
        whole = np.isfinite(values) & (np.abs(values) <= LARGEST_LABEL) & (values == np.rint(values))
        if (wrong := np.flatnonzero(~whole)).size:
            raise RequestError(
                f"the label '{weighting.label}' of entry {self.entries[self.selected][wrong[0]]} of {self.place} is "
                f"{values[wrong[0]]}; a label is a whole number"
            )
        return values.astype(np.int64)

    def target(self, expression: str) -> NDArray[np.float64]:
        """Return the target of each selected event, (selected,). Raises: RequestError if one is NaN or infinite."""
        values = self.numbers(expression)[self.selected].astype(np.float64)
        if (wrong := np.flatnonzero(~np.isfinite(values))).size:
            raise RequestError(
                f"the target '{expression}' of entry {self.entries[self.selected][wrong[0]]} of {self.place} is "
                f"{values[wrong[0]]}; add a cut that rejects such events, such as isfinite({expression})"
            )
        return values

    def bins(self, weighting: Weighting) -> NDArray[np.int64]:
        """Return the bin of the balance of each selected event, (selected,)."""
        balance = weighting.balance
        if balance is None or not balance.expression:
            return np.zeros(int(self.selected.sum()), dtype=np.int64)
        return bins_of(self.numbers(balance.expression)[self.selected].astype(np.float64), balance)


def events_of(
    step: Survey | Prepare, inputs: Sequence[str], preprocessing: Preprocessing, store: Store, reading: Reading
) -> Events:
    """Read the events of a step. inputs: branches of the file.

    Raises: RequestError if the file has changed since the run opened it; UnavailableError.
    """
    entries, layout, file = EntryRange(*step.entries), layout_of(step, store), file_of(step.file)
    arrays = read(step.url, file, step.tree, branches=inputs, entries=entries, reading=reading, layout=layout)
    result = preprocessed(arrays, preprocessing, work_limit(STEP_S))
    return Events(
        place=place_of(step.url, step.tree, format_named(step.url) or ROOT),
        inputs=tuple(InputBranch(name, *type_of(arrays[name])) for name in inputs),
        as_read=arrays,
        arrays=result.arrays,
        entries=np.arange(*step.entries, dtype=np.int64),
        flow=result.flow,
        n_cuts=len(preprocessing.cuts),
    )
