"""Regression targets and their scale. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

Row = tuple[str, float, float, float, float]
"""The fields of a target, in the order of `Target`, as steps name them."""


@dataclass(frozen=True)
class Target:
    """A number of each event that a network learns.

    name: expression. mean, deviation: mean and standard deviation over the selected events, rounded to float32: the
    network learns (value - mean) / deviation, and the served graph undoes this. low, high: smallest and largest value.
    All numbers are in the target's own unit.
    """

    name: str
    mean: float
    deviation: float
    low: float
    high: float

    @property
    def row(self) -> Row:
        """The target as steps name it."""
        return self.name, self.mean, self.deviation, self.low, self.high

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Target:
        """Return the target from the values of `to_json`; a later release may store more."""
        return cls(**{item.name: values[item.name] for item in fields(cls)})


def targets_in(rows: Sequence[Row]) -> list[Target]:
    """Return the targets that a step names."""
    return [Target(*row) for row in rows]


def output_names(targets: Sequence[str]) -> list[str]:
    """Return the name of the column of each predicted number: 'prediction', or 'prediction_<target>' of several.

    Characters that a branch of a ROOT file cannot have become '_'; equal names get a number.
    """
    if len(targets) == 1:
        return ["prediction"]
    names: list[str] = []
    for number, target in enumerate(targets):
        name = "prediction_" + (re.sub(r"[^A-Za-z0-9]+", "_", target).strip("_") or str(number))
        names.append(f"{name}_{number}" if name in names else name)
    return names
