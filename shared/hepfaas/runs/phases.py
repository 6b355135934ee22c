"""Parts of every kind of plan: phases, trees of sums, results under their keys. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs.identities import file_of
from hepfaas.runs.results import Header
from hepfaas.runs.steps import Step, Sum

FAN_OUT = 16
KEPT = 64
"""Trees of steps and chains kept in memory: hashing 10,000 steps takes a fifth of a second."""

Results = Callable[[str], Mapping[str, Any] | None]
"""Gives the result under a step's key, None if there is none."""

Levels = tuple[tuple[Step, ...], ...]
"""The steps of a phase, and above them sums of up to 16 until one is left; a single step has no sum."""


@dataclass(frozen=True)
class Ready:
    """The phase that a run is in.

    chain: steps done and steps in total, where the phase is a chain of steps. segments: steps of one epoch. by_epoch:
    whether the results of an epoch decide how the chain goes on, or whether it ends. fold: that the chain trains.
    others: chains of other folds, whose steps can be done at the same time. whole: steps of all folds, as in `chain`.
    """

    phase: str
    levels: Levels
    results: Results = field(repr=False, compare=False)
    chain: tuple[int, int] | None = None
    segments: int = 1
    by_epoch: bool = False
    fold: int | None = None
    others: tuple[Ready, ...] = ()
    whole: tuple[int, int] | None = None

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """Steps that can be done now, in any order."""
        missing = self._missing
        return tuple(
            step
            for step in missing.values()
            if not isinstance(step, Sum) or not any(member in missing for member in step.members)
        )

    @property
    def done(self) -> int:
        """Steps of the phase with a result, without sums."""
        if self.chain:
            return (self.whole or self.chain)[0]
        return self.total - sum(1 for step in self._missing.values() if not isinstance(step, Sum))

    @property
    def total(self) -> int:
        """Steps of the phase, without sums."""
        return (self.whole or self.chain)[1] if self.chain else len(self.levels[0])

    @functools.cached_property
    def _missing(self) -> dict[str, Step]:
        """From the root down; nothing is looked up below a sum that exists."""
        missing: dict[str, Step] = {}
        wanted = {self.levels[-1][0].key}
        for level in reversed(self.levels):
            absent = [step for step in level if step.key in wanted and self.results(step.key) is None]
            wanted = {member for step in absent if isinstance(step, Sum) for member in step.members}
            missing.update((step.key, step) for step in absent)
        return missing


@dataclass(frozen=True)
class Finished:
    """Outcome of a run with nothing left to do.

    model: name and version that a training or a conversion published, None if its gate refused or the run makes no
    model. gate: result of the gate. scores: the parts of a prediction.
    """

    model: Mapping[str, Any] | None = None
    gate: Mapping[str, Any] | None = None
    scores: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Input:
    """One file as the run reads it: its entry ranges, cut to the wanted entries. label: 0 where there is none.
    identity: of the events."""

    url: str
    label: int
    identity: str
    ranges: tuple[tuple[int, int], ...]
    tree: str

    @property
    def name(self) -> str:
        """The address for messages, with the tree if that is not the usual one of the run."""
        return self.url if file_of(self.identity) == self.identity else f"{self.url}:{self.tree}"

    @property
    def entries(self) -> int:
        """Entries read."""
        return sum(stop - start for start, stop in self.ranges)


class Wait(Exception):
    """Raised by a plan whose next results do not exist: these steps come first."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready


@dataclass(frozen=True)
class Found:
    """A result under its key. Values are compared too: the key of an open step names a URL, not its content."""

    key: str
    values: Mapping[str, Any] = field(hash=False, repr=False)


def tree_of(steps: Sequence[Step]) -> Levels:
    """Return the steps, and above them sums of up to 16 until one is left: the root, only member of the last level."""
    levels: list[tuple[Step, ...]] = [tuple(steps)]
    while len(levels[-1]) > 1 or len(levels) == 1:
        below = levels[-1]
        groups = [below[start : start + FAN_OUT] for start in range(0, len(below), FAN_OUT)]
        levels.append(tuple(Sum(steps[0].kind, tuple(step.key for step in group)) for group in groups))
    return tuple(levels)


def one(step: Step, results: Results) -> Found:
    """Return the result of a step that is a phase of its own. Raises: Wait."""
    return phase(step.kind, ((step,),), results)


def phase(name: str, levels: Levels, results: Results) -> Found:
    """Return the root of a phase; a phase that was done before takes one look-up. Raises: Wait."""
    root = levels[-1][0].key
    values = results(root)
    if values is None:
        raise Wait(Ready(name, levels, results))
    return Found(root, values)


def cut(ranges: Sequence[Sequence[int]], first: int, limit: int) -> tuple[tuple[int, int], ...]:
    """Return the parts of the ranges that lie in [first, limit)."""
    return tuple([(low, high) for start, stop in ranges if (low := max(start, first)) < (high := min(stop, limit))])


def check_distinct(names: Sequence[str], headers: Sequence[Header]) -> None:
    """Raise RequestError if two of the opened files are the same, or one is made from the other, and their trees are.

    Fingerprints are compared: large files at two addresses have two identities even if their contents are equal.
    """
    seen: dict[tuple[str, str], str] = {}
    for name, header in zip(names, headers, strict=True):
        content = header.fingerprint, header.tree
        if content in seen:
            raise RequestError(f"'{name}' and '{seen[content]}' are the same file; list each file once")
        seen[content] = name
