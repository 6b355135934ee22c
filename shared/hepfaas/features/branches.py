"""The range of each branch over some events, as a spec needs it to scale and pad inputs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, values_and_counts


@dataclass(frozen=True, kw_only=True)
class BranchRange:
    """Range of one branch over some events, in the branch's own unit (pt: GeV).

    low, high: smallest and largest finite value; low > high if there was none.
    multiplicity: most values in one event; 1 for a flat branch, 0 before any event.
    n_missing: values that are NaN or infinite. type: of the values in the file, as 'float32'; '' if no file was read.
    """

    jagged: bool
    low: float = math.inf
    high: float = -math.inf
    multiplicity: int = 0
    n_missing: int = 0
    type: str = ""

    def __or__(self, other: BranchRange) -> BranchRange:
        """Return the range over both sets of events. Raises: RequestError if one is flat and the other jagged."""
        if self.jagged != other.jagged:
            raise RequestError("it is flat in some files and jagged in others; exclude it or train on them separately")
        return BranchRange(
            jagged=self.jagged,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            multiplicity=max(self.multiplicity, other.multiplicity),
            n_missing=self.n_missing + other.n_missing,
            type=str(np.result_type(self.type, other.type)) if self.type and other.type else self.type or other.type,
        )


@dataclass(frozen=True)
class BranchSurvey:
    """Result of one pass over events: the number of events of each file, by identity, and the range of each branch."""

    events: Mapping[str, int] = field(default_factory=dict)
    branches: Mapping[str, BranchRange] = field(default_factory=dict)

    def __or__(self, other: BranchSurvey) -> BranchSurvey:
        """Return the survey of both sets of events. Raises: RequestError naming the branch."""
        return BranchSurvey(
            {name: self.events.get(name, 0) + other.events.get(name, 0) for name in _union(self.events, other.events)},
            {name: _both(name, self.branches, other.branches) for name in _union(self.branches, other.branches)},
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; a range without a finite value has null for low and high."""
        return {
            "events": dict(self.events),
            "branches": {
                name: [branch.jagged, *_finite(branch), branch.multiplicity, branch.n_missing, branch.type]
                for name, branch in self.branches.items()
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BranchSurvey:
        """Return the survey from the values of `to_json`."""
        return cls(
            values["events"],
            {
                name: BranchRange(
                    jagged=jagged,
                    low=math.inf if low is None else low,
                    high=-math.inf if high is None else high,
                    multiplicity=multiplicity,
                    n_missing=n_missing,
                    type=type_,
                )
                for name, (jagged, low, high, multiplicity, n_missing, type_) in values["branches"].items()
            },
        )


def total(surveys: list[BranchSurvey]) -> BranchSurvey:
    """Return the survey of all events."""
    return reduce(or_, surveys, BranchSurvey())


def survey_of(identity: str, arrays: Mapping[str, Values], entries: int) -> BranchSurvey:
    """Return the survey of one entry range of the file with this identity; each branch (events,) or (events, var)."""
    return BranchSurvey({identity: entries}, {name: range_of(branch) for name, branch in arrays.items()})


def range_of(branch: Values) -> BranchRange:
    """Return the range of one branch of numbers, (events,) or (events, var), without NaN and infinite values."""
    values, counts = values_and_counts(branch)
    numbers = values.astype(np.uint8) if values.dtype == bool else values
    finite = numbers if numbers.dtype.kind != "f" else numbers[np.isfinite(numbers)]
    return BranchRange(
        jagged=counts is not None,
        low=float(finite.min()) if len(finite) else math.inf,
        high=float(finite.max()) if len(finite) else -math.inf,
        multiplicity=int(counts.max(initial=0)) if counts is not None else int(len(values) > 0),
        n_missing=len(numbers) - len(finite),
        type=values.dtype.name,
    )


def _finite(branch: BranchRange) -> tuple[float | None, float | None]:
    return (branch.low, branch.high) if branch.low <= branch.high else (None, None)


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted({*one, *other})


def _both(name: str, one: Mapping[str, BranchRange], other: Mapping[str, BranchRange]) -> BranchRange:
    if name not in one or name not in other:
        return one[name] if name in one else other[name]
    try:
        return one[name] | other[name]
    except RequestError as error:
        raise RequestError(f"branch '{name}': {error}") from error
