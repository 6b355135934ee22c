"""Worker processes for steps. Each does one step at a time, so the number of workers bounds the memory.

A worker that is killed loses its own task and no other: each has a pipe of its own to this process, which ends with the
worker. `ProcessPoolExecutor` of Python 3.11 loses tasks that are submitted while it finds a worker dead, and they never
end.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from hepfaas.errors import MissingError, UnavailableError
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.steps import Step, step_from_json
from hepfaas.steps import performing

MAX_ATTEMPTS = 4
"""Attempts of a step for which something outside does not answer, or whose process is killed."""

BACK_OFF_S = 0.5
GRACE_S = 5.0
"""Seconds that workers have to end their tasks when the pool is closed."""

LOOK_S = 1.0
"""Seconds between looks at whether busy workers are alive, if none of them answers."""

Item = TypeVar("Item")
Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class KilledError(UnavailableError):
    """The process that did a task was killed."""


@dataclass(eq=False)
class _Task:
    """A call in a worker. key: of the caller. ended: where the task is put when it has a value or an error."""

    key: Any
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    ended: deque[_Task]
    value: Any = None
    error: Exception | None = None


class _Worker:
    """One process. task: what it does at present. is_lost: whether it was found dead."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.task: _Task | None = None
        self.is_lost = False
        self._process = context.Process(target=_work, args=(theirs, os.getpid()))
        self._process.start()
        theirs.close()  # then the pipe ends with the process

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def give(self, task: _Task) -> None:
        """Begin a task. If the process is dead, `take` finds it out."""
        self.task = task
        with contextlib.suppress(OSError):
            self.pipe.send((task.function, task.arguments))

    def take(self) -> None:
        """End the task with what the process answers."""
        task, self.task = self.task, None
        assert task
        try:
            task.value, task.error = self.pipe.recv()
        except (EOFError, OSError):
            task.error, self.is_lost = KilledError(f"the process of '{task.function.__name__}' was killed"), True
        task.ended.append(task)

    def close(self) -> None:
        """Let the process end after its task."""
        self.pipe.close()

    def end(self, timeout_s: float) -> None:
        """Wait until the process has ended, and kill it after the timeout."""
        self._process.join(timeout_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class Workers:
    """A pool of up to `count` processes that use the store at a URL."""

    def __init__(self, count: int, store_url: str) -> None:
        self._count, self._store_url = count, store_url
        self._workers: list[_Worker] = []
        self._waiting: deque[_Task] = deque()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.close()
        deadline = time.monotonic() + GRACE_S
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))
        self._workers.clear()

    def perform(self, steps: Sequence[Step]) -> Iterator[tuple[Step, float | MissingError]]:
        """Do steps and yield each as it ends, in any order, with its seconds or with the error of a missing input.

        Raises: RequestError for the first step that cannot succeed; UnavailableError after the last attempt of one.
        """
        left = {step.key: step for step in steps}
        attempts: Counter[str] = Counter()
        while left:
            failed: list[tuple[Step, UnavailableError]] = []
            for task in self._round(_perform, {key: (step.to_json(), self._store_url) for key, step in left.items()}):
                match task.error:
                    case None | MissingError() as missing:
                        yield left.pop(task.key), missing or task.value
                    case UnavailableError() as error:
                        failed.append((left[task.key], error))
                    case error:
                        raise error
            attempts.update(step.key for step, _ in failed)
            for step, error in failed:
                if attempts[step.key] == MAX_ATTEMPTS:
                    raise UnavailableError(_killed(step)) if isinstance(error, KilledError) else error
            if failed:
                time.sleep(BACK_OFF_S * 2 ** max(attempts[step.key] for step, _ in failed))

    def spread(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the result of a pure function for each item.

        Raises: UnavailableError if its process is killed in each attempt.
        """
        calls: dict[int, tuple[Item]] = {number: (item,) for number, item in enumerate(items)}
        results: dict[int, Result] = {}
        for attempt in range(1, MAX_ATTEMPTS + 1):
            for task in self._round(function, calls):
                if isinstance(task.error, KilledError):
                    continue
                if task.error:
                    raise task.error
                results[task.key] = task.value
                del calls[task.key]
            if not calls:
                return [results[number] for number in sorted(results)]
            time.sleep(BACK_OFF_S * 2**attempt)
        raise UnavailableError(f"the process of '{function.__name__}' was killed {MAX_ATTEMPTS} times")

    def warm(self, function: Callable[[], None]) -> None:
        """Call a function in each idle worker, without waiting. Its work is lost if a worker is killed."""
        self._start(self._count)
        for worker in self._workers:
            if not worker.task:
                worker.give(_Task(None, function, (), deque()))

    def _round(self, function: Callable[..., Any], calls: Mapping[Any, tuple[Any, ...]]) -> Iterator[_Task]:
        """Yield the task of each call as it ends. When the process of one is killed, no other one begins: its cause may
        kill a process for each call. Rounds may be nested."""
        ended: deque[_Task] = deque()
        self._waiting.extendleft(_Task(key, function, calls[key], ended) for key in reversed(calls))
        n_left = len(calls)
        try:
            while n_left:
                while not ended:
                    self._look()
                task = ended.popleft()
                n_left -= 1
                if isinstance(task.error, KilledError):
                    n_left -= self._drop(ended)
                yield task
        finally:
            self._drop(ended)

    def _drop(self, ended: deque[_Task]) -> int:
        """Forget the waiting tasks of a round, and return how many there were."""
        kept = deque(task for task in self._waiting if task.ended is not ended)
        n_dropped = len(self._waiting) - len(kept)
        self._waiting = kept
        return n_dropped

    def _look(self) -> None:
        """Give waiting tasks to idle workers, and end the tasks that are answered or whose workers are dead."""
        n_busy = sum(worker.task is not None for worker in self._workers)
        self._start(min(self._count, n_busy + len(self._waiting)))
        for worker in self._workers:
            if not worker.task and self._waiting:
                worker.give(self._waiting.popleft())
        busy = [worker for worker in self._workers if worker.task]
        answered = multiprocessing.connection.wait([worker.pipe for worker in busy], timeout=LOOK_S)
        for worker in busy:
            if worker.pipe in answered or not worker.is_alive:
                worker.take()
        self._workers = [worker for worker in self._workers if not worker.is_lost]

    def _start(self, count: int) -> None:
        """Start workers until there are `count`."""
        while len(self._workers) < count:
            self._workers.append(_Worker())


def perform(step: Step, store: Store, **tools: Any) -> float:
    """Do one step in this process, unless its result exists, and return its seconds."""
    start = time.monotonic()
    if store.size_bytes(step.key) is None:
        performing.perform(step, store, **tools)
    return time.monotonic() - start


def _work(pipe: multiprocessing.connection.Connection, parent: int) -> None:
    """Do the tasks that come through the pipe, until it ends."""
    _begin(parent)
    with contextlib.suppress(EOFError, OSError):  # the parent has closed it
        while True:
            function, arguments = pipe.recv()
            pipe.send(_outcome(function, arguments))


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return function(*arguments), None
    except Exception as error:  # raised again in the parent
        text = "".join(traceback.format_exception(error))
        error.add_note(text)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some classes of exceptions cannot be sent
            return None, RuntimeError(text)
        return None, error


def _begin(parent: int) -> None:
    """Set up a worker: the parent handles Ctrl-C, and the worker ends with its parent even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _perform(values: Mapping[str, Any], store_url: str) -> float:
    return perform(step_from_json(values), _store(store_url))


@functools.cache
def _store(url: str) -> Store:
    return open_store(url)


def _killed(step: Step) -> str:
    values = step.to_json()
    work = f"entries {values['entries']} of '{values['url']}'" if "entries" in values else step.key
    return (
        f"the process that did '{step.kind}' of {work} was killed {MAX_ATTEMPTS} times, perhaps for lack of memory; "
        "try --workers 1 or a smaller 'range_events' in params.json"
    )
