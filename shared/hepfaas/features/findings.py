"""Warnings from a survey before training: undeclared missing values, empty branches, constant branches. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hepfaas.features.branches import BranchRange, End

LEAST_SHARE = 0.005
"""Minimum share of the finite values of a branch for a value to count as a sentinel."""

LEAST_COUNT = 10
"""Occurrences of a sentinel: the largest of a few values may be far from the others."""

GAP, GAP_OF_NINES = 5.0, 0.1
"""Distance of a sentinel from the next value, in ranges of all other values; of one whose digits are all 9."""

_NINES = {float("9" * digits) for digits in range(2, 8)}

_MOST_NAMES = 10
_LARGEST = float(np.finfo(np.float32).max)

NO_SOURCES: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True)
class Sentinel:
    """A value at one end of a branch that probably stands for "no value". share: of all finite values."""

    value: float
    share: float


def sentinels(branch: BranchRange) -> list[Sentinel]:
    """Return the values that are far from all others and in many entries: at least 0.5 % of the values and 10 of them,
    with a gap to the next value of more than 5 times the range of all other values, of which there are at least three.
    For a value like -99 or 9999 a gap of a tenth of that range is enough, and there may be fewer other values.

    Of two such values on one side only the outer one is seen; the other one is, as soon as the first is declared.
    """
    if branch.bottom is None or branch.top is None:
        return []
    ends = (branch.bottom, branch.top), (branch.top, branch.bottom)
    return [sentinel for end, other in ends if (sentinel := _sentinel(end, other, branch.n_finite))]


def findings(branches: Mapping[str, BranchRange], sources: Mapping[str, Sequence[str]] = NO_SOURCES) -> list[str]:
    """Return notes on branches, in their order; a note names all branches that it is about.

    sources: the branches of a file that each new branch is computed from: their values are declared, not its own.
    """
    return [*_sentinel_notes(branches, sources), *_empty_notes(branches), *_constant_notes(branches)]


def _sentinel(end: End, other: End, n_finite: int) -> Sentinel | None:
    if end.next is None or end.count < max(LEAST_COUNT, LEAST_SHARE * n_finite):
        return None
    gap, rest = abs(end.value - end.next), abs(end.next - other.value)
    has_nines, has_few = abs(end.value) in _NINES, end.next in (other.value, other.next)
    is_far = gap > (GAP_OF_NINES if has_nines else GAP) * rest and (has_nines or not has_few)
    return Sentinel(end.value, end.count / n_finite) if is_far else None


def _sentinel_notes(branches: Mapping[str, BranchRange], sources: Mapping[str, Sequence[str]]) -> list[str]:
    shares: dict[float, dict[str, float]] = {}
    for name, branch in branches.items():
        for sentinel in sentinels(branch):
            shares.setdefault(sentinel.value, {})[name] = sentinel.share
    return [
        f"{_number(value)} is far from all other values of {_listed(_with_share(of_branch))}; if it stands for a "
        f"missing value, declare it{_of_sources(of_branch, sources)}: "
        f'"missing": {_declared(value, _declarable(of_branch, sources))}'
        for value, of_branch in shares.items()
    ]


def _declarable(names: Iterable[str], sources: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names with those of the sources in the place of new branches, each once."""
    return list(dict.fromkeys(source for name in names for source in sources.get(name) or (name,)))


def _of_sources(names: Iterable[str], sources: Mapping[str, Sequence[str]]) -> str:
    computed = [name for name in names if sources.get(name)]
    return f" for the branches that {_listed(computed)} is computed from" if computed else ""


def _empty_notes(branches: Mapping[str, BranchRange]) -> list[str]:
    no_column = [name for name, branch in branches.items() if branch.jagged and not branch.multiplicity]
    no_number = [name for name, branch in branches.items() if branch.bottom is None and name not in no_column]
    notes = []
    if no_number:
        notes.append(
            f"no event has a finite value of {_listed(no_number)}, so the model learns nothing from it; leave it out: "
            f'"exclude_branches": {_json(no_number)}'
        )
    if no_column:
        notes.append(f"no event has a value of {_listed(no_column)}, so it is no feature")
    return notes


def _constant_notes(branches: Mapping[str, BranchRange]) -> list[str]:
    constant = {
        name: branch.low
        for name, branch in branches.items()
        if branch.low is not None and branch.low == branch.high and not branch.n_missing
    }
    if not constant:
        return []
    values = [f"{name} ({_number(value)})" for name, value in constant.items()]
    return [
        f"all values are equal in {_listed(values)}, so they say little about an event; leave them out: "
        f'"exclude_branches": {_json(list(constant))}'
    ]


def _with_share(shares: Mapping[str, float]) -> list[str]:
    return [f"{name} ({share * 100:.3g} % of its values)" for name, share in shares.items()]


def _declared(value: float, names: Sequence[str]) -> str:
    pairs = [f"{json.dumps(name)}: {_number(value)}" for name in names[:_MOST_NAMES]]
    return f"{{{', '.join(pairs)}{_more(names)}}}"


def _json(names: Sequence[str]) -> str:
    return f"[{', '.join(map(json.dumps, names[:_MOST_NAMES]))}{_more(names)}]"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return ", …" if len(names) > _MOST_NAMES else ""


def _number(value: float) -> str:
    """Return the shortest text of a number: the digits of a float32 if it is one, since most branches are."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    is_single = abs(value) <= _LARGEST and float(np.float32(value)) == value
    return str(np.float32(value)) if is_single else repr(value)
