"""From the branches of some events to the matrix a model sees, and back. Pure; one path for training and serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.features.spec import FeatureBranch, Spec


def matrix(arrays: Mapping[str, Values], spec: Spec) -> NDArray[np.float32]:
    """Features of each event, (events, features), float32.

    Each value becomes (value - low) / (high - low) with the range of its branch; values of a constant branch pass
    unchanged. A jagged branch fills its slots from the first on; slots without a value are 0, as are NaN and
    infinite values. The arithmetic is that of the original (MLaaS4HEP, reader.py:RootDataReader.next): float64
    for flat branches, the branch's own precision for jagged ones.

    Raises: RequestError if a branch is missing, is flat where the spec has it jagged or the other way round, or
    (surplus "error") an event has more values than the branch is wide.
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
            places, kept = slots.of(counts, branch)
            features.reshape(-1)[places + start] = _scaled(values if kept is None else values[kept], branch)
        start += branch.width
    return features


def surplus_events(arrays: Mapping[str, Values], spec: Spec) -> NDArray[np.bool_]:
    """Which events have more values in some branch than the spec has slots for it, (events,)."""
    found = np.zeros(len(next(iter(arrays.values()), ())), dtype=bool)
    for branch in spec.branches:
        _, counts = _values(arrays, branch)
        if counts is not None:
            found |= counts > branch.width
    return found


def denormalise(features: NDArray[np.float32], spec: Spec) -> NDArray[np.float64]:
    """Values in the branches' own units, (events, features); 0 in a jagged branch's slot (padding) becomes NaN."""
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
    """Where each jagged value goes, found once for branches that count alike (Muon_pt, Muon_eta, …)."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._known: list[tuple[NDArray[np.int64], int, Any]] = []

    def of(self, counts: NDArray[np.int64], branch: FeatureBranch) -> Any:
        """Index into the flattened matrix of each value that has a slot, were the branch's first column the first of
        all, (values,), and which values those are (None: all)."""
        for known, width, found in self._known:
            if width == branch.width and np.array_equal(known, counts):
                return found
        if self._spec.surplus == "error" and len(counts) and counts.max() > branch.width:
            raise RequestError(
                f"branch '{branch.name}' has {counts.max()} values in event {int(counts.argmax())} of these, and "
                f"the model's spec has room for {branch.width}; train with 'surplus': 'truncate' to drop the rest"
            )
        found = self._places(counts, branch.width)
        self._known.append((counts, branch.width, found))
        return found

    def _places(self, counts: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], Any]:
        first_value = np.cumsum(counts) - counts
        first_place = np.arange(len(counts)) * self._spec.n_features
        places = np.arange(int(counts.sum())) + np.repeat(first_place - first_value, counts)
        if not len(counts) or counts.max() <= width:
            return places, None
        kept = places - np.repeat(first_place, counts) < width
        return places[kept], kept


def _values(arrays: Mapping[str, Values], branch: FeatureBranch) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    if branch.name not in arrays:
        raise RequestError(f"branch '{branch.name}' is missing: the model's spec has it among its features")
    values, counts = values_and_counts(arrays[branch.name])
    if branch.jagged != (counts is not None):
        found, wanted = ("flat", "jagged") if branch.jagged else ("jagged", "flat")
        raise RequestError(f"branch '{branch.name}' is {found} here and {wanted} in the model's spec")
    return values, counts


def _scaled(values: NDArray[Any], branch: FeatureBranch) -> NDArray[np.float32]:
    if branch.low is None or branch.high is None:
        return np.zeros(len(values), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if branch.high != branch.low:
            values = (values - branch.low) / (branch.high - branch.low)
        scaled = values.astype(np.float32, copy=False)
        if np.isfinite(scaled.sum()):  # one NaN or infinite value would spoil the sum: all are numbers
            return scaled
    return np.where(np.isfinite(scaled), scaled, np.float32(0))
