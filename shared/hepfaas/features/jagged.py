"""Values of a branch: NumPy and Awkward arrays, and `Jagged`, which needs no Awkward. Pure.

Awkward takes longer to import than everything else that prediction needs, so it is imported only for its own arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError

if TYPE_CHECKING:
    import awkward as ak


@dataclass(frozen=True, eq=False)
class Jagged:
    """A jagged branch: the values of all events end to end, (values,), and their number in each event, (events,)."""

    values: NDArray[Any]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, events: slice) -> Jagged:
        """Return the lists of consecutive events."""
        start, stop, _ = events.indices(len(self))
        first = int(self.counts[:start].sum())
        counts = self.counts[start:stop]
        return Jagged(self.values[first : first + int(counts.sum())], counts)

    def tolist(self) -> list[list[Any]]:
        """Return the list of each event."""
        return [part.tolist() for part in np.split(self.values, np.cumsum(self.counts)[:-1])] if len(self) else []


Values: TypeAlias = Union[NDArray[Any], Jagged, "ak.Array"]
"""Values of a branch: (events,) if it is flat, else (events, var)."""


def values_and_counts(branch: Values) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Return the values of all events end to end, and their number in each event, (events,), or None if flat."""
    if isinstance(branch, np.ndarray):
        return branch, None
    if isinstance(branch, Jagged):
        return branch.values, branch.counts
    import awkward as ak

    layout = ak.to_layout(branch)
    if isinstance(layout, ak.contents.NumpyArray) and branch.ndim == 1:
        return np.asarray(layout.data), None
    if isinstance(layout, ak.contents.ListOffsetArray) and isinstance(layout.content, ak.contents.NumpyArray):
        offsets = np.asarray(layout.offsets.data)
        return np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)
    counts = None if branch.ndim == 1 else ak.to_numpy(ak.num(branch))
    return np.asarray(ak.to_numpy(ak.ravel(branch))), counts


def events_where(branch: Values, selected: NDArray[np.bool_]) -> Values:
    """Return a branch of the selected events; selected: (events,)."""
    if isinstance(branch, np.ndarray):
        return branch[selected]
    values, counts = values_and_counts(branch)
    assert counts is not None
    return Jagged(values[np.repeat(selected, counts)], counts[selected])


def in_single(branch: Values) -> Values:
    """Return a branch with float32 values instead of float64; any other as it is."""
    values, counts = values_and_counts(branch)
    if values.dtype != np.float64:
        return branch
    single = values.astype(np.float32)
    return single if counts is None else Jagged(single, counts)


def empty(jagged: bool, type_: str) -> Values:
    """Return a branch of no events."""
    values = np.zeros(0, dtype=type_)
    return Jagged(values, np.zeros(0, dtype=np.int64)) if jagged else values


def type_of(branch: Values) -> tuple[bool, str]:
    """Return whether a branch is jagged, and the type of its values, as 'float32'."""
    values, counts = values_and_counts(branch)
    return counts is not None, values.dtype.name


def flat_values(branch: Values, name: str) -> NDArray[Any]:
    """Return the values of a branch that identifies events, (events,). Raises: RequestError if it is jagged."""
    values, counts = values_and_counts(branch)
    if counts is not None:
        raise RequestError(f"branch '{name}' identifies events but is jagged; it must have one number for each event")
    return values


def packed(branches: Mapping[str, Values]) -> tuple[list[bool], list[NDArray[Any]]]:
    """Return which branches are jagged, and their arrays in order: values, then for a jagged one its counts; all in
    the byte order of this machine."""
    flags, arrays = [], []
    for branch in branches.values():
        values, counts = values_and_counts(branch)
        flags.append(counts is not None)
        arrays.append(values.astype(values.dtype.newbyteorder("="), copy=False))
        if counts is not None:
            arrays.append(counts.astype(np.int64, copy=False))
    return flags, arrays


def unpacked(names: Sequence[str], flags: Sequence[bool], arrays: Sequence[NDArray[Any]]) -> dict[str, Values]:
    """Return the branches of a `packed` message from an untrusted sender.

    Raises: ValueError if the arrays are not branches of numbers of the same events.
    """
    rest = list(reversed(arrays))
    if len(flags) != len(names) or len(rest) != len(flags) + sum(map(bool, flags)):
        raise ValueError(f"{len(rest)} arrays for {len(names)} branches")
    branches: dict[str, Values] = {}
    for name, flag in zip(names, flags, strict=True):
        values = rest.pop()
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise ValueError(f"branch '{name}' is {values.dtype} of shape {values.shape}")
        branches[name] = Jagged(values, _checked_counts(rest.pop(), len(values))) if flag else values
    if len({len(branch) for branch in branches.values()}) > 1:
        raise ValueError("branches of different lengths")
    return branches


def _checked_counts(counts: NDArray[Any], n_values: int) -> NDArray[np.int64]:
    if counts.ndim != 1 or counts.dtype != np.int64 or counts.min(initial=0) < 0:
        raise ValueError("counts that are not whole numbers from 0 on")
    if counts.max(initial=0) > n_values or int(counts.sum()) != n_values:
        raise ValueError("counts that do not add up to the number of values")
    return counts
