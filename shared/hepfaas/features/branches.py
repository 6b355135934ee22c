"""The range of each branch over some events, as a spec needs it to scale and pad inputs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.exact import ExactSum
from hepfaas.features.histogram import Histogram
from hepfaas.features.jagged import Values, values_and_counts

LARGEST_EXACT = 2**53
"""Up to here float64 represents all integers."""


@dataclass(frozen=True)
class Moments:
    """The exact sums of finite values and of their squares."""

    values: ExactSum
    squares: ExactSum

    def __or__(self, other: Moments) -> Moments:
        """Return the sums over both sets of values."""
        return Moments(self.values | other.values, self.squares | other.squares)


@dataclass(frozen=True)
class End:
    """The smallest or largest finite value of a branch, how often it occurs, and the value next to it; None if all
    finite values are equal. Integers above 2**53 are exact."""

    value: float
    count: int
    next: float | None

    def joined(self, other: End, outer: Callable[[Iterable[float]], float]) -> End:
        """Return the end over both sets of values. outer: `min` or `max`."""
        value = outer((self.value, other.value))
        inner = [x for x in (self.value, self.next, other.value, other.next) if x is not None and x != value]
        count = sum(end.count for end in (self, other) if end.value == value)
        return End(value, count, outer(inner) if inner else None)


@dataclass(frozen=True, kw_only=True)
class BranchRange:
    """Range of one branch over some events, in the branch's own unit (pt: GeV).

    bottom, top: the smallest and the largest finite value; None if there was none. multiplicity: most values in one
    event; 1 for a flat branch, 0 before any event. n_finite, n_missing: values that are finite, and that are NaN or
    infinite. type: of the values in the file, as 'float32'; '' if no file was read. moments, histogram: of the finite
    values, None if they were not wanted.
    """

    jagged: bool
    bottom: End | None = None
    top: End | None = None
    multiplicity: int = 0
    n_finite: int = 0
    n_missing: int = 0
    type: str = ""
    moments: Moments | None = None
    histogram: Histogram | None = None

    @property
    def low(self) -> float | None:
        """The smallest finite value."""
        return self.bottom.value if self.bottom else None

    @property
    def high(self) -> float | None:
        """The largest finite value."""
        return self.top.value if self.top else None

    def __or__(self, other: BranchRange) -> BranchRange:
        """Return the range over both sets of events. Raises: RequestError if one is flat and the other jagged."""
        if self.jagged != other.jagged:
            raise RequestError("it is flat in some files and jagged in others; exclude it or train on them separately")
        return BranchRange(
            jagged=self.jagged,
            bottom=_joined(self.bottom, other.bottom, min),
            top=_joined(self.top, other.top, max),
            multiplicity=max(self.multiplicity, other.multiplicity),
            n_finite=self.n_finite + other.n_finite,
            n_missing=self.n_missing + other.n_missing,
            type=str(np.result_type(self.type, other.type)) if self.type and other.type else self.type or other.type,
            moments=_added(self.moments, other.moments),
            histogram=_added(self.histogram, other.histogram),
        )

    def to_json(self) -> list[Any]:
        """Return JSON values."""
        ends = [[end.value, end.count, end.next] if end else None for end in (self.bottom, self.top)]
        moments = [self.moments.values.to_json(), self.moments.squares.to_json()] if self.moments else None
        histogram = self.histogram.to_json() if self.histogram else None
        numbers = [self.multiplicity, self.n_finite, self.n_missing]
        return [self.jagged, *ends, *numbers, self.type, *([moments, histogram] if moments or histogram else [])]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> BranchRange:
        """Return the range from the values of `to_json`."""
        jagged, bottom, top, multiplicity, n_finite, n_missing, type_, *rest = values
        moments, histogram = rest or (None, None)
        return cls(
            jagged=jagged,
            bottom=End(*bottom) if bottom else None,
            top=End(*top) if top else None,
            multiplicity=multiplicity,
            n_finite=n_finite,
            n_missing=n_missing,
            type=type_,
            moments=Moments(*map(ExactSum.from_json, moments)) if moments else None,
            histogram=Histogram.from_json(histogram) if histogram else None,
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
        """Return JSON values."""
        return {
            "events": dict(self.events),
            "branches": {name: branch.to_json() for name, branch in self.branches.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BranchSurvey:
        """Return the survey from the values of `to_json`."""
        return cls(
            values["events"],
            {name: BranchRange.from_json(branch) for name, branch in values["branches"].items()},
        )


def total(surveys: list[BranchSurvey]) -> BranchSurvey:
    """Return the survey of all events."""
    return reduce(or_, surveys, BranchSurvey())


def survey_of(
    identity: str,
    arrays: Mapping[str, Values],
    entries: int,
    *,
    moments: Collection[str] = (),
    histograms: Collection[str] = (),
) -> BranchSurvey:
    """Return the survey of one entry range of the file with this identity; each branch (events,) or (events, var).
    moments, histograms: branches of which these are wanted."""
    return BranchSurvey(
        {identity: entries},
        {
            name: range_of(branch, moments=name in moments, histogram=name in histograms)
            for name, branch in arrays.items()
        },
    )


def range_of(branch: Values, *, moments: bool = False, histogram: bool = False) -> BranchRange:
    """Return the range of one branch of numbers, (events,) or (events, var). NaN and infinite values are only counted.

    moments, histogram: whether to compute these, too.
    """
    values, counts = values_and_counts(branch)
    finite = _finite(values)
    exact = values if values.dtype.kind in "iu" else finite
    bottom, top = _ends(exact) if len(finite) else (None, None)
    return BranchRange(
        jagged=counts is not None,
        bottom=bottom,
        top=top,
        multiplicity=int(counts.max(initial=0)) if counts is not None else int(len(values) > 0),
        n_finite=len(finite),
        n_missing=len(values) - len(finite),
        type=values.dtype.name,
        moments=Moments(ExactSum.of(exact), ExactSum.of_squares(exact)) if moments else None,
        histogram=Histogram.of(finite) if histogram else None,
    )


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """Return the finite values. Integers of 8 bytes become float64."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        return values if finite.all() else values[finite]
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values.astype(np.float64) if values.dtype.itemsize == 8 else values


def _ends(finite: NDArray[Any]) -> tuple[End, End]:
    low, high = finite.min(), finite.max()
    at_low, at_high = finite == low, finite == high
    between = finite[~(at_low | at_high)]
    next_low, next_high = (between.min(), between.max()) if len(between) else (high, low)
    return _end(low, at_low, next_low), _end(high, at_high, next_high)


def _end(value: Any, at_value: NDArray[np.bool_], next_value: Any) -> End:
    """Return an end; 0 without a sign."""
    following = None if next_value == value else _number(next_value)
    return End(_number(value), int(np.count_nonzero(at_value)), following)


def _number(value: Any) -> float:
    """Return a value as a Python number; an integer that float64 cannot represent as an integer."""
    if value.dtype.kind in "iu" and abs(int(value)) > LARGEST_EXACT:
        return int(value)
    return float(value) + 0.0


def _joined(one: End | None, other: End | None, outer: Callable[[Iterable[float]], float]) -> End | None:
    return one.joined(other, outer) if one and other else one or other


def _added(one: Any, other: Any) -> Any:
    """Return the sum of two values of one kind, or the one that there is."""
    return other if one is None else one if other is None else one | other


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted({*one, *other})


def _both(name: str, one: Mapping[str, BranchRange], other: Mapping[str, BranchRange]) -> BranchRange:
    if name not in one or name not in other:
        return one[name] if name in one else other[name]
    try:
        return one[name] | other[name]
    except RequestError as error:
        raise RequestError(f"branch '{name}': {error}") from error
