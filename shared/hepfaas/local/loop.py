"""A run on one machine: does the next steps of its plan until the run is completed or fails."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.errors import MissingError, RequestError
from hepfaas.learner.step_log import StepLog
from hepfaas.local.phases import Phases
from hepfaas.local.progress import Progress
from hepfaas.local.workers import Workers, perform
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store
from hepfaas.runs import plan
from hepfaas.runs.phases import Finished, Ready
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.steps import Evaluate, Step, Train
from hepfaas.steps.learning import Learners

MAIN_PHASES = ("train", "export", "evaluate")
"""Phases whose steps are done in this process: it has the learner, and spreads parts of `evaluate`."""


class Loop:
    """A run on one machine. Its state is in the store: after a kill at any time, the next loop continues the run."""

    def __init__(self, store: Store, run: str, workers: int, progress: Progress, verbose: int = 0) -> None:
        self._store, self._run, self._progress = store, run, progress
        recipe = records.request_of(store, run).recipe
        if not isinstance(recipe, Recipe):
            raise RequestError(f"run '{run}' is a {recipe.kind}; hepfaas train continues training runs alone")
        self._recipe = recipe
        self._attempt = records.attempt_of(store, run)
        self._name = f"{run}/{self._attempt}"
        self._printed = StepLog()
        self._workers = Workers(workers, store.url)
        self._phases = Phases(
            store, recipe, self._name, workers=self._workers, progress=progress, verbose=verbose, on_step=self._log
        )

    def finish(self) -> Mapping[str, Any]:
        """Do the remaining steps of the run and return the published model.

        Raises: RequestError if the run fails, which ends this attempt; UnavailableError if something outside does not
        answer, after which the next loop continues the attempt.
        """
        try:
            model = self._model()
        except RequestError as error:
            records.end(self._store, self._run, self._attempt, records.End("failed", time.time(), str(error)))
            raise
        name = f"{model['name']}/{model['version']}"
        records.end(self._store, self._run, self._attempt, records.End("completed", time.time(), model=name))
        return model

    def _model(self) -> Mapping[str, Any]:
        with self._progress, self._workers, Learners(self._printed.append) as learners:
            if not records.was_completed(self._store, self._recipe):
                learners.start()
            while isinstance(coming := self._next(), Ready):
                self._phases.begin(coming)
                if coming.phase in MAIN_PHASES:
                    self._do(coming.steps, learners)
                else:
                    self._phases.do(coming)
            self._phases.show_cut_flow()
            self._phases.end_phase()
        assert coming.model is not None  # a folder has no gate
        return coming.model

    def _next(self) -> Ready | Finished:
        return plan.next_steps(self._recipe, self._name, self._phases.result)

    def _do(self, steps: Sequence[Step], learners: Learners) -> None:
        for step in steps:
            start = time.monotonic()
            tools: dict[str, Any] = {"learners": learners}
            if isinstance(step, Train):
                tools["on_rows"] = self._progress.advance
            if isinstance(step, Evaluate):
                tools = {"spread": self._workers.spread}
            try:
                self._log(step, perform(step, self._store, **tools))
                if isinstance(step, Train):
                    self._phases.print.trained(step, self._recipe.epochs, self._phases.result(step.key) or {})
            except MissingError as error:
                self._phases.remake(error)
            except RequestError as error:
                self._log(step, time.monotonic() - start, str(error))
                raise
            if isinstance(step, Train):
                self._phases.show_network()

    def _log(self, step: Step, seconds: float, error: str = "") -> None:
        lines, events = self._printed.take(), self._phases.events(step)
        self._phases.print.lines(lines)
        entry = records.Entry(time.time(), step.kind, step.key, seconds, events, lines, error)
        records.log(self._store, self._run, entry)
