"""Branches as columns: arrays of NumPy or of awkward, or values with counts. Pure. Only arrays of awkward need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np

from hepfaas.expressions.arrays import Column, Layout, Misfit, Numbers

if TYPE_CHECKING:
    import awkward as ak


class Lists(Protocol):
    """A jagged branch without awkward: the values of all events end to end, (values,), and the number of values of
    each event, (events,). `features.jagged.Jagged` is one."""

    def __init__(self, values: Numbers, counts: Numbers) -> None: ...

    @property
    def values(self) -> Numbers:
        """Return the values of all events."""

    @property
    def counts(self) -> Numbers:
        """Return the number of values of each event."""

    def __len__(self) -> int: ...


Array: TypeAlias = Union[Numbers, Lists, "ak.Array"]


class Branches(Mapping[str, Array]):
    """Arrays by name. Each becomes a column at its first use, and jagged columns with equal counts share a layout, so
    expressions that are evaluated on the same `Branches` share what they compute from it."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        self._columns: dict[str, Column] = {}
        self._layouts: list[Layout] = []

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Branches:
        """Return arrays as `Branches`."""
        return arrays if isinstance(arrays, Branches) else cls(arrays)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def column(self, name: str) -> Column:
        """Return a branch as a column.

        Raises:
            Misfit: it does not hold numbers, or has more than one list in each event.
        """
        if name not in self._columns:
            data, layout = _read(name, self._arrays[name])
            self._columns[name] = Column(data, layout if layout is None else self._shared(layout))
        return self._columns[name]

    def replace(self, arrays: Mapping[str, Array]) -> None:
        """Add arrays, or replace those of the same name."""
        self._arrays |= arrays
        for name in arrays:
            self._columns.pop(name, None)

    def _shared(self, layout: Layout) -> Layout:
        for known in self._layouts:
            if known == layout:
                return known
        self._layouts.append(layout)
        return layout


def _read(name: str, array: Array) -> tuple[Numbers, Layout | None]:
    """Return the numbers of a branch, and its layout if it is jagged. Integers get 64 bits.

    Raises:
        Misfit: the branch does not hold numbers, or has more than one list in each event.
    """
    layout = None
    if isinstance(array, np.ndarray):
        data = array
        if data.ndim == 2:
            layout = Layout(np.full(len(data), data.shape[1], dtype=np.int64))
            data = data.reshape(-1)
    elif is_awkward(array):
        data, offsets = _unpacked(name, array)
        layout = None if offsets is None else Layout(np.diff(offsets), offsets)
    else:
        data, layout = array.values, Layout(array.counts.astype(np.int64, copy=False))
    if data.ndim != 1 or data.dtype.kind not in "biuf":
        raise Misfit(f"branch '{name}' holds {data.dtype} with {data.ndim} axes, and not numbers or lists of numbers")
    if data.dtype.kind in "iu":
        data = data.astype(np.uint64 if data.dtype == np.uint64 else np.int64, copy=False)
    # NumPy may round differently if the values do not stand next to each other.
    return np.ascontiguousarray(data, data.dtype.newbyteorder("=")), layout


def is_awkward(array: Any) -> bool:
    return hasattr(type(array), "layout")


def _unpacked(name: str, array: Any) -> tuple[Numbers, Numbers | None]:
    import awkward as ak

    layout = ak.to_layout(array)
    while layout.is_indexed and not layout.is_option:
        layout = layout.project()
    offsets = None
    if layout.is_list:
        layout = layout.to_ListOffsetArray64(True)
        offsets = np.asarray(layout.offsets.data)
        layout = layout.content[: offsets[-1]]
        while layout.is_indexed and not layout.is_option:
            layout = layout.project()
    if not layout.is_numpy or layout.parameter("__array__") is not None:
        raise Misfit(f"branch '{name}' holds {ak.type(array)}, and not numbers or lists of numbers")
    return np.asarray(layout.data), offsets
