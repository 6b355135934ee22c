"""Who computes what was asked: idle threads take what waits at once, and what queues meanwhile is one batch.

No wait is ever added: a lone request goes to an idle thread as it is. Each thread has interpreters of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import LimitError, UnavailableError

BATCH_ROWS = 2_048
"""Rows computed together, if they came in more requests than one."""

MOST_S = 2.0
"""Work that may wait, in seconds as the computing of late has taken: the next one would wait longer."""


class Runtime(Protocol):
    """What computes a network's outputs; used by one thread at a time."""

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs, (events, outputs), for features (events, features)."""
        ...


class Model(Protocol):
    """What can be asked for a runtime; each thread asks once, and forgets it with the model."""

    def runtime(self) -> Runtime:
        """A new one."""
        ...


class OverloadedError(LimitError):
    """More waits than may wait (HTTP 429): nothing was computed, and the same request may work in a second."""


@dataclass(eq=False)
class Job:
    """Rows that one request wants computed by a deadline (as `time.monotonic`)."""

    features: NDArray[np.float32]
    deadline: float
    answer: asyncio.Future[NDArray[np.float32]] = field(repr=False)


class Batching:
    """Threads that compute, shared by all models. most_bytes: of features that wait. most_s: of work that waits.

    Made and asked by the thread of an event loop.
    """

    def __init__(self, threads: int, most_bytes: int, most_s: float = MOST_S) -> None:
        self._most_bytes, self._most_s = most_bytes, most_s
        self._waiting: OrderedDict[Model, deque[Job]] = OrderedDict()
        self._waiting_bytes = 0
        self._waiting_rows: Counter[Model] = Counter()
        self._row_s: WeakKeyDictionary[Model, float] = WeakKeyDictionary()
        self._change = threading.Condition()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self.computed: Callable[[int], None] = lambda rows: None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of features that wait."""
        return self._waiting_bytes

    @property
    def waiting_s(self) -> float:
        """Seconds that what waits will take, as the computing of late has taken; a model's first rows take none."""
        with self._change:
            alone = sum(rows * self._row_s.get(model, 0.0) for model, rows in self._waiting_rows.items())
        return alone / len(self._threads)

    def close(self) -> None:
        """Ends the threads; what waits is not computed."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    async def predict(self, model: Model, features: NDArray[np.float32], deadline: float) -> NDArray[np.float32]:
        """Outputs of the model, (events, outputs), for features (events, features).

        Raises: OverloadedError; UnavailableError if it was not computed by the deadline.
        """
        job = Job(features, deadline, self._loop.create_future())
        with self._change:
            if self._waiting_bytes and self._waiting_bytes + features.nbytes > self._most_bytes:
                raise OverloadedError(f"{self._waiting_bytes:,} bytes of features wait already; ask again in a second")
            if self.waiting_s > self._most_s:
                raise OverloadedError(f"work for {self.waiting_s:.1f} s waits already; ask again in a second")
            self._waiting_bytes += features.nbytes
            self._waiting_rows[model] += len(features)
            self._waiting.setdefault(model, deque()).append(job)
            self._change.notify()
        return await job.answer

    def _work(self) -> None:
        runtimes: WeakKeyDictionary[Model, Runtime] = WeakKeyDictionary()
        while (taken := self._next()) is not None:
            model, jobs = taken
            rows, began = sum(len(job.features) for job in jobs), time.monotonic()
            try:
                if model not in runtimes:
                    runtimes[model] = model.runtime()
                outputs: Sequence[Any] = _computed(runtimes[model], jobs)
            except Exception as error:  # whatever a runtime raises is the answer to those who asked
                outputs = [error] * len(jobs)
            self._row_s[model] = (self._row_s.get(model, 0.0) + (time.monotonic() - began) / max(rows, 1)) / 2
            self._loop.call_soon_threadsafe(_deliver, jobs, outputs)
            self.computed(rows)
            del model, jobs, outputs, taken  # an idle thread holds no model that nobody serves any more

    def _next(self) -> tuple[Model, list[Job]] | None:
        """What waits of the model that waits longest; None at the end."""
        with self._change:
            while not self._waiting and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            model, waiting = self._waiting.popitem(last=False)
            jobs, rows = [waiting.popleft()], 0
            while waiting and (rows := rows + len(jobs[-1].features)) + len(waiting[0].features) <= BATCH_ROWS:
                jobs.append(waiting.popleft())
            if waiting:
                self._waiting[model] = waiting
                self._waiting_rows[model] -= sum(len(job.features) for job in jobs)
            else:
                del self._waiting_rows[model]
            self._waiting_bytes -= sum(job.features.nbytes for job in jobs)
            return model, jobs


def _computed(runtime: Runtime, jobs: Sequence[Job]) -> list[Any]:
    """The outputs of each job, or why it has none."""
    now = time.monotonic()
    late = UnavailableError("the request waited past its deadline and was not computed; ask again in a second")
    wanted = [job for job in jobs if job.deadline > now and not job.answer.cancelled()]
    if not wanted:
        return [late] * len(jobs)
    together = wanted[0].features if len(wanted) == 1 else np.concatenate([job.features for job in wanted])
    outputs, start = runtime.predict(together), 0
    found: dict[Job, Any] = {}
    for job in wanted:
        found[job] = outputs[start : start + len(job.features)]
        start += len(job.features)
    return [found.get(job, late) for job in jobs]


def _deliver(jobs: Sequence[Job], outputs: Sequence[Any]) -> None:
    for job, output in zip(jobs, outputs, strict=True):
        if job.answer.done():
            continue  # who asked has gone
        if isinstance(output, Exception):
            job.answer.set_exception(output)
        else:
            job.answer.set_result(output)
