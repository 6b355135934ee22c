"""Schedules the rows of many requests on inference workers. Owns the queues, the batches and what a failure costs.

Each owner has workers of its own. No wait is ever added: a request goes to an idle worker as it is, and requests that
queue up meanwhile form a batch. Where a batch fails, each request of it is computed apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import LimitError, UnavailableError
from hepfaas.models.inference import (
    COMPUTE_S,
    LOAD_S,
    Graph,
    GraphError,
    Inference,
    InferenceWorker,
    RowError,
    WorkerLostError,
    rows_at_once,
    worker_lost,
)

MOST_S = 2.0
"""Limit on the waiting work of one owner, in seconds as estimated from recent batches."""

GROW_S = 0.02
"""Waiting work for which an owner gets a further worker: for less, the start costs more than it saves."""

LOOK_S = 1.0
"""Interval at which workers are checked for those that hang or have been idle for long."""

STEADY_ROWS = 16
"""A batch of this many rows counts as much as all before it: the time of a few rows depends on the load."""

IDLE_S = 300.0
ENDING_S = 0.02
"""Time for the exit status of a worker to arrive, once its channel has closed."""

FAILURES, FAILING_S, REFUSED_S = 3, 60.0, 60.0
"""A model that ends this many workers within `FAILING_S` is refused for `REFUSED_S`."""


SPIN_S, SPIN_ROUNDS = 150e-6, 8
"""Longest wait for an answer without a return to the event loop, and rounds of the loop with a single request before
it: a client that is alone then does not pay for the loop's sleep and wake-up."""

MOST_LOADED = 128
"""Graphs in one worker, however small: each has a descriptor there, and a worker may have 256."""


class Model(Protocol):
    """A model to compute, and its owner."""

    @property
    def graph(self) -> Graph: ...

    @property
    def owner(self) -> str: ...


class OverloadedError(LimitError):
    """Too much work waits (HTTP 429): nothing was computed, and the same request may succeed in a second."""


class RefusedError(LimitError):
    """The model has recently ended its worker too often (HTTP 429)."""


@dataclass(eq=False)
class Job:
    """One request: its scores come in parts. deadline: as `time.monotonic`."""

    deadline: float
    answer: asyncio.Future[NDArray[np.float32]] = field(repr=False)
    scores: NDArray[np.float32] | None = None
    parts_left: int = 1


@dataclass(eq=False, slots=True)
class Part:
    """Rows of a job that are computed together, from row `start` on. apart: in a message of their own."""

    job: Job
    start: int
    features: NDArray[np.float32]
    apart: bool = False


@dataclass(eq=False)
class _Busy:
    """The batch of a busy worker, and its time limit (as `time.monotonic`)."""

    graph: Graph
    parts: list[Part]
    rows: int
    began: float
    end: float
    loading: bool = False


@dataclass(eq=False)
class _Owner:
    """Waiting work of one owner, and its workers: since when each is idle, and the batch of each busy one."""

    name: str
    waiting: OrderedDict[Graph, deque[Part]] = field(default_factory=OrderedDict)
    waiting_bytes: int = 0
    waiting_rows: Counter[Graph] = field(default_factory=Counter)
    idle: dict[InferenceWorker, float] = field(default_factory=dict)
    busy: dict[InferenceWorker, _Busy] = field(default_factory=dict)

    @property
    def n_workers(self) -> int:
        return len(self.idle) + len(self.busy)


@dataclass(eq=False)
class _History:
    """Statistics of a graph. row_s: seconds of a row, 0 before the first."""

    row_s: float = 0.0
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    refused_until: float = 0.0


class Batching:
    """The workers of all owners. For the thread of an event loop.

    workers: most of one owner. most_workers: of all owners together. most_bytes: of features that wait; one owner may
    have half of them. most_s: work of one owner that may wait. cache_bytes: of graphs in one worker.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        workers: int,
        most_workers: int,
        most_bytes: int,
        cache_bytes: int,
        most_s: float = MOST_S,
    ) -> None:
        self._inference, self._workers, self._most_workers = inference, workers, most_workers
        self._most_bytes, self._cache_bytes, self._most_s = most_bytes, cache_bytes, most_s
        self._owners: dict[str, _Owner] = {}
        self._histories: WeakKeyDictionary[Graph, _History] = WeakKeyDictionary()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._round_requests = self._lone_rounds = 0
        self.waiting_bytes = 0
        self.computed: Callable[[int], None] = lambda rows: None

    @property
    def waiting_s(self) -> float:
        """Seconds of work that waits, of the owner with most of it."""
        return max(map(self._waiting_s, self._owners.values()), default=0.0)

    @property
    def n_workers(self) -> int:
        """Worker processes of all owners."""
        return sum(owner.n_workers for owner in self._owners.values())

    def close(self) -> None:
        """End all workers; requests that wait are cancelled."""
        if self._watch:
            self._watch.cancel()
        for owner in self._owners.values():
            for worker in [*owner.idle, *owner.busy]:
                self._loop.remove_reader(worker.fileno())
                worker.close()
            busy = [part for busy in owner.busy.values() for part in busy.parts]
            for part in [*busy, *(part for parts in owner.waiting.values() for part in parts)]:
                part.job.answer.cancel()
        self._owners.clear()

    async def load(self, model: Model, deadline: float) -> None:
        """Return when a worker has the model in memory. Raises: as `predict`."""
        await self.predict(model, np.zeros((0, *model.graph.shape), dtype=np.float32), deadline)

    def predict(
        self, model: Model, features: NDArray[np.float32], deadline: float
    ) -> asyncio.Future[NDArray[np.float32]]:
        """Return the scores to come, (events, outputs), for features (events, features).

        Raises, at once or by the future: OverloadedError; RefusedError; GraphError; UnavailableError if they were not
        computed by the deadline, or no worker can be started.
        """
        graph = model.graph
        owner = self._owners.get(model.owner) or self._owners.setdefault(model.owner, _Owner(model.owner))
        history = self._history(graph)
        self._check_may_wait(owner, graph, history, features.nbytes)
        job = Job(deadline, self._loop.create_future())
        rows = rows_at_once(graph, history.row_s)
        if not owner.waiting and 0 < len(features) <= rows:  # the usual case, without a queue
            for worker in owner.idle:
                if graph.number in worker.loaded:
                    del owner.idle[worker]
                    self._begin(owner, worker, graph, [Part(job, 0, features)])
                    if self._is_lone() and history.row_s * len(features) < SPIN_S:
                        self._spin(owner, worker)
                    return job.answer
        parts = owner.waiting.setdefault(graph, deque())
        if len(features) <= rows:
            parts.append(Part(job, 0, features))
        else:
            starts = range(0, len(features), rows)
            job.scores = np.empty((len(features), graph.outputs), dtype=np.float32)
            job.parts_left = len(starts)
            parts.extend(Part(job, start, features[start : start + rows]) for start in starts)
        self._waits(owner, graph, len(features), features.nbytes)
        self._dispatch(owner)
        return job.answer

    def _is_lone(self) -> bool:
        """Return whether the last rounds of the event loop had one request each."""
        self._round_requests += 1
        if self._round_requests == 1:
            self._loop.call_soon(self._end_round)
        return self._lone_rounds >= SPIN_ROUNDS

    def _end_round(self) -> None:
        self._lone_rounds = self._lone_rounds + 1 if self._round_requests == 1 else 0
        self._round_requests = 0

    def _spin(self, owner: _Owner, worker: InferenceWorker) -> None:
        """Take the answer at once if it comes soon; the event loop takes a later one."""
        end = time.perf_counter() + SPIN_S
        while time.perf_counter() < end:
            if worker.has_answered():
                self._readable(owner, worker)
                return

    def _check_may_wait(self, owner: _Owner, graph: Graph, history: _History, size: int) -> None:
        if history.refused_until and (left_s := history.refused_until - time.monotonic()) > 0:
            raise self._refusal(graph, left_s)
        if (self.waiting_bytes and self.waiting_bytes + size > self._most_bytes) or (
            owner.waiting_bytes and owner.waiting_bytes + size > self._most_bytes // 2
        ):
            raise OverloadedError(f"{self.waiting_bytes:,} bytes of features wait already; ask again in a second")
        if owner.waiting and (waiting_s := self._waiting_s(owner)) > self._most_s:
            raise OverloadedError(f"work for {waiting_s:.1f} s waits already; ask again in a second")

    def _waits(self, owner: _Owner, graph: Graph, rows: int, size: int) -> None:
        """Count rows that begin to wait, or negative ones that end to."""
        owner.waiting_bytes += size
        self.waiting_bytes += size
        owner.waiting_rows[graph] += rows
        if graph not in owner.waiting:
            del owner.waiting_rows[graph]

    def _waiting_s(self, owner: _Owner) -> float:
        seconds = sum(rows * self._history(graph).row_s for graph, rows in owner.waiting_rows.items())
        return seconds / self._workers

    def _history(self, graph: Graph) -> _History:
        history = self._histories.get(graph)
        return self._histories.setdefault(graph, _History()) if history is None else history

    def _dispatch(self, owner: _Owner) -> None:
        """Send waiting work to the idle workers."""
        while owner.waiting:
            try:
                worker = self._idle_worker(owner)
            except UnavailableError as error:
                for graph in list(owner.waiting):
                    self._drop(owner, graph, error)
                return
            if worker is None:
                return
            graph, taken = self._next(owner)
            if taken:
                owner.idle.pop(worker)
                self._begin(owner, worker, graph, taken)

    def _idle_worker(self, owner: _Owner) -> InferenceWorker | None:
        """Return an idle worker of the owner, a new one if that helps, or None. Raises: UnavailableError."""
        needed = max(graph.row_bytes for graph in owner.waiting)
        for worker in list(owner.idle):
            if worker.holds(needed):
                return worker
            self._end(owner, worker)
        if owner.n_workers >= self._workers or (owner.busy and self._waiting_s(owner) < GROW_S):
            return None
        if self.n_workers >= self._most_workers and not self._end_oldest():
            if owner.n_workers:
                return None
            raise OverloadedError("all worker processes are busy; ask again in a second")
        worker = InferenceWorker(self._inference.server(), self._inference.memory, needed)
        owner.idle[worker] = time.monotonic()
        self._loop.add_reader(worker.fileno(), self._readable, owner, worker)
        if self._watch is None:
            self._watch = self._loop.call_later(LOOK_S, self._look)
        return worker

    def _next(self, owner: _Owner) -> tuple[Graph, list[Part]]:
        """Take the next batch, of the graph that has waited longest; late parts are dropped."""
        graph, waiting = owner.waiting.popitem(last=False)
        limit, now = rows_at_once(graph, self._history(graph).row_s), time.monotonic()
        taken: list[Part] = []
        rows = size = left_rows = 0
        while waiting:
            part = waiting[0]
            if part.job.answer.done() or part.job.deadline <= now:
                _fail(part, UnavailableError("the request waited past its deadline; ask again in a second"))
                left_rows += len(part.features)
            elif taken and (part.apart or rows + len(part.features) > limit):
                break
            else:
                taken.append(part)
                rows += len(part.features)
            size += part.features.nbytes
            waiting.popleft()
            if part.apart and taken:
                break
        if waiting:
            owner.waiting[graph] = waiting
        self._waits(owner, graph, -rows - left_rows, -size)
        return graph, taken

    def _begin(self, owner: _Owner, worker: InferenceWorker, graph: Graph, parts: list[Part]) -> None:
        """Send a batch to a worker that is idle, and before it the graph if need be."""
        now = time.monotonic()
        rows = sum(len(part.features) for part in parts)
        try:
            if graph.number not in worker.loaded:
                while worker.loaded and (
                    sum(worker.loaded.values()) + graph.size_bytes > self._cache_bytes
                    or len(worker.loaded) >= MOST_LOADED
                ):
                    worker.drop(next(iter(worker.loaded)))
                worker.load(graph)
                owner.busy[worker] = _Busy(graph, parts, rows, now, now + LOAD_S, loading=True)
            elif rows:
                worker.run(graph, [part.features for part in parts])
                owner.busy[worker] = _Busy(graph, parts, rows, now, now + COMPUTE_S)
            else:
                owner.idle[worker] = now
                _deliver(parts, np.zeros((0, graph.outputs), dtype=np.float32))
        except OSError:  # it has ended: the event loop hears it next
            owner.busy[worker] = _Busy(graph, parts, rows, now, now + COMPUTE_S)

    def _readable(self, owner: _Owner, worker: InferenceWorker) -> None:
        """Take an answer."""
        busy = owner.busy.get(worker)
        if busy is None:  # an idle worker has nothing to say, unless it ended
            self._end(owner, worker)
            return
        try:
            if not worker.receive(busy.graph):
                self._loop.remove_reader(worker.fileno())
                self._loop.call_later(ENDING_S, self._ended, owner, worker)
                return
        except GraphError as error:
            worker.loaded.pop(busy.graph.number) if busy.loading else None
            self._failed(owner, worker, error)
            return
        del owner.busy[worker]
        if busy.loading:
            owner.waiting.setdefault(busy.graph, deque()).extendleft(reversed(busy.parts))
            owner.waiting.move_to_end(busy.graph, last=False)
            self._waits(owner, busy.graph, busy.rows, sum(part.features.nbytes for part in busy.parts))
        else:
            history = self._history(busy.graph)
            row_s = (time.monotonic() - busy.began) / busy.rows
            share = busy.rows / (busy.rows + STEADY_ROWS) if history.row_s else 1.0
            history.row_s += share * (row_s - history.row_s)
            _deliver(busy.parts, worker.outputs(busy.graph, busy.rows))
            self.computed(busy.rows)
        owner.idle[worker] = time.monotonic()
        self._dispatch(owner)

    def _ended(self, owner: _Owner, worker: InferenceWorker) -> None:
        """A worker has closed its channel."""
        if worker in owner.busy:
            self._failed(owner, worker, worker_lost(owner.busy[worker].graph, worker.ending(0)))

    def _failed(self, owner: _Owner, worker: InferenceWorker, error: GraphError) -> None:
        """Pass the error on to a request that was computed alone; let the requests of a batch be computed apart."""
        busy = owner.busy.pop(worker)
        if isinstance(error, WorkerLostError):
            self._end(owner, worker)
            self._count_failure(owner, busy.graph)
        else:
            owner.idle[worker] = time.monotonic()
        if len(busy.parts) == 1 or busy.loading:
            for part in busy.parts:
                _fail(part, error.after(part.start) if isinstance(error, RowError) else error)
        else:
            for part in reversed(busy.parts):
                part.apart = True
                owner.waiting.setdefault(busy.graph, deque()).appendleft(part)
                self._waits(owner, busy.graph, len(part.features), part.features.nbytes)
        self._dispatch(owner)

    def _count_failure(self, owner: _Owner, graph: Graph) -> None:
        """Count a worker that a graph has ended, and refuse the graph if they are many."""
        history, now = self._history(graph), time.monotonic()
        history.failures.append(now)
        if len(history.failures) == FAILURES and now - history.failures[0] <= FAILING_S:
            history.failures.clear()
            history.refused_until = now + REFUSED_S
            self._drop(owner, graph, self._refusal(graph, REFUSED_S))

    def _end(self, owner: _Owner, worker: InferenceWorker) -> None:
        """End a worker that is idle, or lost."""
        owner.idle.pop(worker, None)
        self._loop.remove_reader(worker.fileno())
        worker.close()

    def _end_oldest(self) -> bool:
        """End the worker that has been idle longest; return whether there was one."""
        idle = [(since, owner, worker) for owner in self._owners.values() for worker, since in owner.idle.items()]
        if idle:
            _, owner, worker = min(idle, key=lambda one: one[0])
            self._end(owner, worker)
        return bool(idle)

    def _look(self) -> None:
        """End workers that hang, and those that have been idle for long; forget owners without any."""
        now = time.monotonic()
        for name, owner in list(self._owners.items()):
            for worker, busy in list(owner.busy.items()):
                if now > busy.end:
                    how = f"did not answer for {busy.end - busy.began:.0f} s and was ended"
                    self._failed(owner, worker, worker_lost(busy.graph, how))
            for worker, since in list(owner.idle.items()):
                if now - since > IDLE_S:
                    self._end(owner, worker)
            if not owner.n_workers and not owner.waiting:
                del self._owners[name]
        self._watch = self._loop.call_later(LOOK_S, self._look) if self._owners else None

    def _drop(self, owner: _Owner, graph: Graph, error: Exception) -> None:
        """Fail all waiting requests of a graph."""
        parts = owner.waiting.pop(graph, None)
        if parts:
            self._waits(owner, graph, 0, -sum(part.features.nbytes for part in parts))
            for part in parts:
                _fail(part, error)

    def _refusal(self, graph: Graph, left_s: float) -> RefusedError:
        return RefusedError(
            f"{graph.name} ended its process {FAILURES} times within {FAILING_S:.0f} s; it is refused for another "
            f"{left_s:.0f} s"
        )


def _deliver(parts: Iterable[Part], scores: NDArray[np.float32]) -> None:
    """Give each part its scores, the next ones of all."""
    start = 0
    for part in parts:
        job, stop = part.job, start + len(part.features)
        if job.answer.done():  # the client has gone, or another part failed
            pass
        elif job.scores is None:
            job.answer.set_result(scores[start:stop])
        else:
            job.scores[part.start : part.start + stop - start] = scores[start:stop]
            job.parts_left -= 1
            if not job.parts_left:
                job.answer.set_result(job.scores)
        start = stop


def _fail(part: Part, error: Exception) -> None:
    if not part.job.answer.done():
        part.job.answer.set_exception(error)
