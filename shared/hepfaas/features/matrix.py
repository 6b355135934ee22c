"""From branches to the feature matrix of a model, and back. Pure; training and serving both use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.features.scaling import scaled, unscaled
from hepfaas.features.spec import FeatureBranch, FeatureSpec


def matrix(arrays: Mapping[str, Values], spec: FeatureSpec) -> NDArray[np.float32]:
    """Return the features of each event, (events, features), float32.

    Each value becomes (value - low) / (high - low) with the range of its branch, unless the spec has another scaling;
    values of a constant branch pass unchanged. A jagged branch fills its slots from the first on; slots without a value
    are 0, as are NaN and infinite values, unless the spec has other numbers. The arithmetic is that of the original
    (MLaaS4HEP, reader.py:RootDataReader.next): float64 for flat branches, the branch's own precision for jagged ones.
    Integers that float64 does not represent keep their distances.

    Raises: RequestError if a branch is missing or is flat where the spec has it jagged or the other way round, or, if
    surplus is "error", an event has more values than the branch's width.
    """
    n_events = len(next(iter(arrays.values()), ()))
    features = np.zeros((n_events, spec.n_features), dtype=np.float32)
    slots = _Slots(spec)
    start = 0
    for branch in spec.branches:
        values, counts = _values(arrays, branch)
        if counts is None:
            columns = features[:, start : start + branch.n_columns]
            columns[:, 0], missing = scaled(_in_float64(values), branch)
            if branch.indicator and missing is not None:
                columns[:, 1] = missing
        else:
            if branch.pad:
                features[:, start : start + branch.width] = branch.pad
            indices, kept = slots.of(counts, branch)
            cells = features.reshape(-1)
            cells[indices + start], missing = scaled(values if kept is None else values[kept], branch)
            if branch.indicator and missing is not None:
                cells[indices + (start + branch.width)] = missing
            if branch.mask:
                cells[indices + (start + branch.n_columns - branch.width)] = 1
        start += branch.n_columns
    return features


def surplus_events(arrays: Mapping[str, Values], spec: FeatureSpec) -> NDArray[np.bool_]:
    """Return whether each event has more values in any branch than the spec has slots, (events,)."""
    surplus = np.zeros(len(next(iter(arrays.values()), ())), dtype=bool)
    for branch in spec.branches:
        _, counts = _values(arrays, branch)
        if counts is not None:
            surplus |= counts > branch.width
    return surplus


def denormalise(features: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float64]:
    """Return the values in the branches' own units, (events, features). Slots without a value and values that the
    indicator names become NaN; without a mask, a slot of a jagged branch with the number of padding counts as empty.
    Columns of indicators and masks stay."""
    values = features.astype(np.float64)
    start = 0
    for branch in spec.branches:
        stop, width = start + branch.n_columns, branch.width
        part = features[:, start : start + width].astype(np.float64)
        empty = part == np.float32(branch.pad) if branch.jagged else np.zeros(part.shape, dtype=bool)
        if branch.mask:
            empty = values[:, stop - width : stop] == 0
        if branch.indicator:
            empty |= values[:, start + width : start + 2 * width] == 1
        values[:, start : start + width] = np.where(empty, np.nan, unscaled(part, branch))
        start = stop
    return values


class _Slots:
    """Positions of jagged values in the matrix, computed once for branches with equal counts (Muon_pt, Muon_eta, …)."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._known: list[tuple[NDArray[np.int64], int, Any]] = []

    def of(self, counts: NDArray[np.int64], branch: FeatureBranch) -> Any:
        """Return the index into the flattened matrix of each value with a slot, (values,), and which values have one
        (None: all). Indices are those of a branch that starts at column 0."""
        for known, width, slots in self._known:
            if width == branch.width and np.array_equal(known, counts):
                return slots
        if self._spec.surplus == "error" and len(counts) and counts.max() > branch.width:
            raise RequestError(
                f"branch '{branch.name}' has {counts.max()} values in event {int(counts.argmax())} of these, and "
                f"the model's spec has room for {branch.width}; train with 'surplus': 'truncate' to drop the rest"
            )
        slots = self._computed(counts, branch.width)
        self._known.append((counts, branch.width, slots))
        return slots

    def _computed(self, counts: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], Any]:
        first_value = np.cumsum(counts) - counts
        first_index = np.arange(len(counts)) * self._spec.n_features
        indices = np.arange(int(counts.sum())) + np.repeat(first_index - first_value, counts)
        if not len(counts) or counts.max() <= width:
            return indices, None
        kept = indices - np.repeat(first_index, counts) < width
        return indices[kept], kept


def _in_float64(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values as float64; integers of 8 bytes, which it may not represent, as they are."""
    is_long = values.dtype.kind in "iu" and values.dtype.itemsize == 8
    return values if is_long else values.astype(np.float64)


def _values(arrays: Mapping[str, Values], branch: FeatureBranch) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    if branch.name not in arrays:
        raise RequestError(f"branch '{branch.name}' is missing: the model's spec has it among its features")
    values, counts = values_and_counts(arrays[branch.name])
    if branch.jagged != (counts is not None):
        actual, expected = ("flat", "jagged") if branch.jagged else ("jagged", "flat")
        raise RequestError(f"branch '{branch.name}' is {actual} here and {expected} in the model's spec")
    return values, counts
