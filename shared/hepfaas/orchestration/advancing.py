"""The only place that sends steps: it looks at what the store has of a run and sends what comes next. Stateless."""

from __future__ import annotations

import base64
import functools
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hepfaas.errors import ForbiddenError, RequestError, UnavailableError, public_text
from hepfaas.orchestration import events, records
from hepfaas.orchestration.events import RunName, Task, groups_of, requested
from hepfaas.orchestration.records import Attempt, End, Request, Sent
from hepfaas.orchestration.submitting import Submitting
from hepfaas.platform.cloud_events import CloudEvent, Sender, webhook
from hepfaas.platform.storage import Store, is_name
from hepfaas.runs import plan
from hepfaas.runs.phases import FAN_OUT, Finished, Levels, Ready, Results
from hepfaas.runs.results import scored_parts
from hepfaas.steps.objects import result_if_there

SOURCE = "advance"
MOST_SENT = 5
"""How often the event of a step is sent before the run fails."""

PING_S = 60.0
KEPT_RESULTS = 256
WEBHOOK_S = 3600.0
"""How long after the end of a run its webhook is still called, if it has not answered before."""

HOOKS_S, HOOK_THREADS = 60.0, 8
"""How long one ping calls webhooks, and how many at once: silent servers must not hold up other owners' runs."""

DEADLINES = 2
"""An event counts as lost after this many deadlines, and after twice as many each further time: it may also wait in a
long queue, which a second copy makes longer."""

TEMPORARY = ("503", "504", "502", "429", "-1", "")
"""Dead-letter codes of temporary failures: a function's status; -1 or nothing if no function answered."""

AHEAD = 2
"""Slices of a phase under way at a time: one is done while the event travels that sends the next."""

Hook = Callable[[], None]
"""Calls a webhook; this waits until everything else is done."""

Looks = tuple[tuple[str, Callable[[str, str], Hook | None]], ...]
"""Lists of runs by their prefix, and the method that takes the owner and the name of each."""

Done = tuple[str, int]
"""The slice that an event reports as done, or the link of a chain that a function has left: phase, first step."""


@dataclass(frozen=True)
class Turn:
    """One look at an attempt that goes on: the phase that it is in, and what was sent of this phase.

    done: the slice that the event behind this look reports as done, if any.
    """

    name: RunName
    store: Store
    request: Request
    coming: Ready
    sent: Sequence[Sent]
    done: Done | None = None

    @property
    def phase(self) -> str:
        """Name of the phase among what was sent."""
        return phase_of(self.coming)

    def under_way(self) -> int:
        """Return how many slices are under way: those sent after the one that is done; without one, AHEAD.

        So each event makes room for one slice, whoever else looks and however often it comes. If existing results were
        counted instead, quick steps would make more events than can be answered, and other runs would wait.
        """
        if not self.sent:
            return 0
        if self.done is None or self.done[0] != self.phase:
            return AHEAD
        return sum(slice_.first > self.done[1] for slice_ in self.sent)

    def sent_at(self, slice_: Sent) -> float:
        """When the events of a slice were last sent (seconds since 1970)."""
        return records.sent_at(self.store, self.name.run, self.name.attempt, self.phase, slice_)

    def mark_sent(self, slice_: Sent, time: float) -> None:
        """Record that the events of a slice were sent."""
        records.mark_sent(self.store, self.name.run, self.name.attempt, self.phase, slice_, time)


class Advancing:
    """Advances the runs of all owners. root: the store above the owners' stores."""

    def __init__(
        self,
        root: Store,
        store_of: Callable[[str], Store],
        sender: Sender,
        *,
        max_scale: int,
        deadline_s: float,
        clock: Callable[[], float] = time.time,
        webhook: Callable[[str], Sender] = webhook,
    ) -> None:
        self._webhook = webhook
        self._root, self._store_of, self._sender = root, store_of, sender
        self._max_scale, self._deadline_s, self._clock = max_scale, deadline_s, clock
        self._known: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()

    def handle(self, event: CloudEvent) -> None:
        """Act on one event. Raises: RequestError if it names no run; UnavailableError."""
        if event.type == events.PING:
            self._look_at_all()
            return
        name = events.run_name(event.data)
        if event.type == events.RUN_REQUESTED:
            self._begin(name.owner, name.run)
            return
        store = self._store_of(name.owner)
        if event.type == events.STEP_MISSING:
            self._remake(name, store, event)
        elif event.type == events.STEP_COMPLETED and event.data.get("then"):
            self._ask_again(name, store, event)
        elif _is_dead_task(event):
            self._bury(event, store)
        hook = self._advance(name.owner, name.run, done=_done(event))
        if hook:
            with suppress(UnavailableError):  # the next ping calls it again
                hook()

    def _look_at_all(self) -> None:
        """Look at every unfinished run and send again what is late; begin requested runs and remove those deleted long
        ago. Then call webhooks, in another order at each ping.

        Each list of runs gets its share of half a deadline and what the lists before it have left. A ping begins at
        another run than the last one, so that no run is left out for long.

        Raises: the first failure, after the last look: one run must not hold up the others.
        """
        failures: list[Exception] = []
        began = self._clock()
        hooks: list[Hook] = []
        looks: Looks = (
            ("asked/", self._begin),
            ("deleted/", self._remove),
            ("untold/", self._untold),
            ("active/", functools.partial(self._advance, again=True)),
        )
        for number, (prefix, look) in enumerate(looks, 1):
            most_s = self._deadline_s / 2 * number / len(looks)
            keys = list(self._root.keys(prefix))
            first = int(began / PING_S) % max(1, len(keys))
            for key in keys[first:] + keys[:first]:
                if self._clock() - began > most_s:
                    break
                owner, _, run = key.removeprefix(prefix).partition("/")
                if not (is_name(owner) and is_name(run)):  # predict's key may write any text under asked/
                    self._root.delete(key)
                    continue
                try:
                    hook = look(owner, run)
                except (RequestError, UnavailableError) as error:
                    failures.append(error)
                    continue
                hooks += [hook] if hook else []
        _call(hooks)
        if failures:
            raise failures[0]

    def _begin(self, owner: str, run: str) -> None:
        """Begin a requested run."""
        Submitting(self._root, self._store_of(owner), self._sender, owner).begin(run)

    def _advance(self, owner: str, run: str, again: bool = False, done: Done | None = None) -> Hook | None:
        """Send what comes next in a run, and return the webhook to call, if any. again: also send what is late."""
        store = self._store_of(owner)
        request, attempt = records.request_of(store, run), records.attempt(store, run)
        name = RunName(owner, run, attempt.number)
        if attempt.end:
            return self._close(name, attempt.end, request)
        try:
            coming = plan.next_steps(request.recipe, name.name, self._results(store))
            self._check_failed(attempt, store)
            if isinstance(coming, Finished):
                return self._end(request, name, store, _end_of(coming, self._clock()))
            for ready in (coming, *coming.others):
                sent = records.sent(store, run, attempt.number, phase_of(ready))
                turn = Turn(name, store, request, ready, sent, done)
                if ready.chain:
                    self._send_chain(turn, ready.chain[0])
                else:
                    under_way = self._send_again(turn) if again and sent else turn.under_way()
                    self._send_next(turn, AHEAD - under_way)
        except RequestError as error:
            return self._end(request, name, store, End("failed", self._clock(), public_text(error)))
        return None

    def _check_failed(self, attempt: Attempt, store: Store) -> None:
        """Raise RequestError with the reason if a step cannot be done; a result that exists counts more."""
        for key, error in attempt.failed.items():
            if store.size_bytes(key) is None:
                raise RequestError(error)

    def _end(self, request: Request, name: RunName, store: Store, how: End) -> Hook | None:
        records.end(store, name.run, name.attempt, how)
        return self._close(name, records.attempt(store, name.run).end or how, request)

    def _close(self, name: RunName, end: End, request: Request) -> Hook | None:
        """Send the event that an attempt ended, until this has happened once; then the run is not active any more.

        The webhook is called last. Until it has taken the event, the run is listed under untold/.
        """
        active = f"active/{name.owner}/{name.run}"
        if self._root.size_bytes(active) is None:
            return None
        ended = _ended(name, end, request)
        if end.model:
            published = f"models/{end.model}"
            trace = request.trace
            self._sender.send(
                events.event(events.MODEL_PUBLISHED, SOURCE, published, name, data=ended.data, trace=trace)
            )
        self._sender.send(ended)
        if request.webhook:
            self._root.create(f"untold/{name.owner}/{name.run}", b"")
        self._root.delete(active)
        return self._untold(name.owner, name.run) if request.webhook else None

    def _untold(self, owner: str, run: str) -> Hook | None:
        """Return the call of a run's webhook. None when it is too late, or while another attempt goes on, which will
        end as well."""
        store, untold = self._store_of(owner), f"untold/{owner}/{run}"
        request, attempt = records.request_of(store, run), records.attempt(store, run)
        if attempt.end is None or self._clock() - attempt.end.time >= WEBHOOK_S:
            self._root.delete(untold)
            return None
        event = _ended(RunName(owner, run, attempt.number), attempt.end, request)
        return functools.partial(self._tell_webhook, request.webhook, event, untold)

    def _tell_webhook(self, url: str, event: CloudEvent, untold: str) -> None:
        """Raises: UnavailableError if it must be called again."""
        with suppress(RequestError):  # functions may not reach this address, and a second call would fail as well
            self._webhook(url).send(event)
        self._root.delete(untold)

    def _remove(self, owner: str, run: str) -> None:
        """Remove the records of a run that was deleted so long ago that nothing of it is under way."""
        store = self._store_of(owner)
        deleted = records.deleted_at(store, run)
        if deleted is not None and self._clock() - deleted < DEADLINES * self._deadline_s:
            return
        self._root.delete(f"active/{owner}/{run}")
        self._root.delete(f"untold/{owner}/{run}")
        records.remove(store, run)
        store.delete(f"asked/{run}")
        self._root.delete(f"deleted/{owner}/{run}")

    def _send_next(self, turn: Turn, n_slices: int) -> None:
        """Send the first steps that were not sent yet, at most `n_slices` slices of them."""
        first = max((slice_.first + slice_.count for slice_ in turn.sent), default=0)
        left = len(turn.coming.levels[0]) - first
        if not left or n_slices <= 0:
            return
        size = max(1, self._window() // AHEAD)
        for start, count in slices(first, min(left, n_slices * size), size):
            self._send(turn, range(start, start + count), Sent(start, count, 1))

    def _send_chain(self, turn: Turn, index: int) -> None:
        """Send the next step of a chain, unless the function that got the step before may still go on with it."""
        same = next((slice_ for slice_ in turn.sent if slice_.first == index), None)
        is_left = same is None and turn.done == (turn.phase, turn.sent[-1].first) if turn.sent else True
        if is_left or self._is_late(turn, turn.sent[-1]):
            if same:
                self._resend(turn, [0], same)
            else:
                self._send(turn, [0], Sent(index, 1, 1))

    def _send_again(self, turn: Turn) -> int:
        """Send again what was sent long ago and has no result; return how many slices are under way.

        Raises: RequestError if a step was sent too often.
        """
        last = turn.sent[-1].first + turn.sent[-1].count
        lost = missing(turn.coming.levels, max(slice_.first + slice_.count for slice_ in turn.sent), turn.store)
        if not lost and last == len(turn.coming.levels[0]):
            lost = [last - 1]  # all results exist and their sum does not: the function that stores it was killed
        under_way = 0
        for slice_ in turn.sent:
            indexes = [index for index in lost if slice_.first <= index < slice_.first + slice_.count]
            under_way += bool(indexes)
            if indexes and self._is_late(turn, slice_):
                self._resend(turn, indexes, slice_)
        return under_way

    def _is_late(self, turn: Turn, slice_: Sent) -> bool:
        return self._clock() - turn.sent_at(slice_) > DEADLINES * self._deadline_s * 2.0 ** (slice_.times - 1)

    def _resend(self, turn: Turn, indexes: Sequence[int], slice_: Sent) -> None:
        if slice_.times >= MOST_SENT:
            raise RequestError(_why_lost(turn, indexes[0]))
        self._send(turn, indexes, replace(slice_, times=slice_.times + 1))

    def _send(self, turn: Turn, indexes: Sequence[int], slice_: Sent) -> None:
        """Send the events of steps and record it. The last step reports when it is done, so that more can be sent."""
        coming = turn.coming
        chain = (coming.segments, coming.chain[1] // coming.segments) if coming.chain else None
        for index in indexes:
            task = Task(
                name=turn.name,
                step=coming.levels[0][index],
                groups=groups_of(coming.levels, index),
                chain=chain,
                by_epoch=coming.by_epoch,
                tell=index == indexes[-1],
                phase=turn.phase,
                slice=(slice_.first, slice_.count),
            )
            self._sender.send(requested(task, SOURCE, turn.request.trace, turn.store))
        turn.mark_sent(slice_, self._clock())

    def _window(self) -> int:
        """Return how many steps of one run may be under way, so that no run waits for ten thousand steps of another."""
        active = sum(1 for _ in self._root.keys("active/"))
        return max(1, DEADLINES * self._max_scale // max(1, active))

    def _remake(self, name: RunName, store: Store, event: CloudEvent) -> None:
        """Request the step that makes what another one misses, and after it the step that misses it."""
        request, key = records.request_of(store, name.run), str(event.data.get("missing", ""))
        self._known.pop((store.url, key), None)
        maker = plan.maker(request.recipe, name.name, self._results(store), key)
        then = event.data.get("then")
        if maker is not None and store.size_bytes(key) is None:
            self._sender.send(requested(Task(name, maker, then=then), SOURCE, request.trace, store))
        elif store.size_bytes(key) is not None and then:
            self._ask_again(name, store, event)
        elif key.startswith("blobs/"):
            step = str(events.task_of(then or {}, store).step.key)
            records.fail(store, name.run, name.attempt, step, f"the store has lost '{key}', which no step makes")

    def _ask_again(self, name: RunName, store: Store, event: CloudEvent) -> None:
        """Send the task that waited for a step, if it belongs to this attempt. The event comes from another function,
        so the step is taken from the plan."""
        task, request = events.task_of(event.data["then"], store), records.request_of(store, name.run)
        if task.name != name:
            raise RequestError(f"the task that waited is of run '{task.name.run}', not of '{name.run}'")
        results = self._results(store)
        step = plan.maker(request.recipe, name.name, results, task.step.key)
        if step is None:
            coming = plan.next_steps(request.recipe, name.name, results)
            planned = coming.levels[0] if isinstance(coming, Ready) else ()
            step = next((one for one in planned if one.key == task.step.key), None)
        if step is not None:
            self._sender.send(requested(replace(task, step=step), SOURCE, request.trace, store))

    def _bury(self, event: CloudEvent, store: Store) -> None:
        """Handle a task that could not be delivered. If it may succeed later, the ping sends it again as if its event
        were lost; else, or if this was the last try, the attempt fails with the function's answer."""
        task, attempt = events.task_of(event.data, store), records.attempt(store, events.run_name(event.data).run)
        if events.step_function_of(event) != events.function_of(task.step.kind):  # whose key has signed it
            raise ForbiddenError(f"a dead letter of type {event.type} is about a step '{task.step.kind}'")
        code = event.extensions.get("knativeerrorcode", "")
        if task.name.attempt != attempt.number or attempt.end:
            return
        message = _message_in(event.extensions.get("knativeerrordata", ""))
        if code in TEMPORARY and message and code != "503":  # with a 503 the function has recorded it itself
            records.trouble(store, task.name.run, attempt.number, task.step.key, self._clock(), message)
        if code in TEMPORARY and not self._was_sent_last(task, store):
            return
        error = f"step '{task.step.kind}': {message or f'its function answers {code}'}"
        records.fail(store, task.name.run, attempt.number, task.step.key, error)

    def _was_sent_last(self, task: Task, store: Store) -> bool:
        """Return whether a task has been sent as often as it may be.

        A task that restores a missing result has no phase; it is sent each time that a step needs the result.
        """
        sent = records.sent(store, task.name.run, task.name.attempt, task.phase) if task.phase else []
        return any((slice_.first, slice_.count, slice_.times) == (*task.slice, MOST_SENT) for slice_ in sent)

    def _results(self, store: Store) -> Results:
        return functools.partial(self._result, store)

    def _result(self, store: Store, key: str) -> dict[str, Any] | None:
        """Return a result. It never changes and is kept in memory, but it may have been deleted."""
        place = (store.url, key)
        if place in self._known and store.size_bytes(key) is None:
            del self._known[place]
            return None
        if place not in self._known:
            result = result_if_there(key, store)
            if result is None:
                return None
            self._known[place] = result
            if len(self._known) > KEPT_RESULTS:
                self._known.popitem(last=False)
        self._known.move_to_end(place)
        return self._known[place]


def _call(hooks: list[Hook]) -> None:
    """Call webhooks while there is time, in another order each time; the next ping calls those that failed again."""
    end = time.monotonic() + HOOKS_S

    def call(hook: Hook) -> None:
        with suppress(UnavailableError):
            if time.monotonic() < end:
                hook()

    random.shuffle(hooks)
    with ThreadPoolExecutor(HOOK_THREADS, "webhooks") as pool:
        list(pool.map(call, hooks))


def _is_dead_task(event: CloudEvent) -> bool:
    """Return whether an event is a task that came back from the broker as a dead letter."""
    return "knativeerrordest" in event.extensions and event.type.endswith(events.REQUESTED)


def _done(event: CloudEvent) -> Done | None:
    """Return the slice that an event reports as done. Raises: RequestError if it should name one and does not."""
    if event.type != events.STEP_COMPLETED:
        return None
    try:
        return str(event.data["phase"]), int(event.data["slice"][0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RequestError("the event names no slice of a phase that is done") from error


def _why_lost(turn: Turn, index: int) -> str:
    """Return what is known of a step that gave no result however often it was sent."""
    step = turn.coming.levels[0][index]
    text = f"step '{step.kind}' gave no result though it was sent {MOST_SENT} times"
    troubles = records.troubles(turn.store, turn.name.run, turn.name.attempt)
    if not troubles:
        return f"{text}; perhaps it needs more memory or time than function '{events.function_of(step.kind)}' has"
    return f"{text}; last: {records.trouble_at(turn.store, troubles[-1])}"


def _message_in(data: str) -> str:
    """Return the error message in the answer of a function or of the broker, which dead letters carry in base64, cut
    off after 1,024 bytes."""
    try:
        text = base64.b64decode(data).decode(errors="replace")
    except ValueError:
        return ""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text if text.isprintable() and text[:1] not in "{[<" else ""


def _ended(name: RunName, end: End, request: Request) -> CloudEvent:
    """Return the event that reports how an attempt ended."""
    data: dict[str, Any] = {"state": end.state, "error": end.error, "model": end.model, "refused": end.refused}
    data |= {} if end.scores is None else {"scores": end.scores}
    type_, subject = f"{events.PREFIX}.run.{end.state}", f"runs/{name.run}"
    return events.event(type_, SOURCE, subject, name, data=data, trace=request.trace)


def _end_of(finished: Finished, time: float) -> End:
    """Return how a run with nothing left to do ends: with a model, with scores, or refused by its gate."""
    if finished.scores is not None:
        return End("completed", time, scores=sum(part.rows for part in scored_parts(finished.scores)))
    if finished.model:
        return End("completed", time, model=f"{finished.model['name']}/{finished.model['version']}")
    gate = finished.gate or {}
    why = (
        f"{gate['metric']} of the gate's {gate['events']} test events is {gate['new']:.4f}, and that of model "
        f"'{gate['model']}' {gate['last']:.4f}: it may fall by at most {gate['fall']:g}"
    )
    return End("completed", time, refused=why)


def phase_of(coming: Ready) -> str:
    """Return the name of a phase among what was sent: its kind, and the root that it makes or the fold of the chain."""
    if coming.chain:
        return coming.phase if coming.fold is None else f"{coming.phase}-{coming.fold}"
    return f"{coming.phase}-{coming.levels[-1][0].key.rpartition('/')[2][:16]}"


def slices(first: int, count: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield `count` steps from `first` on, as slices of `size` steps."""
    for start in range(first, first + max(0, count), size):
        yield start, min(size, first + count - start)


def missing(levels: Levels, stop: int, store: Store) -> list[int]:
    """Return the indexes below `stop` of steps without a result. Nothing is looked up below a sum that exists."""
    nodes = [0]
    for depth in range(len(levels) - 1, -1, -1):
        span = FAN_OUT**depth
        absent = [node for node in nodes if node * span < stop and store.size_bytes(levels[depth][node].key) is None]
        if not depth:
            return absent
        below = len(levels[depth - 1])
        nodes = [child for node in absent for child in range(node * FAN_OUT, min((node + 1) * FAN_OUT, below))]
    return []
