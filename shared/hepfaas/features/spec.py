"""The layout of a feature vector: its columns in order, the range and the width of each branch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from hepfaas.errors import RequestError

Order = Literal["sorted", "tree"]
Surplus = Literal["truncate", "error"]


@dataclass(frozen=True)
class FeatureBranch:
    """One branch of the vector: a flat one has one column, a jagged one as many as its width.

    low, high: range over all training events in the branch's own unit; both None if it never had a finite value.
    type: of a value in the training files: an event that comes as JSON has to be read as it was there.
    """

    name: str
    jagged: bool
    low: float | None
    high: float | None
    width: int
    type: str = "float32"


@dataclass(frozen=True)
class Spec:
    """How events become vectors, in training and in prediction alike.

    branches: in the order of the columns. surplus: what happens to an event with more values than a branch is
    wide ("truncate": the first ones are taken; "error"). identifiers: branches that name an event and are no
    features.
    """

    branches: tuple[FeatureBranch, ...]
    surplus: Surplus = "truncate"
    identifiers: tuple[str, ...] = ()

    @cached_property
    def n_features(self) -> int:
        """Length of a vector."""
        return sum(branch.width for branch in self.branches)

    @property
    def columns(self) -> list[str]:
        """Name of each column: a flat branch's own, and `<branch>_<i>` for the slots of a jagged one."""
        return [
            f"{branch.name}_{slot}" if branch.jagged else branch.name
            for branch in self.branches
            for slot in range(branch.width)
        ]

    def slots(self, name: str) -> range:
        """Columns of one branch. Raises: RequestError if it is not among the features."""
        start = 0
        for branch in self.branches:
            if branch.name == name:
                return range(start, start + branch.width)
            start += branch.width
        raise RequestError(f"branch '{name}' is not among the {len(self.branches)} branches of the spec")

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "branches": [asdict(branch) for branch in self.branches],
            "surplus": self.surplus,
            "identifiers": list(self.identifiers),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Spec:
        """What `to_json` gave."""
        return cls(
            tuple(FeatureBranch(**branch) for branch in values["branches"]),
            values["surplus"],
            tuple(values["identifiers"]),
        )


def in_order(names: Sequence[str], jagged: Mapping[str, bool], order: Order) -> list[str]:
    """Names of branches, flat ones first; "sorted": each group by name (the original's master branch), "tree":
    each group in the order given (its later branches)."""
    ordered = sorted(names) if order == "sorted" else list(names)
    return sorted(ordered, key=lambda name: jagged[name])
