"""The phases of a training's plan on one machine: their steps are done by workers, and their progress is shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hepfaas.errors import MissingError, UnavailableError
from hepfaas.features.spec import FeatureSpec
from hepfaas.local.printouts import Printouts
from hepfaas.local.progress import Progress
from hepfaas.local.tables import cut_flow_rows, table
from hepfaas.local.workers import Workers
from hepfaas.platform.storage import Store
from hepfaas.platform.terminal import visible
from hepfaas.runs import plan, preparation
from hepfaas.runs.phases import Ready, Wait
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.results import Header, PreparedPart, prepared_parts
from hepfaas.runs.skipped import read_files, skipped_files
from hepfaas.runs.splits import HELD_BACK, Split
from hepfaas.runs.steps import Prepare, Score, Step, Survey
from hepfaas.steps import evaluate
from hepfaas.steps.objects import result_if_there

MAX_REPEATS = 3
"""Times that one step is done before the error is that the store loses results."""


class Phases:
    """The phases of one attempt. verbose: 0 to 2, see `Printouts`. on_step: is called with each step that was done, and
    with its seconds."""

    def __init__(
        self,
        store: Store,
        recipe: Recipe,
        attempt: str,
        *,
        workers: Workers,
        progress: Progress,
        verbose: int = 0,
        on_step: Callable[[Step, float], None] = lambda step, seconds: None,
    ) -> None:
        self._store, self._recipe, self._attempt = store, recipe, attempt
        self._workers, self._progress, self._on_step = workers, progress, on_step
        self.print = Printouts(progress.say, verbose)
        self._known: dict[str, dict[str, Any]] = {}
        self._repeats: Counter[str] = Counter()
        self._notes_shown = self._findings_shown = self._flow_shown = self._shapes_shown = False
        self._shown: set[str] = set()
        self._held_back: dict[tuple[str, int | None], int] = {}

    def result(self, key: str) -> dict[str, Any] | None:
        """Return the result of a step, None if there is none."""
        if key not in self._known:
            result = result_if_there(key, self._store)
            if result is None:
                return None
            self._known[key] = result
        return self._known[key]

    def begin(self, coming: Ready) -> None:
        """Show a new phase, with the part of it that is done already. Raises: UnavailableError if its steps were done
        several times and have no result."""
        self._repeats.update(step.key for step in coming.steps)
        if max(self._repeats.values()) > MAX_REPEATS:
            lost = self._repeats.most_common(1)[0][0]
            raise UnavailableError(f"store {self._store.url} loses '{lost}', or objects that it needs")
        if coming.phase == self._progress.phase:
            return
        self._show_findings()
        if coming.phase == "train":
            self._show("classes", plan.class_notes(self._recipe, self._attempt, self.result) or ())
        if self._progress.phase == "train":
            self._show_early_end()
        self.end_phase()
        if coming.phase == "score":
            self._held_back = {
                (part.key, fold): sum(part.rows[split] for split in HELD_BACK)
                for fold in self._recipe.fold_numbers
                for part in self._parts(fold)
            }
        if coming.phase == "train":
            folds = self._recipe.fold_numbers
            rows = sum(part.rows[Split.TRAINING] for fold in folds for part in self._parts(fold))
            total = rows * self._recipe.epochs
            self._workers.warm(evaluate.warm)  # they have nothing else to do until the scores
            self._progress.begin("train", total * coming.done // coming.total, total)
        elif coming.phase in ("survey", "prepare", "score"):
            missing = sum(map(self.events, coming.steps)) + self._events_of_later_folds(coming)
            total = sum(self._held_back.values()) if coming.phase == "score" else self._entries()
            files = {step.file for step in coming.steps if isinstance(step, Survey | Prepare)}
            self._progress.begin(coming.phase, total - missing, total, len(files))
        else:
            self._progress.begin(coming.phase, 0, 0)

    def _events_of_later_folds(self, coming: Ready) -> int:
        """Return the events that later phases of this name score; folds are scored one after the other."""
        fold = max((step.fold or 0 for step in coming.steps if isinstance(step, Score)), default=0)
        later = [events for (_, other), events in self._held_back.items() if (other or 0) > fold]
        return sum(later) if coming.phase == "score" else 0

    def do(self, coming: Ready) -> None:
        """Do the steps of a phase."""
        self._spread(coming.steps)
        if coming.phase == "open" and not self._notes_shown and self._opened():
            self._show_notes()
            read = read_files(self._recipe, self._opened())
            self.print.opened([file.address for file, _ in read], [header for _, header in read])
        if coming.phase == "prepare":
            self.show_cut_flow()

    def end_phase(self) -> None:
        """End the phase that is shown."""
        has_events = bool(self._progress.events_total)
        self._progress.finish()
        if self.print.has_rates and has_events:
            self._print_shapes()
            self.print.memory()

    def _print_shapes(self) -> None:
        """Print once the spec and the shape of the matrix, as soon as they are known."""
        if self._shapes_shown:
            return
        try:
            matrix = preparation.preparation_of(self._recipe, self._attempt, self.result)
        except Wait:
            return
        self._shapes_shown = True
        self.print.spec(FeatureSpec.from_json(json.loads(self._store.get(matrix.spec.values["columns"]))))
        self.print.matrix(preparation.parts_in(matrix.prepared), matrix.spec.values["n_features"])

    def remake(self, missing: MissingError) -> None:
        """Repeat the step that makes a deleted object. Raises: UnavailableError if no step makes it."""
        self._known.pop(missing.key, None)
        maker = plan.maker(self._recipe, self._attempt, self.result, missing.key)
        if maker is not None:
            self._spread([maker])
        elif missing.key.startswith("blobs/"):
            raise UnavailableError(f"{missing}, and no step of this run makes it") from missing

    def show_cut_flow(self) -> None:
        """Show once how many events are left after each cut, when all events are prepared."""
        flow = plan.flow_of(self._recipe, self._attempt, self.result)
        if flow and not self._flow_shown:
            self._flow_shown = True
            for line in table(cut_flow_rows(flow), "").splitlines():
                self._progress.say(line)

    def events(self, step: Step) -> int:
        """Return the number of events that a step reads."""
        return self._held_back[step.part, step.fold] if isinstance(step, Score) else step.n_events

    def _spread(self, steps: Sequence[Step]) -> None:
        steps_left = Counter(step.file for step in steps if isinstance(step, Survey | Prepare))
        for step, outcome in self._workers.perform(steps):
            if isinstance(outcome, MissingError):
                self.remake(outcome)
                continue
            self._on_step(step, outcome)
            self.print.step(step, outcome, self.events(step), self._size_bytes(step))
            files = 0
            if isinstance(step, Survey | Prepare):
                steps_left[step.file] -= 1
                files = int(steps_left[step.file] == 0)
            self._progress.advance(self.events(step), self._size_bytes(step), files)

    def _show_findings(self) -> None:
        """Show once what the values of the branches tell, as soon as it is known."""
        notes = None if self._findings_shown else plan.findings(self._recipe, self._attempt, self.result)
        if notes is not None:
            self._findings_shown = True
            for note in notes:
                self._progress.say(f"note: {note}")

    def show_network(self) -> None:
        """Show once the notes on the network, after its first train step."""
        if "network" not in self._shown:
            self._show("network", plan.network_notes(self._recipe, self._attempt, self.result))

    def _show(self, kind: str, notes: Iterable[str]) -> None:
        """Show the notes of a kind once."""
        for note in notes if kind not in self._shown else ():
            self._progress.say(f"note: {visible(note)}")
        self._shown.add(kind)

    def _show_early_end(self) -> None:
        trained, most = plan.n_epochs(self._recipe, self._attempt, self.result), self._recipe.epochs
        if trained is not None and min(trained) < most:
            each = "trainings of the folds" if len(trained) > 1 else "training"
            numbers = ", ".join(map(str, trained))
            self._progress.say(f"note: the {each} stopped after {numbers} of at most {most} epochs")

    def _show_notes(self) -> None:
        """Show once, for all files together, which parts of them are not used as the user may expect."""
        self._notes_shown = True
        opened = self._opened()
        left_out = {f"{name} ({why})" for file in opened for name, why in file.left_out}
        notes = {note for file in opened for note in file.notes} | set(plan.empty_files(self._recipe, opened))
        for one in skipped_files(self._recipe, opened):
            self._progress.say(f"note: file '{one.file}' is skipped: {one.reason}")
        if left_out:
            notes.add(f"branches without numbers are left out: {', '.join(sorted(left_out))}")
        twice = sum(file.baskets_read_twice for file in opened)
        if twice:
            notes.add(f"{twice} baskets are read twice: branches of these files share no boundaries")
        for note in sorted(notes):
            self._progress.say(f"note: {note}")

    def _opened(self) -> list[Header]:
        return preparation.headers(self._recipe, self._attempt, self.result)

    def _entries(self) -> int:
        return sum(file.entries for file in preparation.inputs(self._recipe, self._opened()))

    def _parts(self, fold: int | None) -> list[PreparedPart]:
        """Return the prepared parts as the network of a fold sees them, from the known result that lists most of them:
        the root."""
        known = [result for result in self._known.values() if "parts" in result]
        return prepared_parts(max(known, key=lambda result: len(result["parts"]), default={"parts": []}), fold)

    def _size_bytes(self, step: Step) -> float:
        """Return the uncompressed bytes that a step reads from its file."""
        if not isinstance(step, Survey | Prepare):
            return 0
        for opened in self._opened():
            if opened.identity == step.file and opened.entries:
                return opened.read_bytes * self.events(step) / opened.entries
        return 0
