"""Shared by the steps of the learner: one warm learner process, and the rows that it trains on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.learner.converter import Converter, ConverterSettings
from hepfaas.learner.learner import UNLIMITED, Learner, LearnerLimits, LearnerProcess, LearnerSettings
from hepfaas.platform.storage import Store
from hepfaas.runs.results import PreparedPart
from hepfaas.runs.splits import HELD_BACK, Split
from hepfaas.runs.steps import Learning
from hepfaas.steps.objects import code_files, open_part
from hepfaas.training import checkpoint
from hepfaas.training.segments import Rows, SplitPart, blocks_of, first_rows, seed_of

FRESH = "fresh"
"""Value of `holds` of a learner after `make`: a network that has not been trained."""


class Learners:
    """Keeps the learner process of the last step warm: the next step of the same network starts in milliseconds."""

    def __init__(self, on_log: Callable[[str], None], limits: LearnerLimits = UNLIMITED) -> None:
        self.on_log, self._limits = on_log, limits
        self._settings: LearnerSettings | None = None
        self._learner: Learner | None = None
        self._started: LearnerProcess | None = None
        self._owner = ""

    def __enter__(self) -> Learners:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start a process for the next learner, which imports the framework until the first step needs it."""
        if self._started is None and self._learner is None:
            self._started = LearnerProcess(self._limits)

    def close(self) -> None:
        """End the learner process."""
        self._end_learner()
        if self._started:
            self._started.close()
        self._started = None

    def _taken(self) -> LearnerProcess | None:
        """Return the process that `start` started, once, if it still runs."""
        process, self._started = self._started, None
        if process and process.ended:
            process.close()
            return None
        return process

    def _end_learner(self) -> None:
        if self._learner:
            self._learner.close()
        self._learner = self._settings = None

    def holding(self, before: str | None, step: Learning, store: Store) -> Learner:
        """Return a learner whose network has the weights of the checkpoint `before`; None: fresh weights."""
        if store.url != self._owner:
            if self._learner:
                self._learner.mute()
            self._end_learner()  # code of two owners never shares a process
            self._owner = store.url
        learner = self._warm(_settings(step, store))
        if before is None and learner.holds != FRESH:
            learner.make()
            learner.holds = FRESH
        elif before is not None and learner.holds != before:
            learner.load(checkpoint.arrays_of(store.get(before)))
            learner.holds = before
        return learner

    def converter(self, settings: ConverterSettings) -> Converter:
        """Return a converter for one step. Ends the warm learner, since two processes need twice the memory."""
        self.close()
        return Converter(settings, self.on_log, self._limits)

    def _warm(self, settings: LearnerSettings) -> Learner:
        if self._learner is None or self._learner.closed or settings != self._settings:
            self._end_learner()
            self._learner = Learner(settings, self.on_log, limits=self._limits, started=self._taken())
            self._settings = settings
            for line in self._learner.make().summary.splitlines():
                self.on_log(line)
            self._learner.holds = FRESH
        return self._learner


def parts_of(split: Split, prepared: Sequence[PreparedPart]) -> list[SplitPart]:
    """Return the record batches of one split in the prepared parts."""
    return [SplitPart(part.key, part.label, part.batches(split)) for part in prepared if part.rows[split]]


def held_back(step: Learning, prepared: Sequence[PreparedPart], rows: int, store: Store) -> NDArray[np.float32]:
    """Return the features of validation and test events, at most `rows`."""
    parts = [part for split in HELD_BACK for part in parts_of(split, prepared)]
    blocks = first_rows(blocks_of(parts, seed_of(step.seed, "check")), rows)
    fetch = fetching(prepared, store)
    features = [fetch(batch).features[start:stop] for block in blocks for batch, start, stop in block]
    return np.concatenate([np.zeros((0, step.n_features), dtype=np.float32), *features])


def fetching(prepared: Sequence[PreparedPart], store: Store) -> Callable[[str], Rows]:
    """Return a function that reads a record batch by its name, '<part>/<number>'; each part's index is read once."""
    sizes = {part.key: part.size_bytes for part in prepared}
    opened: dict[str, Any] = {}

    def fetch(batch: str) -> Rows:
        key, number = batch.rsplit("/", 1)
        if key not in opened:
            opened[key] = open_part(key, sizes[key], store)
        rows: Rows = opened[key].rows(int(number))
        return rows

    return fetch


def _settings(step: Learning, store: Store) -> LearnerSettings:
    return LearnerSettings(
        code=code_files(step.code, store),
        module=step.module,
        n_features=step.n_features,
        labels=step.labels,
        batch_size=step.batch_size,
        seed=step.seed,
        threads=step.threads,
        xla=step.xla,
        weighted=step.weighted,
        class_weight=step.class_weight,
        targets=step.targets,
        branches=tuple(json.loads(store.get(step.spec))["branches"]) if step.spec else (),
    )
