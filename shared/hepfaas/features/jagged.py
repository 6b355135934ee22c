"""Lists of numbers end to end, `Jagged`, beside the arrays of NumPy and awkward that a branch's values come in. Pure.

awkward takes longer to import than all else that a vector needs, and is only where its arrays are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import awkward as ak


@dataclass(frozen=True, eq=False)
class Jagged:
    """A jagged branch of some events: all values end to end, (values,), and how many each event has, (events,)."""

    values: NDArray[Any]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)


Values: TypeAlias = Union[NDArray[Any], Jagged, "ak.Array"]
"""What a branch has in some events: (events,) if it is flat, else (events, var)."""


def values_and_counts(branch: Values) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """All values of a branch end to end, and for a jagged one how many each event has, (events,); None if flat."""
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
