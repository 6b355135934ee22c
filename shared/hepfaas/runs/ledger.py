"""The ledger: whether every event of every file was prepared or scored once, and trained once per epoch. Pure.

It adds up the counts in the stored parts and checkpoints. Event ids (training/split.py) are 64-bit hashes of file and
entry, so equal sums over equal counts mean the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hepfaas.runs.phases import Input
from hepfaas.runs.splits import Split


@dataclass(frozen=True)
class CountedPart:
    """Counts of one stored part. file: identity; rows: of each split; id_sum: of the training rows' event ids."""

    file: str
    entries: tuple[int, int]
    rows: tuple[int, ...]
    id_sum: int = 0


@dataclass(frozen=True)
class TrainedSegment:
    """Counts of one train step. id_sum: of the event ids of its rows."""

    rows: int
    id_sum: int


@dataclass(frozen=True)
class Ledger:
    """Counts of events, and findings: what does not add up."""

    files: int
    ranges: int
    events: int
    training_events: int
    epochs: int
    findings: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Return whether everything adds up."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as JSON values."""
        return {**asdict(self), "findings": list(self.findings), "holds": self.holds}


def ledger(files: Sequence[Input], parts: Sequence[CountedPart], epochs: Sequence[Sequence[TrainedSegment]]) -> Ledger:
    """Return the ledger of the prepared parts and of each complete epoch."""
    findings = [*_untiled(files, parts, "prepared"), *_unsplit(parts)]
    rows = sum(part.rows[Split.TRAINING] for part in parts)
    ids = sum(part.id_sum for part in parts) % 2**64
    for number, segments in enumerate(epochs, 1):
        trained = sum(segment.rows for segment in segments)
        if trained != rows:
            findings.append(f"epoch {number} trained {trained} events, the training sample has {rows}")
        elif sum(segment.id_sum for segment in segments) % 2**64 != ids:
            findings.append(f"epoch {number} trained {rows} events, but not each of the training sample once")
    events = sum(sum(part.rows) for part in parts)
    return Ledger(len(files), len(parts), events, rows, len(epochs), tuple(findings))


def prediction_ledger(files: Sequence[Input], parts: Sequence[CountedPart]) -> Ledger:
    """Return the ledger of the parts of a prediction: each wanted entry must be scored once."""
    findings = [*_untiled(files, parts, "scored"), *_unsplit(parts)]
    return Ledger(len(files), len(parts), sum(sum(part.rows) for part in parts), 0, 0, tuple(findings))


def _untiled(files: Sequence[Input], parts: Sequence[CountedPart], done: str) -> list[str]:
    findings = []
    for file in files:
        first, last = (file.ranges[0][0], file.ranges[-1][1]) if file.ranges else (0, 0)
        at = first
        for start, stop in sorted(part.entries for part in parts if part.file == file.identity):
            if start != at:
                problem = "missing" if start > at else "counted twice"
                findings.append(f"'{file.url}': entries {min(start, at)} to {max(start, at)} are {problem}")
            at = max(at, stop)
        if at != last:
            findings.append(f"'{file.url}': {at - first} of its {file.entries} events are {done}")
    return findings


def _unsplit(parts: Sequence[CountedPart]) -> list[str]:
    return [
        f"part {list(part.entries)} of file {part.file.removeprefix('address-')[:8]} has {sum(part.rows)} rows"
        for part in parts
        if sum(part.rows) != part.entries[1] - part.entries[0]
    ]
