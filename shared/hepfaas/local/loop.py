"""The embedded loop: asks the plan what comes next and does it, until the run is finished or fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.errors import MissingError, RequestError, UnavailableError
from hepfaas.learner.step_log import StepLog
from hepfaas.local.progress import Progress
from hepfaas.local.workers import Workers, perform
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store
from hepfaas.runs import plan
from hepfaas.runs.phases import Finished, Ready
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.results import Header
from hepfaas.runs.splits import HELD_BACK, Split
from hepfaas.runs.steps import Prepare, Score, Step, Survey, Train
from hepfaas.steps.learning import Learners
from hepfaas.steps.objects import result_if_there

LEARNER_KINDS = ("train", "export")

MOST_ASKED = 3
"""How often one step is asked for in one run of the loop, before its store is blamed."""


class Loop:
    """One run on one machine. Its state is in the store: killed at any moment, the next loop goes on."""

    def __init__(self, store: Store, run: str, workers: int, progress: Progress) -> None:
        self._store, self._run, self._progress = store, run, progress
        recipe = records.request_of(store, run).recipe
        if not isinstance(recipe, Recipe):
            raise RequestError(f"run '{run}' is a {recipe.kind}; on one machine only trainings are done as runs")
        self._recipe = recipe
        self._attempt = records.attempt_of(store, run)
        self._name = f"{run}/{self._attempt}"
        self._known: dict[str, dict[str, Any]] = {}
        self._printed = StepLog()
        self._told_opened = False
        self._held_back: dict[str, int] = {}
        self._workers = Workers(workers, store.url)

    def finish(self) -> Mapping[str, Any]:
        """Does what is left of the run and gives the published model.

        Raises: RequestError when the run fails, which ends this attempt; UnavailableError when something outside
        stays away: the attempt stays open, and the same command goes on with it.
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
        asked: Counter[str] = Counter()
        with self._progress, self._workers, Learners(self._printed.append) as learners:
            while isinstance(found := self._next(), Ready):
                asked.update(step.key for step in found.steps)
                if max(asked.values()) > MOST_ASKED:
                    lost = asked.most_common(1)[0][0]
                    raise UnavailableError(f"store {self._store.url} does not keep '{lost}', or what it needs")
                self._begin(found)
                if found.phase in LEARNER_KINDS:
                    self._learn(found.steps, learners)
                else:
                    self._spread(found.steps)
                    if found.phase == "open" and not self._told_opened and self._opened():
                        self._tell_opened()
            self._progress.finish()
        assert found.model is not None  # a folder asks for no gate
        return found.model

    def _next(self) -> Ready | Finished:
        return plan.next_steps(self._recipe, self._name, self._result)

    def _result(self, key: str) -> dict[str, Any] | None:
        if key not in self._known:
            found = result_if_there(key, self._store)
            if found is None:
                return None
            self._known[key] = found
        return self._known[key]

    def _spread(self, steps: Sequence[Step]) -> None:
        left_of_file = Counter(step.file for step in steps if isinstance(step, Survey | Prepare))
        for step, outcome in self._workers.perform(steps):
            if isinstance(outcome, MissingError):
                self._remake(outcome)
                continue
            self._log(step, outcome)
            ended = 0
            if isinstance(step, Survey | Prepare):
                left_of_file[step.file] -= 1
                ended = int(left_of_file[step.file] == 0)
            self._progress.advance(self._events(step), self._size_bytes(step), ended)

    def _learn(self, steps: Sequence[Step], learners: Learners) -> None:
        for step in steps:
            began = time.monotonic()
            tools: dict[str, Any] = {"learners": learners}
            if isinstance(step, Train):
                tools["on_rows"] = self._progress.advance
            try:
                self._log(step, perform(step, self._store, **tools))
            except MissingError as error:
                self._remake(error)
            except RequestError as error:
                self._log(step, time.monotonic() - began, str(error))
                raise

    def _remake(self, missing: MissingError) -> None:
        """Somebody deleted what a step needs: it is made again. Raises: UnavailableError if nobody makes it."""
        self._known.pop(missing.key, None)
        maker = plan.maker(self._recipe, self._name, self._result, missing.key)
        if maker is not None:
            self._spread([maker])
        elif missing.key.startswith("blobs/"):
            raise UnavailableError(f"{missing}, and no step of this run makes it") from missing

    def _log(self, step: Step, seconds: float, error: str = "") -> None:
        lines = self._printed.take()
        entry = records.Entry(time.time(), step.kind, step.key, seconds, self._events(step), lines, error)
        records.log(self._store, self._run, entry)

    def _begin(self, found: Ready) -> None:
        """Shows the phase, if it is a new one, with what of it is there already."""
        if found.phase == self._progress.phase:
            return
        if found.phase == "score":
            self._held_back = {key: sum(part["rows"][1:]) for key, part in self._parts().items()}
        if found.phase == "train":
            total = self._rows(Split.TRAINING) * self._recipe.epochs
            self._progress.begin("train", total * found.done // found.total, total)
        elif found.phase in ("survey", "prepare", "score"):
            missing = sum(map(self._events, found.steps))
            total = sum(map(self._rows, HELD_BACK)) if found.phase == "score" else self._entries()
            files = {step.file for step in found.steps if isinstance(step, Survey | Prepare)}
            self._progress.begin(found.phase, total - missing, total, len(files))
        else:
            self._progress.begin(found.phase, 0, 0)

    def _tell_opened(self) -> None:
        """Says once, for all files, what of them is not used as the user may expect."""
        self._told_opened = True
        opened = self._opened()
        left_out = {f"{name} ({why})" for file in opened for name, why in file.left_out}
        notes = {note for file in opened for note in file.notes}
        if left_out:
            notes.add(f"branches that are no numbers are left out: {', '.join(sorted(left_out))}")
        twice = sum(file.baskets_read_twice for file in opened)
        if twice:
            notes.add(f"{twice} baskets are read twice: branches of these files share no boundaries")
        for note in sorted(notes):
            self._progress.say(f"note: {note}")

    def _opened(self) -> list[Header]:
        return plan.headers(self._recipe, self._name, self._result)

    def _entries(self) -> int:
        return sum(file.entries for file in plan.inputs(self._recipe, self._opened()))

    def _rows(self, split: Split) -> int:
        return sum(part["rows"][split] for part in self._parts().values())

    def _parts(self) -> dict[str, Mapping[str, Any]]:
        """The prepared parts by their keys: in the known result that lists most of them, the root."""
        lists = [result["parts"] for result in self._known.values() if "parts" in result]
        return {part["key"]: part for part in max(lists, key=len, default=[])}

    def _events(self, step: Step) -> int:
        """Events that a step looks at."""
        return self._held_back[step.part] if isinstance(step, Score) else step.n_events

    def _size_bytes(self, step: Step) -> float:
        """Uncompressed bytes that a step reads from its file."""
        if not isinstance(step, Survey | Prepare):
            return 0
        for opened in self._opened():
            if opened.identity == step.file and opened.entries:
                return opened.read_bytes * self._events(step) / opened.entries
        return 0
