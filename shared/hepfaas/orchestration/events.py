"""The CloudEvents of a run: their types and their data. docs/reference/events.md describes them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hepfaas.errors import ForbiddenError, MissingError, RequestError
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store, is_name
from hepfaas.runs.phases import FAN_OUT, Levels
from hepfaas.runs.steps import Step, step_from_json
from hepfaas.steps.objects import encoded, put_blob

PREFIX = "org.hepfaas"
MOST_STEP_BYTES = 16 * 1024
"""Largest step that an event carries itself: brokers take 64 KiB, and a task may carry another that waits for it."""

_BLOB = re.compile(r"blobs/[0-9a-f]{64}")
PHASE_COMPLETED = f"{PREFIX}.phase.completed"
STEP_COMPLETED = f"{PREFIX}.step.completed"
STEP_FAILED = f"{PREFIX}.step.failed"
STEP_MISSING = f"{PREFIX}.step.missing"
RUN_REQUESTED = f"{PREFIX}.run.requested"
RUN_SUBMITTED = f"{PREFIX}.run.submitted"
MODEL_PUBLISHED = f"{PREFIX}.model.published"
PING = "dev.knative.sources.ping"
REQUESTED = ".requested"
UNSIGNED = (PING, RUN_REQUESTED, RUN_SUBMITTED)
"""Types that `advance` accepts without a signature: they only make it look at the store."""


DOES = {
    "survey": ("open", "survey", "spec", "weigh"),
    "prepare": ("prepare",),
    "train": ("train", "export", "convert"),
    "score": ("score", "examine"),
    "apply": ("predict",),
    "evaluate": ("evaluate", "compare"),
    "publish": ("publish", "register"),
}
"""The kinds of steps that each function does; the function that stores the last member of a sum does the sum."""


READING = ("open", "survey", "prepare", "predict")
"""Kinds of steps that read input files."""


@dataclass(frozen=True)
class RunName:
    """One attempt of a run, as all events of hepfaas name it."""

    owner: str
    run: str
    attempt: int

    @property
    def name(self) -> str:
        """Name of the attempt in its steps: '<run>/<attempt>'."""
        return f"{self.run}/{self.attempt}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"owner": self.owner, "run": self.run, "attempt": self.attempt}


@dataclass(frozen=True)
class Task:
    """A step to be done for a run.

    groups: keys of the members of each sum above the step, from its own group up to the root. chain: segments of an
    epoch and number of epochs, where steps of the same kind follow. by_epoch: whether only the plan knows what follows
    after an epoch. tell: whether to report the end of the step, so that more can be sent. then: the data of another
    task that waits for this one. phase, slice: where records list it as sent.
    """

    name: RunName
    step: Step
    groups: tuple[tuple[str, ...], ...] = ()
    chain: tuple[int, int] | None = None
    by_epoch: bool = False
    tell: bool = False
    then: Mapping[str, Any] | None = None
    phase: str = ""
    slice: tuple[int, int] = field(default=(0, 0))


def requested(task: Task, source: str, trace: str, store: Store) -> CloudEvent:
    """Return the event that requests a step. A large step (thousands of branches) is sent as a blob's key."""
    step = encoded(values := task.step.to_json())
    if len(step) > MOST_STEP_BYTES:
        values = {"kind": task.step.kind, "blob": put_blob(store, step)}
    data = {
        "step": values,
        "groups": [list(group) for group in task.groups],
        "chain": list(task.chain) if task.chain else None,
        "by_epoch": task.by_epoch,
        "tell": task.tell,
        "then": task.then,
        "phase": task.phase,
        "slice": list(task.slice),
    }
    return event(f"{PREFIX}.{task.step.kind}.requested", source, task.step.key, task.name, data=data, trace=trace)


def task_of(data: Mapping[str, Any], store: Store) -> Task:
    """Return the task in the data of such an event. Raises: RequestError if there is none."""
    try:
        first, count = map(int, data.get("slice", (0, 0)))
        chain = data.get("chain")
        return Task(
            name=run_name(data),
            step=_step_of(data["step"], store),
            groups=tuple(tuple(map(str, group)) for group in data.get("groups", ())),
            chain=(int(chain[0]), int(chain[1])) if chain else None,
            by_epoch=bool(data.get("by_epoch")),
            tell=bool(data.get("tell")),
            then=data.get("then"),
            phase=str(data.get("phase", "")),
            slice=(first, count),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RequestError("the event requests no known step: its data have no valid 'step'") from error


def _step_of(values: Mapping[str, Any], store: Store) -> Step:
    if "blob" not in values:
        return step_from_json(values)
    blob = values["blob"]
    if not _BLOB.fullmatch(blob):
        raise ValueError(blob)
    try:
        return step_from_json(json.loads(store.get(blob)))
    except MissingError as error:
        raise RequestError(f"the event's step '{blob}' does not exist any more; it will be requested again") from error


def run_name(data: Mapping[str, Any]) -> RunName:
    """Return the run that an event is about. Raises: RequestError if it names none."""
    owner, run, attempt = data.get("owner"), data.get("run"), data.get("attempt", 0)
    names = isinstance(owner, str) and isinstance(run, str) and isinstance(attempt, int)
    if not names or not is_name(str(owner)) or not is_name(str(run)):
        raise RequestError("the event names no run: its data need 'owner' and 'run', and 'attempt' as a number")
    return RunName(str(owner), str(run), int(str(attempt)))


def event(
    type_: str, source: str, subject: str, name: RunName, *, data: Mapping[str, Any] | None = None, trace: str = ""
) -> CloudEvent:
    """Return an event of a run, with its name in the data; the same event sent twice has the same id."""
    text = "\n".join((type_, subject, name.owner, name.name))
    return CloudEvent(
        type=type_,
        source=f"/hepfaas/{source}",
        subject=subject,
        id=hashlib.sha256(text.encode()).hexdigest(),
        data={**name.to_json(), **(data or {})},
        extensions={"traceparent": trace} if trace else {},
    )


def groups_of(levels: Levels, index: int) -> tuple[tuple[str, ...], ...]:
    """Return the groups above one step of a phase: keys of the 16 steps with the same sum, then of the sums above."""
    groups = []
    for level in levels[:-1]:
        start = index - index % FAN_OUT
        groups.append(tuple(step.key for step in level[start : start + FAN_OUT]))
        index //= FAN_OUT
    return tuple(groups)


def step_function_of(event: CloudEvent) -> str:
    """Return the step function that a task is for, or else the function that sent the event."""
    kind = event.type.removeprefix(f"{PREFIX}.").removesuffix(REQUESTED)
    does = (function for function, kinds in DOES.items() if kind in kinds)
    return next(does, event.source.rpartition("/")[2])


def keys_by_function(settings: Settings) -> Callable[[CloudEvent], Sequence[str]]:
    """Return the function that gives the keys of an event: those that `advance` shares with its step function, if any,
    else the keys of `advance`. It raises ForbiddenError for a report on a step that the sender does not do."""

    def keys(event: CloudEvent) -> Sequence[str]:
        check_reporter(event)
        return settings.function_event_keys.get(step_function_of(event)) or settings.event_keys

    return keys


def check_reporter(event: CloudEvent) -> None:
    """Raise ForbiddenError if a function reports on a step that another function does."""
    if event.type not in (PHASE_COMPLETED, STEP_COMPLETED, STEP_FAILED, STEP_MISSING):
        return
    function, step = event.source.rpartition("/")[2], str(event.data.get("step"))
    if step.split("/")[1:2] not in ([kind] for kind in DOES.get(function, ())):
        raise ForbiddenError(f"function '{function}' does not do step '{step[:100]}'")


def function_of(kind: str) -> str:
    """Return the function that does steps of a kind."""
    return next(function for function, kinds in DOES.items() if kind in kinds)
