"""The columns of the feature vector, as `model(idim, columns)` in the user's code gets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hepfaas.features.spec import FeatureBranch


@dataclass(frozen=True)
class Column:
    """One column of the feature vector.

    name: as hepfaas prints it. branch: whose values it has. slot: number of the value in the event, 0 in a flat branch.
    jagged: whether the branch has a list for each event. low, high: smallest and largest value of the branch, in its
    own unit, before it is scaled; None if it has no finite value. kind: 'value', or 'missing' and 'mask' for the
    columns of 0 and 1 that `nan` and `mask` in params.json add.
    """

    name: str
    branch: str
    slot: int
    jagged: bool
    low: float | None
    high: float | None
    kind: Literal["value", "missing", "mask"] = "value"


def columns_of(branches: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns of feature branches, which are given as JSON values."""
    return tuple(column for values in branches for column in _columns(FeatureBranch.from_json(values)))


def _columns(branch: FeatureBranch) -> Iterator[Column]:
    kinds: list[Literal["value", "missing", "mask"]] = ["value"]
    kinds += ["missing"] * branch.indicator
    kinds += ["mask"] * branch.mask
    names = iter(branch.columns)
    for kind in kinds:
        for slot in range(branch.width):
            yield Column(next(names), branch.name, slot, branch.jagged, branch.low, branch.high, kind)
