"""Looks at what exists of a run and sends what is next. The only place that sends steps; holds nothing."""

from __future__ import annotations

import base64
import functools
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
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
from hepfaas.steps.objects import result_if_there

SOURCE = "advance"
MOST_SENT = 5
"""How often events for a step go out before the run is ended."""

PING_S = 60.0
KEPT_RESULTS = 256
WEBHOOK_S = 3600.0
"""So long after the end of a run its webhook is told, if it did not answer before."""

TELLING_S, TELLERS = 60.0, 8
"""So long one ping tells webhooks, so many at once: those of silent servers keep nobody else's run from going on."""

DEADLINES = 2
"""So many deadlines after an event went out it counts as lost; twice as many after each further time, since it may also
wait in a long queue, which sending it again makes longer."""

PASSING = ("503", "504", "502", "429", "-1", "")
"""What a dead letter says of a failure that may be over later: a function's status; -1 or nothing if none answered."""

AHEAD = 2
"""Slices of a phase under way at a time: one is done while the event goes round that sends the next."""

Hook = Callable[[], None]
"""Tells a webhook, which is left for when all else is done."""

Looks = tuple[tuple[str, Callable[[str, str], Hook | None]], ...]
"""Lists of runs by their prefix, and what is done with the owner and the name of each."""

Told = tuple[str, int]
"""The slice that an event says is done, or the link of a chain that its function has let go of: phase, first step."""


class Advancing:
    """Advances runs of all owners. root: the store above the owners' ones."""

    def __init__(
        self,
        root: Store,
        store_of: Callable[[str], Store],
        sender: Sender,
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
        """Does what one event is a reason for. Raises: RequestError if it names no run; UnavailableError."""
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
        hook = self._advance(name.owner, name.run, told=_told(event))
        if hook:
            with suppress(UnavailableError):  # the next ping tells it
                hook()

    def _look_at_all(self) -> None:
        """Every unfinished run: what should have come by now is sent again. Runs that were asked for begin, those
        deleted long ago are removed. Then webhooks are told, each in its turn by one ping or another.

        Raises: the first failure, after the last look: one run keeps no other from being looked at. Nor do runs whose
        looks take long: it ends after half a deadline, of which each list has its part and what those before it have
        left; the next ping goes on, and each begins at another run.
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
        """Begins a run that was asked for."""
        Submitting(self._root, self._store_of(owner), self._sender, owner).begin(run)

    def _advance(self, owner: str, run: str, again: bool = False, told: Told | None = None) -> Hook | None:
        """Sends what is next, and gives what is left to do. again: look for what is late."""
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
            if coming.chain:
                self._send_chain(coming, coming.chain[0], request, name, store, told)
                return None
            sent = records.sent(store, name.run, name.attempt, phase_of(coming))
            under_way = _under_way(coming, sent, told)
            if again and sent:
                under_way = self._send_again(coming, sent, request, name, store)
            self._send_next(coming, sent, request, name, store, AHEAD - under_way)
        except RequestError as error:
            return self._end(request, name, store, End("failed", self._clock(), public_text(error)))
        return None

    def _check_failed(self, attempt: Attempt, store: Store) -> None:
        """Raises: RequestError with the reason, if a step cannot be done; a result that came counts more."""
        for key, error in attempt.failed.items():
            if store.size_bytes(key) is None:
                raise RequestError(error)

    def _end(self, request: Request, name: RunName, store: Store, how: End) -> Hook | None:
        records.end(store, name.run, name.attempt, how)
        return self._close(name, records.attempt(store, name.run).end or how, request)

    def _close(self, name: RunName, end: End, request: Request) -> Hook | None:
        """Tells how the attempt ended, until somebody has told it: then nothing of it is active any more. Its webhook
        is told last, and until it took that the run is one of those whose end is untold."""
        active = f"active/{name.owner}/{name.run}"
        if self._root.size_bytes(active) is None:
            return None
        ended = _ended(name, end, request)
        if end.model:
            published = f"models/{end.model}"
            self._sender.send(events.event(events.MODEL_PUBLISHED, SOURCE, published, name, ended.data, request.trace))
        self._sender.send(ended)
        if request.webhook:
            self._root.create(f"untold/{name.owner}/{name.run}", b"")
        self._root.delete(active)
        return self._untold(name.owner, name.run) if request.webhook else None

    def _untold(self, owner: str, run: str) -> Hook | None:
        """What tells a run's webhook how it ended. None when it is too late, or when another attempt goes on: that will
        end as well."""
        store, untold = self._store_of(owner), f"untold/{owner}/{run}"
        request, attempt = records.request_of(store, run), records.attempt(store, run)
        if attempt.end is None or self._clock() - attempt.end.time >= WEBHOOK_S:
            self._root.delete(untold)
            return None
        event = _ended(RunName(owner, run, attempt.number), attempt.end, request)
        return functools.partial(self._tell_webhook, request.webhook, event, untold)

    def _tell_webhook(self, url: str, event: CloudEvent, untold: str) -> None:
        """Raises: UnavailableError if it is to be told again."""
        with suppress(RequestError):  # it leads where functions do not go, and will again
            self._webhook(url).send(event)
        self._root.delete(untold)

    def _remove(self, owner: str, run: str) -> None:
        """Removes the records of a run that was deleted so long ago that nothing of it is under way."""
        store = self._store_of(owner)
        deleted = records.deleted_at(store, run)
        if deleted is not None and self._clock() - deleted < DEADLINES * self._deadline_s:
            return
        self._root.delete(f"active/{owner}/{run}")
        self._root.delete(f"untold/{owner}/{run}")
        records.remove(store, run)
        store.delete(f"asked/{run}")
        self._root.delete(f"deleted/{owner}/{run}")

    def _send_next(
        self, coming: Ready, sent: list[Sent], request: Request, name: RunName, store: Store, n_slices: int
    ) -> None:
        """Sends the first steps that were not sent yet, at most `n_slices` slices of them."""
        first = max((slice_.first + slice_.count for slice_ in sent), default=0)
        left = len(coming.levels[0]) - first
        if not left or n_slices <= 0:
            return
        size = max(1, self._window() // AHEAD)
        for start, count in slices(first, min(left, n_slices * size), size):
            self._send(coming, request, name, store, range(start, start + count), (start, count))
            records.mark_sent(store, name.run, name.attempt, phase_of(coming), Sent(start, count, 1), self._clock())

    def _send_chain(
        self, coming: Ready, index: int, request: Request, name: RunName, store: Store, told: Told | None
    ) -> None:
        """Sends the next step of a chain, unless who was sent one may still be going on with it."""
        sent = records.sent(store, name.run, name.attempt, phase_of(coming))
        again = next((slice_ for slice_ in sent if slice_.first == index), None)
        goes_on = again is None and told == (coming.phase, sent[-1].first) if sent else True
        if not goes_on and not self._is_late(store, name, phase_of(coming), sent[-1]):
            return
        if again:
            self._resend(coming, request, name, store, [0], again)
            return
        self._send(coming, request, name, store, [0], (index, 1))
        records.mark_sent(store, name.run, name.attempt, phase_of(coming), Sent(index, 1, 1), self._clock())

    def _send_again(self, coming: Ready, sent: list[Sent], request: Request, name: RunName, store: Store) -> int:
        """Sends once more what was sent long ago and has no result; gives how many slices are under way.

        Raises: RequestError if something was sent too often.
        """
        lost = missing(coming.levels, max(slice_.first + slice_.count for slice_ in sent), store)
        if not lost and sent[-1].first + sent[-1].count == len(coming.levels[0]):
            lost = [len(coming.levels[0]) - 1]  # all results are there and their sum is not: who stores it was killed
        under_way = 0
        for slice_ in sent:
            indexes = [index for index in lost if slice_.first <= index < slice_.first + slice_.count]
            under_way += bool(indexes)
            if indexes and self._is_late(store, name, phase_of(coming), slice_):
                self._resend(coming, request, name, store, indexes, slice_)
        return under_way

    def _is_late(self, store: Store, name: RunName, phase: str, slice_: Sent) -> bool:
        at = records.sent_at(store, name.run, name.attempt, phase, slice_)
        return self._clock() - at > DEADLINES * self._deadline_s * 2.0 ** (slice_.times - 1)

    def _resend(
        self, coming: Ready, request: Request, name: RunName, store: Store, indexes: list[int], slice_: Sent
    ) -> None:
        if slice_.times >= MOST_SENT:
            raise RequestError(self._why_lost(coming, indexes[0], name, store))
        self._send(coming, request, name, store, indexes, (slice_.first, slice_.count))
        again = Sent(slice_.first, slice_.count, slice_.times + 1)
        records.mark_sent(store, name.run, name.attempt, phase_of(coming), again, self._clock())

    def _why_lost(self, coming: Ready, index: int, name: RunName, store: Store) -> str:
        """What is known of a step that gives no result however often it is asked for."""
        step = coming.levels[0][index]
        what = f"step '{step.kind}' gave no result though it was asked for {MOST_SENT} times"
        found = records.troubles(store, name.run, name.attempt)
        if not found:
            return f"{what}; perhaps it needs more memory or time than function '{events.function_of(step.kind)}' has"
        return f"{what}; last: {records.trouble_at(store, found[-1])}"

    def _send(
        self, coming: Ready, request: Request, name: RunName, store: Store, indexes: Any, slice_: tuple[int, int]
    ) -> None:
        """Events for some steps; the last of them will tell when it is done, so that more can be sent."""
        phase = phase_of(coming)
        for index in indexes:
            step = coming.levels[0][index]
            chain = (coming.segments, coming.chain[1] // coming.segments) if coming.chain else None
            tell = index == indexes[-1]
            groups = groups_of(coming.levels, index)
            task = Task(name, step, groups, chain, tell, phase=phase, slice=slice_)
            self._sender.send(requested(task, SOURCE, request.trace, store))

    def _window(self) -> int:
        """Steps of one run that may be under way at a time, so that none waits for another's ten thousand."""
        active = sum(1 for _ in self._root.keys("active/"))
        return max(1, DEADLINES * self._max_scale // max(1, active))

    def _remake(self, name: RunName, store: Store, event: CloudEvent) -> None:
        """Asks for the step that makes what another one misses, and for that one behind it."""
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
            records.fail(store, name.run, name.attempt, step, f"the store has lost '{key}', which nothing makes")

    def _ask_again(self, name: RunName, store: Store, event: CloudEvent) -> None:
        """Sends the task that waited for a step, if it is one of this attempt: the event is another function's word, so
        the step is the plan's own."""
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
        """A task that was delivered in vain. If it may succeed later, the ping sends it again, as if its event were
        lost; if not, or if it went out for the last time, the attempt fails with what its function answered."""
        task, attempt = events.task_of(event.data, store), records.attempt(store, events.run_name(event.data).run)
        if events.step_function_of(event) != events.function_of(task.step.kind):  # whose key has signed it
            raise ForbiddenError(f"a dead letter of type {event.type} is about a step '{task.step.kind}'")
        code = event.extensions.get("knativeerrorcode", "")
        if task.name.attempt != attempt.number or attempt.end:
            return
        said = _said(event.extensions.get("knativeerrordata", ""))
        if code in PASSING and said and code != "503":  # with a 503 the function has told it itself
            records.trouble(store, task.name.run, attempt.number, task.step.key, self._clock(), said)
        if code in PASSING and not self._went_out_last(task, store):
            return
        error = f"step '{task.step.kind}': {said or f'its function answers {code}'}"
        records.fail(store, task.name.run, attempt.number, task.step.key, error)

    def _went_out_last(self, task: Task, store: Store) -> bool:
        """Whether a task is not sent again. One that was asked for by who missed its result is, whenever he is."""
        sent = records.sent(store, task.name.run, task.name.attempt, task.phase) if task.phase else []
        return any((slice_.first, slice_.count, slice_.times) == (*task.slice, MOST_SENT) for slice_ in sent)

    def _results(self, store: Store) -> Results:
        return functools.partial(self._result, store)

    def _result(self, store: Store, key: str) -> dict[str, Any] | None:
        """A result. It never changes and so is kept in memory, but it may have been deleted."""
        place = (store.url, key)
        if place in self._known and store.size_bytes(key) is None:
            del self._known[place]
            return None
        if place not in self._known:
            found = result_if_there(key, store)
            if found is None:
                return None
            self._known[place] = found
            if len(self._known) > KEPT_RESULTS:
                self._known.popitem(last=False)
        self._known.move_to_end(place)
        return self._known[place]


def _call(hooks: list[Hook]) -> None:
    """Tells webhooks while there is time, in another order each time; the next ping tells those that took nothing."""
    end = time.monotonic() + TELLING_S

    def call(hook: Hook) -> None:
        with suppress(UnavailableError):
            if time.monotonic() < end:
                hook()

    random.shuffle(hooks)
    with ThreadPoolExecutor(TELLERS, "webhooks") as pool:
        list(pool.map(call, hooks))


def _is_dead_task(event: CloudEvent) -> bool:
    """Whether an event is a task that came back from the broker as a dead letter."""
    return "knativeerrordest" in event.extensions and event.type.endswith(events.REQUESTED)


def _told(event: CloudEvent) -> Told | None:
    """What an event says is done. Raises: RequestError if it says so of nothing."""
    if event.type != events.STEP_COMPLETED:
        return None
    try:
        return str(event.data["phase"]), int(event.data["slice"][0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RequestError("the event does not tell which slice of which phase is done") from error


def _under_way(coming: Ready, sent: list[Sent], told: Told | None) -> int:
    """Slices under way that were sent after the one that is done; without one, all that may be.

    So each event makes room for one slice, whoever else looks and however often it comes. Were the results counted
    that are there, quick steps would make more events than can be answered, and other runs would wait behind them.
    """
    if not sent:
        return 0
    if told is None or told[0] != phase_of(coming):
        return AHEAD
    return sum(slice_.first > told[1] for slice_ in sent)


def _said(data: str) -> str:
    """The message in what a function or the broker answered, which dead letters carry in base64, cut off after 1,024
    bytes."""
    try:
        text = base64.b64decode(data).decode(errors="replace")
    except ValueError:
        return ""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text if text.isprintable() and text[:1] not in "{[<" else ""


def _ended(name: RunName, end: End, request: Request) -> CloudEvent:
    """The event that tells how an attempt ended."""
    data = {**name.to_json(), "state": end.state, "error": end.error, "model": end.model, "refused": end.refused}
    data |= {} if end.scores is None else {"scores": end.scores}
    return events.event(f"{events.PREFIX}.run.{end.state}", SOURCE, f"runs/{name.run}", name, data, request.trace)


def _end_of(finished: Finished, time: float) -> End:
    """How a run ends that has nothing left to do: with a model, with scores, or with what its gate says against one."""
    if finished.scores is not None:
        return End("completed", time, scores=sum(part["rows"] for part in finished.scores["parts"]))
    if finished.model:
        return End("completed", time, model=f"{finished.model['name']}/{finished.model['version']}")
    gate = finished.gate or {}
    why = (
        f"{gate['metric']} of the gate's {gate['events']} test events is {gate['new']:.4f}, and that of model "
        f"'{gate['model']}' {gate['last']:.4f}: it may fall by at most {gate['fall']:g}"
    )
    return End("completed", time, refused=why)


def phase_of(coming: Ready) -> str:
    """Name of a phase among what was sent: its kind and the root that it makes; a chain has no root."""
    if coming.chain:
        return coming.phase
    return f"{coming.phase}-{coming.levels[-1][0].key.rpartition('/')[2][:16]}"


def slices(first: int, count: int, size: int) -> Iterator[tuple[int, int]]:
    """`count` steps from the first on, in slices of a size."""
    for start in range(first, first + max(0, count), size):
        yield start, min(size, first + count - start)


def missing(levels: Levels, stop: int, store: Store) -> list[int]:
    """Indexes below `stop` of steps without a result. Below a sum that is there nothing is looked at."""
    nodes = [0]
    for depth in range(len(levels) - 1, -1, -1):
        span = FAN_OUT**depth
        absent = [node for node in nodes if node * span < stop and store.size_bytes(levels[depth][node].key) is None]
        if not depth:
            return absent
        below = len(levels[depth - 1])
        nodes = [child for node in absent for child in range(node * FAN_OUT, min((node + 1) * FAN_OUT, below))]
    return []
