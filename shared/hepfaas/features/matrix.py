"""From branches to the feature matrix of a model, and back. Pure; training and serving both use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.features.spec import FeatureBranch, FeatureSpec


def matrix(arrays: Mapping[str, Values], spec: FeatureSpec) -> NDArray[np.float32]:
    """Return the features of each event, (events, features), float32.

    Each value becomes (value - low) / (high - low) with the range of its branch; values of a constant branch pass
    unchanged. A jagged branch fills its slots from the first on; slots without a value are 0, as are NaN and
    infinite values. The arithmetic is that of the original (MLaaS4HEP, reader.py:RootDataReader.next): float64
    for flat branches, the branch's own precision for jagged ones.

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
            features[:, start] = _scaled(values.astype(np.float64), branch)
        else:
            indices, kept = slots.of(counts, branch)
            features.reshape(-1)[indices + start] = _scaled(values if kept is None else values[kept], branch)
        start += branch.width
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
    """Return the values in the branches' own units, (events, features); 0 in a jagged branch (padding) becomes NaN."""
    values = features.astype(np.float64)
    start = 0
    for branch in spec.branches:
        part = values[:, start : start + branch.width]
        if branch.jagged:
            part[part == 0] = np.nan
        if branch.low is not None and branch.high is not None and branch.high != branch.low:
            part *= branch.high - branch.low
            part += branch.low
        start += branch.width
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


def _values(arrays: Mapping[str, Values], branch: FeatureBranch) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    if branch.name not in arrays:
        raise RequestError(f"branch '{branch.name}' is missing: the model's spec has it among its features")
    values, counts = values_and_counts(arrays[branch.name])
    if branch.jagged != (counts is not None):
        actual, expected = ("flat", "jagged") if branch.jagged else ("jagged", "flat")
        raise RequestError(f"branch '{branch.name}' is {actual} here and {expected} in the model's spec")
    return values, counts


def _scaled(values: NDArray[Any], branch: FeatureBranch) -> NDArray[np.float32]:
    if branch.low is None or branch.high is None:
        return np.zeros(len(values), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if branch.high != branch.low:
            values = (values - branch.low) / (branch.high - branch.low)
        scaled = values.astype(np.float32, copy=False)
        if np.isfinite(scaled.sum()):  # then all values are finite
            return scaled
    return np.where(np.isfinite(scaled), scaled, np.float32(0))
