"""Layout of a feature vector: its columns in order, the range and width of each branch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hepfaas.errors import RequestError
from hepfaas.runs.feature_rules import Scaling
from hepfaas.runs.preprocessing import NOTHING, Preprocessing

Order = Literal["sorted", "tree"]
Surplus = Literal["truncate", "error"]


@dataclass(frozen=True)
class FeatureBranch:
    """One branch of the vector: a flat one has one column, a jagged one `width` columns.

    low, high: range over all training events in the branch's own unit; both None without any finite value. type: of
    the values in the training files; events in JSON are read as this type. scaling, offset, scale: features are
    (value - low) / (high - low) if the scaling is "minmax", (value - offset) / scale if it is "standard" or "robust",
    log(1 + value - offset) / scale, at least 0, if it is "log", and the values themselves if it is "none". An offset
    that is an integer is subtracted exactly from integers, which float64 may not represent. clip: lowest
    and highest feature. nan: feature of a value that is NaN or infinite. indicator: `width` further columns, 1 for
    each such value. pad: feature of a slot without a value. mask: `width` further columns, 1 for each slot that has a
    value.
    """

    name: str
    _: KW_ONLY
    jagged: bool
    low: float | None
    high: float | None
    width: int
    type: str = "float32"
    scaling: Scaling = "minmax"
    offset: float = 0.0
    scale: float = 1.0
    clip: tuple[float, float] | None = None
    nan: float = 0.0
    indicator: bool = False
    pad: float = 0.0
    mask: bool = False

    @property
    def n_columns(self) -> int:
        """The number of columns: those of the values, then those of the indicator, then those of the mask."""
        return self.width * (1 + self.indicator + self.mask)

    @property
    def columns(self) -> list[str]:
        """The name of each column."""
        kinds = [self.name, *([f"{self.name}_missing"] * self.indicator), *([f"{self.name}_mask"] * self.mask)]
        return [f"{kind}_{slot}" if self.jagged else kind for kind in kinds for slot in range(self.width)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values. Fields with a default are left out if they have it, except the type."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name == "type" or item.default is MISSING or getattr(self, item.name) != item.default
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureBranch:
        """Return the branch from the values of `to_json`."""
        clip = values.get("clip")
        return cls(**{**values, "clip": tuple(clip) if clip else None})


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
    targets: that a regression learned, (): scores are those of classes. record_function: source of
    `preprocessing(record)`, which is applied to the records of JSON and CSV files before everything else, '' for none.
    """

    branches: tuple[FeatureBranch, ...]
    surplus: Surplus = "truncate"
    identifiers: tuple[str, ...] = ()
    preprocessing: Preprocessing = NOTHING
    read: tuple[InputBranch, ...] = ()
    spectators: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    record_function: str = ""

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
        return sum(branch.n_columns for branch in self.branches)

    @property
    def columns(self) -> list[str]:
        """The name of each column: that of a flat branch, and `<branch>_<i>` for the slots of a jagged one. Indicators
        are `<branch>_missing`, masks `<branch>_mask`."""
        return [column for branch in self.branches for column in branch.columns]

    def slots(self, name: str) -> range:
        """Return the columns of one branch, with indicator and mask. Raises: RequestError if it is not a feature."""
        start = 0
        for branch in self.branches:
            if branch.name == name:
                return range(start, start + branch.n_columns)
            start += branch.n_columns
        raise RequestError(f"branch '{name}' is not among the {len(self.branches)} branches of the spec")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; those of preprocessing only if there is any."""
        values: dict[str, Any] = {
            "branches": [branch.to_json() for branch in self.branches],
            "surplus": self.surplus,
            "identifiers": list(self.identifiers),
        }
        if self.read:
            values |= {"preprocessing": self.preprocessing.to_json(), "read": [vars(branch) for branch in self.read]}
        if self.spectators:
            values["spectators"] = list(self.spectators)
        if self.targets:
            values["targets"] = list(self.targets)
        if self.record_function:
            values["record_function"] = self.record_function
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Return the spec from the values of `to_json`."""
        return cls(
            tuple(FeatureBranch.from_json(branch) for branch in values["branches"]),
            values["surplus"],
            tuple(values["identifiers"]),
            Preprocessing.from_json(values.get("preprocessing", {})),
            tuple(InputBranch(**branch) for branch in values.get("read", ())),
            tuple(values.get("spectators", ())),
            tuple(values.get("targets", ())),
            values.get("record_function", ""),
        )


def in_order(names: Sequence[str], jagged: Mapping[str, bool], order: Order) -> list[str]:
    """Return the names of branches, flat ones first. "sorted": each group by name, as the original's master branch;
    "tree": each group in the given order, as its later branches."""
    ordered = sorted(names) if order == "sorted" else list(names)
    return sorted(ordered, key=lambda name: jagged[name])
