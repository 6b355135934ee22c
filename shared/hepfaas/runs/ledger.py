"""The ledger: whether every event of every file was prepared or scored once, and trained once per epoch. Pure.

It adds up the counts in the stored parts and checkpoints. Event ids (training/split.py) are 64-bit hashes of file and
entry, so equal sums over equal counts mean the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from hepfaas.runs.phases import Input
from hepfaas.runs.skipped import Skipped
from hepfaas.runs.splits import Split


@dataclass(frozen=True)
class CountedPart:
    """Counts of one stored part. file: identity; rows: of each split; id_sum: of the training rows' event ids;
    rejected: events by the cut that rejects them."""

    file: str
    entries: tuple[int, int]
    rows: tuple[int, ...]
    id_sum: int = 0
    rejected: tuple[int, ...] = ()

    @property
    def events(self) -> int:
        """Events of the part, selected or rejected."""
        return sum(self.rows) + sum(self.rejected)


@dataclass(frozen=True)
class TrainedSegment:
    """Counts of one train step. id_sum: of the event ids of its rows."""

    rows: int
    id_sum: int


class Training(NamedTuple):
    """The parts as one network sees them, and the segments of each of its epochs. passes: over each chunk, 0 without
    chunks."""

    parts: Sequence[CountedPart]
    epochs: Sequence[Sequence[TrainedSegment]]
    passes: int = 0


@dataclass(frozen=True)
class Ledger:
    """Counts of events, and findings: what does not add up. rejected: events by the cut that rejects them.
    skipped: files that were left out.
    training_events: of one epoch; with folds those of all networks together, and `epochs` those of all together, too.
    """

    files: int
    ranges: int
    events: int
    rejected: tuple[int, ...]
    training_events: int
    epochs: int
    findings: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def holds(self) -> bool:
        """Return whether everything adds up."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as JSON values."""
        lists: dict[str, Any] = {"rejected": list(self.rejected), "findings": list(self.findings)}
        lists["skipped"] = [one.to_json() for one in self.skipped]
        return {**asdict(self), **lists, "holds": self.holds}


def ledger(files: Sequence[Input], trainings: Sequence[Training]) -> Ledger:
    """Return the ledger of the prepared parts and of each complete epoch, of each fold or of the only training."""
    parts = trainings[0].parts
    findings = [*_untiled(files, parts, "prepared"), *_unsplit(parts)]
    for fold, training in enumerate(trainings, 1):
        of_fold = f"fold {fold}: " if len(trainings) > 1 else ""
        untrained = _untrained_chunks(training) if training.passes else _untrained(training.parts, training.epochs)
        findings += [f"{of_fold}{finding}" for finding in untrained]
    rows = sum(_training_events(training.parts) for training in trainings)
    tested = sum(part.rows[Split.TEST] for training in trainings for part in training.parts)
    if len(trainings) > 1 and tested != sum(sum(part.rows) for part in parts):
        findings.append("not every event is a test event of one fold")
    n_epochs = sum(len(training.epochs) for training in trainings)
    return _ledger(files, parts, findings, training_events=rows, epochs=n_epochs)


def _untrained(parts: Sequence[CountedPart], epochs: Sequence[Sequence[TrainedSegment]]) -> list[str]:
    findings = []
    rows, ids = _training_events(parts), _ids(parts)
    for number, segments in enumerate(epochs, 1):
        trained = sum(segment.rows for segment in segments)
        if trained != rows:
            findings.append(f"epoch {number} trained {trained} events, the training sample has {rows}")
        elif sum(segment.id_sum for segment in segments) % 2**64 != ids:
            findings.append(f"epoch {number} trained {rows} events, but not each of the training sample once")
    return findings


def _untrained_chunks(training: Training) -> list[str]:
    """Return what does not add up in a training by chunks; none before its last round, as each has only some chunks."""
    parts, rounds, passes = training
    if len(rounds) < passes:
        return []
    segments = [segment for one in rounds for segment in one]
    trained, wanted = sum(segment.rows for segment in segments), passes * _training_events(parts)
    if trained != wanted:
        return [f"all rounds trained {trained} events, and {passes} passes over the training sample are {wanted}"]
    if sum(segment.id_sum for segment in segments) % 2**64 != passes * _ids(parts) % 2**64:
        return [f"all rounds trained {wanted} events, but not each of the training sample {passes} times"]
    return []


def _ids(parts: Sequence[CountedPart]) -> int:
    return sum(part.id_sum for part in parts) % 2**64


def _training_events(parts: Sequence[CountedPart]) -> int:
    return sum(part.rows[Split.TRAINING] for part in parts)


def prediction_ledger(files: Sequence[Input], parts: Sequence[CountedPart]) -> Ledger:
    """Return the ledger of the parts of a prediction: each wanted entry must be scored once."""
    findings = [*_untiled(files, parts, "scored"), *_unsplit(parts)]
    return _ledger(files, parts, findings, training_events=0, epochs=0)


def _ledger(
    files: Sequence[Input], parts: Sequence[CountedPart], findings: Sequence[str], *, training_events: int, epochs: int
) -> Ledger:
    return Ledger(
        files=len(files),
        ranges=len(parts),
        events=sum(part.events for part in parts),
        rejected=tuple(map(sum, zip(*(part.rejected for part in parts), strict=True))),
        training_events=training_events,
        epochs=epochs,
        findings=tuple(findings),
    )


def _untiled(files: Sequence[Input], parts: Sequence[CountedPart], done: str) -> list[str]:
    findings = []
    for file in files:
        first, last = (file.ranges[0][0], file.ranges[-1][1]) if file.ranges else (0, 0)
        at = first
        for start, stop in sorted(part.entries for part in parts if part.file == file.identity):
            if start != at:
                problem = "missing" if start > at else "counted twice"
                findings.append(f"'{file.name}': entries {min(start, at)} to {max(start, at)} are {problem}")
            at = max(at, stop)
        if at != last:
            findings.append(f"'{file.name}': {at - first} of its {file.entries} events are {done}")
    return findings


def _unsplit(parts: Sequence[CountedPart]) -> list[str]:
    return [
        f"part {list(part.entries)} of file {part.file.removeprefix('address-')[:8]} has {part.events} events"
        for part in parts
        if part.events != part.entries[1] - part.entries[0]
    ]
