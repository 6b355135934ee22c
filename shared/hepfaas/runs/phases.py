"""What the plans of all kinds of runs are made of: phases, trees of sums, results under their keys. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs.steps import Step, Sum

FAN_OUT = 16
KEPT = 64
"""Trees of steps and chains kept in memory: to name 10,000 steps takes a fifth of a second."""

Results = Callable[[str], Mapping[str, Any] | None]
"""The result under a step's key, None if it is not there."""

Levels = tuple[tuple[Step, ...], ...]
"""The steps of a phase, and above them sums of up to 16 until one is left; of a single step only itself."""


@dataclass(frozen=True)
class Ready:
    """The phase that a run is in. `chain`: steps done and steps in all, where the phase is a chain of steps, and
    `segments` how many of them make an epoch."""

    phase: str
    levels: Levels
    results: Results = field(repr=False, compare=False)
    chain: tuple[int, int] | None = None
    segments: int = 1

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps that can be done now, in any order."""
        missing = self._missing
        return tuple(
            step
            for step in missing.values()
            if not isinstance(step, Sum) or not any(member in missing for member in step.members)
        )

    @property
    def done(self) -> int:
        """Steps of the phase whose results are there, sums not counted."""
        if self.chain:
            return self.chain[0]
        return self.total - sum(1 for step in self._missing.values() if not isinstance(step, Sum))

    @property
    def total(self) -> int:
        """Steps of the phase, sums not counted."""
        return self.chain[1] if self.chain else len(self.levels[0])

    @functools.cached_property
    def _missing(self) -> dict[str, Step]:
        """From the root down: below a sum that is there nothing is looked at."""
        missing: dict[str, Step] = {}
        wanted = {self.levels[-1][0].key}
        for level in reversed(self.levels):
            absent = [step for step in level if step.key in wanted and self.results(step.key) is None]
            wanted = {member for step in absent if isinstance(step, Sum) for member in step.members}
            missing.update((step.key, step) for step in absent)
        return missing


@dataclass(frozen=True)
class Finished:
    """Everything is there: what the run came to.

    model: name and version that a training or a conversion published; None if the gate, whose result is given, refused,
    or if the run makes no model. scores: what a prediction made: its parts.
    """

    model: Mapping[str, Any] | None = None
    gate: Mapping[str, Any] | None = None
    scores: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Input:
    """One file as the run reads it: its entry ranges, cut to what is wanted of it. label: 0 where there is none."""

    url: str
    label: int
    identity: str
    ranges: tuple[tuple[int, int], ...]

    @property
    def entries(self) -> int:
        """Entries read."""
        return sum(stop - start for start, stop in self.ranges)


class Wait(Exception):
    """Unwinds the plan to its caller: these steps come first."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready


@dataclass(frozen=True)
class Found:
    """A result under its key. Values are compared too: the key of an open step tells a place, not what is there."""

    key: str
    values: Mapping[str, Any] = field(hash=False, repr=False)


def tree_of(steps: Sequence[Step]) -> Levels:
    """The steps, and above them sums of up to 16 until one is left: the root, last level's only member."""
    levels: list[tuple[Step, ...]] = [tuple(steps)]
    while len(levels[-1]) > 1 or len(levels) == 1:
        below = levels[-1]
        groups = [below[start : start + FAN_OUT] for start in range(0, len(below), FAN_OUT)]
        levels.append(tuple(Sum(steps[0].kind, tuple(step.key for step in group)) for group in groups))
    return tuple(levels)


def one(step: Step, results: Results) -> Found:
    """The result of a step that is a phase of its own."""
    return phase(step.kind, ((step,),), results)


def phase(name: str, levels: Levels, results: Results) -> Found:
    """The root of a phase, once it is there: one look settles a phase that was done before."""
    root = levels[-1][0].key
    found = results(root)
    if found is None:
        raise Wait(Ready(name, levels, results))
    return Found(root, found)


def cut(ranges: Sequence[Sequence[int]], first: int, limit: int) -> tuple[tuple[int, int], ...]:
    """What of the ranges lies in [first, limit)."""
    return tuple([(low, high) for start, stop in ranges if (low := max(start, first)) < (high := min(stop, limit))])


def check_distinct(urls: Sequence[str], found: Sequence[Mapping[str, Any]]) -> None:
    """Raise RequestError if two of the opened files are the same, or one is made from the other.

    Their fingerprints are compared: large files at two addresses have two identities, also where they are equal.
    """
    seen: dict[str, str] = {}
    for url, opened in zip(urls, found, strict=True):
        if opened["fingerprint"] in seen:
            raise RequestError(f"'{url}' and '{seen[opened['fingerprint']]}' are the same file; list each file once")
        seen[opened["fingerprint"]] = url
