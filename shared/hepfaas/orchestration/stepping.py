"""Handle an event of a step function: perform the step, store its result, add up, report. Stateless."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from hepfaas.datasets.reading import Reading, Readings
from hepfaas.errors import MissingError, RequestError, UnavailableError, public_text
from hepfaas.learner.step_log import StepLog
from hepfaas.orchestration import events, records
from hepfaas.orchestration.events import Task
from hepfaas.platform import backends
from hepfaas.platform.cloud_events import CloudEvent, Sender
from hepfaas.platform.http import Handler, takes_events
from hepfaas.platform.identity import memberships_of
from hepfaas.platform.roles import Group
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store
from hepfaas.runs.course import following
from hepfaas.runs.steps import Step, Sum, Train
from hepfaas.steps.objects import result_of
from hepfaas.steps.performing import perform

KEPT_RUNS = 1_000

Tools = Mapping[str, Mapping[str, Any]]
"""Further arguments of `perform`, for each kind of step."""


class Stepping:
    """Does the steps of one function, `name`, for all owners.

    store_of: the store of an owner. printed: output of the learner, emptied by each step. clock: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        store_of: Callable[[str], Store],
        sender: Sender,
        *,
        budget_s: float,
        tools: Tools | None = None,
        printed: StepLog | None = None,
        clock: Callable[[], float] = time.time,
        readings: Readings | None = None,
    ) -> None:
        self._name, self._store_of, self._sender, self._budget_s = name, store_of, sender, budget_s
        self._tools, self._printed, self._clock = tools or {}, printed or StepLog(), clock
        self._readings = readings or Readings()
        self._groups_of = functools.lru_cache(KEPT_RUNS)(_groups_of)

    def handle(self, event: CloudEvent) -> None:
        """Do the step that one event requests.

        Raises: RequestError if it cannot be done, which the run records; UnavailableError to get the event again.
        """
        store = self._store_of(events.run_name(event.data).owner)
        task = events.task_of(event.data, store)
        if task.step.kind not in events.DOES[self._name]:
            raise RequestError(f"function '{self._name}' does not do steps of kind '{task.step.kind}'")
        if not records.is_there(store, task.name.run):
            raise RequestError(f"owner '{task.name.owner}' has no run '{task.name.run}'")
        try:
            last = self._performed(task, store)
            whole = last is not None and _after(last, task) is None
            complete = whole and self._added_up(task, store)
        except RequestError as error:
            records.fail(store, task.name.run, task.name.attempt, task.step.key, public_text(error))
            self._tell(events.STEP_FAILED, task, event.trace, {"error": public_text(error)})
            raise
        except MissingError as error:
            self._tell(events.STEP_MISSING, task, event.trace, {"missing": error.key, "then": dict(event.data)})
            return
        except UnavailableError as error:
            records.trouble(store, task.name.run, task.name.attempt, task.step.key, self._clock(), public_text(error))
            raise
        if last is None:
            return
        if task.then:  # only `advance` sends tasks
            data = {"slice": list(task.slice), "then": dict(task.then)}
            self._tell(events.STEP_COMPLETED, replace(task, step=last), event.trace, data)
        elif complete:
            self._tell(events.PHASE_COMPLETED, replace(task, step=last), event.trace, {})
        elif task.tell or not whole:
            self._tell(events.STEP_COMPLETED, replace(task, step=last), event.trace, {"slice": list(task.slice)})

    def _performed(self, task: Task, store: Store) -> Step | None:
        """Do the task's step, and in a chain those that follow while the budget lasts; return the last.

        None if the run has ended meanwhile.
        """
        step, end = task.step, time.monotonic() + self._budget_s
        while True:
            if records.has_ended(store, task.name.run, task.name.attempt):
                return None
            self._perform(step, task, store)
            after = _after(step, task)
            if after is None or time.monotonic() > end or _is_left_to_plan(after, task, store):
                return step
            step = after

    def _perform(self, step: Step, task: Task, store: Store) -> None:
        if store.size_bytes(step.key) is not None:
            return
        self._printed.take()  # output of a step that was not done, perhaps of another owner
        began = time.monotonic()
        reading = self._reading(step, task, store)
        tools = {**self._tools.get(step.kind, {}), **({"reading": reading} if reading else {})}
        try:
            perform(step, store, **tools)
        except RequestError as error:
            self._log(step, task, store, began, public_text(error))
            raise
        if reading:
            for line in reading.log.failures:
                self._printed.append(line)
            if reading.log.served:
                n_served = step.n_events or 1  # of an open step the one file
                records.served(store, task.name.run, step.key, n_served, reading.log.served)
        self._log(step, task, store, began)

    def _reading(self, step: Step, task: Task, store: Store) -> Reading | None:
        """Return how a step reads files for the owner of its run: only what the submitter's groups may read."""
        if step.kind not in events.READING:
            return None
        groups: Collection[Group] = ()
        if self._readings.sources.allowed is not None:
            groups = self._groups_of(store, task.name.run)  # type: ignore[arg-type]  # a store is itself alone
        return self._readings.reading(store, task.name.owner, groups)

    def _log(self, step: Step, task: Task, store: Store, began: float, error: str = "") -> None:
        lines = self._printed.take()
        seconds, n_events = time.monotonic() - began, 0 if error else step.n_events
        entry = records.Entry(
            self._clock(), step.kind, step.key, seconds=seconds, events=n_events, lines=lines, error=error
        )
        records.log(store, task.name.run, entry)

    def _added_up(self, task: Task, store: Store) -> bool:
        """Store the sums whose members all exist; return whether the phase is complete.

        The process that stores the last result of a group sees all others: the store gives read-after-write.
        """
        kind = task.step.kind
        for group in task.groups:
            if any(store.size_bytes(key) is None for key in reversed(group)):  # the last steps are done last
                return False
            self._sum(Sum(kind, group), store)
        return True

    def _sum(self, step: Sum, store: Store) -> None:
        if store.size_bytes(step.key) is None:
            perform(step, store)

    def _tell(self, type_: str, task: Task, trace: str, more: Mapping[str, Any]) -> None:
        data = {"step": task.step.key, "kind": task.step.kind, "phase": task.phase, **more}
        self._sender.send(events.event(type_, self._name, task.step.key, task.name, data=data, trace=trace))


def step_function(name: str, settings: Settings, tools: Tools | None = None, printed: StepLog | None = None) -> Handler:
    """Return the step function `name`. It opens the store and the broker at its first event."""

    def handler() -> Callable[[CloudEvent], None]:
        stores, broker = backends.store_of_owner(settings), backends.sender(settings)
        return Stepping(
            name, stores, broker, budget_s=settings.budget_s, tools=tools, printed=printed, readings=readings
        ).handle

    readings = Readings.from_settings(settings) if set(events.DOES[name]) & set(events.READING) else Readings()

    return takes_events(name, handler, settings.keys_of_events(), deadline_s=settings.deadline_s)


def _groups_of(store: Store, run: str) -> list[Group]:
    """Return the groups of the submitter of a run."""
    return memberships_of(records.request_of(store, run).submitter)


def _is_left_to_plan(after: Train, task: Task, store: Store) -> bool:
    """Return whether an epoch ended before this step, and only the plan knows whether and how the training goes on."""
    if after.segment or after.before is None:
        return False
    return task.by_epoch or bool(result_of(after.before, store).get("stop"))


def _after(step: Step, task: Task) -> Train | None:
    """Return the step that follows in a chain, if the step belongs to one."""
    return following(step, *task.chain) if task.chain and isinstance(step, Train) else None
