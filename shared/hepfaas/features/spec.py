"""Layout of a feature vector: its columns in order, the range and width of each branch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hepfaas.errors import RequestError
from hepfaas.runs.preprocessing import NOTHING, Preprocessing

Order = Literal["sorted", "tree"]
Surplus = Literal["truncate", "error"]


@dataclass(frozen=True)
class FeatureBranch:
    """One branch of the vector: a flat one has one column, a jagged one `width` columns.

    low, high: range over all training events in the branch's own unit; both None without any finite value. type: of
    the values in the training files; events in JSON are read as this type.
    """

    name: str
    _: KW_ONLY
    jagged: bool
    low: float | None
    high: float | None
    width: int
    type: str = "float32"


@dataclass(frozen=True)
class InputBranch:
    """One branch of the file. type: of its values in the training files; events in JSON are read as this type."""

    name: str
    jagged: bool
    type: str

    def __or__(self, other: InputBranch) -> InputBranch:
        """Return the branch with a type that holds the values of both. Raises: RequestError if one is flat."""
        if self.jagged != other.jagged:
            raise RequestError(f"branch '{self.name}' is flat in some files and jagged in others")
        return InputBranch(self.name, self.jagged, str(np.result_type(self.type, other.type)))


@dataclass(frozen=True)
class FeatureSpec:
    """How events become vectors, in training and in prediction.

    branches: in the order of the columns. surplus: for an event with more values than a branch's width, "truncate"
    keeps the first ones and "error" refuses the event. identifiers: branches that identify an event and are not
    features. preprocessing: comes before the vector. read: branches of the file that it takes; () if they are the
    features. spectators: branches and expressions that are kept beside the scores, where the events have them.
    """

    branches: tuple[FeatureBranch, ...]
    surplus: Surplus = "truncate"
    identifiers: tuple[str, ...] = ()
    preprocessing: Preprocessing = NOTHING
    read: tuple[InputBranch, ...] = ()
    spectators: tuple[str, ...] = ()

    @cached_property
    def inputs(self) -> tuple[InputBranch, ...]:
        """The branches of an event that the vector is made of."""
        return self.read or tuple(InputBranch(branch.name, branch.jagged, branch.type) for branch in self.branches)

    @property
    def input_names(self) -> list[str]:
        """The names of `inputs`."""
        return [branch.name for branch in self.inputs]

    @property
    def names(self) -> list[str]:
        """The names of the feature branches."""
        return [branch.name for branch in self.branches]

    @cached_property
    def n_features(self) -> int:
        """The length of a vector."""
        return sum(branch.width for branch in self.branches)

    @property
    def columns(self) -> list[str]:
        """The name of each column: that of a flat branch, and `<branch>_<i>` for the slots of a jagged one."""
        return [
            f"{branch.name}_{slot}" if branch.jagged else branch.name
            for branch in self.branches
            for slot in range(branch.width)
        ]

    def slots(self, name: str) -> range:
        """Return the columns of one branch. Raises: RequestError if it is not among the features."""
        start = 0
        for branch in self.branches:
            if branch.name == name:
                return range(start, start + branch.width)
            start += branch.width
        raise RequestError(f"branch '{name}' is not among the {len(self.branches)} branches of the spec")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; those of preprocessing only if there is any."""
        values: dict[str, Any] = {
            "branches": [asdict(branch) for branch in self.branches],
            "surplus": self.surplus,
            "identifiers": list(self.identifiers),
        }
        if self.read:
            values |= {"preprocessing": self.preprocessing.to_json(), "read": [asdict(branch) for branch in self.read]}
        if self.spectators:
            values["spectators"] = list(self.spectators)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Return the spec from the values of `to_json`."""
        return cls(
            tuple(FeatureBranch(**branch) for branch in values["branches"]),
            values["surplus"],
            tuple(values["identifiers"]),
            Preprocessing.from_json(values.get("preprocessing", {})),
            tuple(InputBranch(**branch) for branch in values.get("read", ())),
            tuple(values.get("spectators", ())),
        )


def in_order(names: Sequence[str], jagged: Mapping[str, bool], order: Order) -> list[str]:
    """Return the names of branches, flat ones first. "sorted": each group by name, as the original's master branch;
    "tree": each group in the given order, as its later branches."""
    ordered = sorted(names) if order == "sorted" else list(names)
    return sorted(ordered, key=lambda name: jagged[name])
