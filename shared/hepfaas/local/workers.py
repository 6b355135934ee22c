"""Worker processes for steps. Each does one step at a time, so the number of workers bounds the memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
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
Item = TypeVar("Item")
Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Workers:
    """A pool of `count` processes that use the store at a URL."""

    def __init__(self, count: int, store_url: str) -> None:
        self._count, self._store_url = count, store_url
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def perform(self, steps: Sequence[Step]) -> Iterator[tuple[Step, float | MissingError]]:
        """Do steps and yield each as it ends, in any order, with its seconds or with the error of a missing input.

        Raises: RequestError for the first step that cannot succeed; UnavailableError after the last attempt of one.
        """
        left = {step.key: step for step in steps}
        for attempt in range(1, MAX_ATTEMPTS + 1):
            errors: list[UnavailableError] = []
            for step, outcome in self._round(list(left.values())):
                if isinstance(outcome, UnavailableError) and not isinstance(outcome, MissingError):
                    errors.append(outcome)
                    continue
                del left[step.key]
                yield step, outcome
            if not left:
                return
            if attempt == MAX_ATTEMPTS:
                raise errors[0] if errors else UnavailableError(_killed(next(iter(left.values()))))
            time.sleep(BACK_OFF_S * 2**attempt)

    def spread(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the result of a pure function for each item.

        Raises: UnavailableError if its process is killed in each attempt.
        """
        items = list(items)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return list(self._started().map(function, items))
            except BrokenProcessPool:
                self._stop()
                time.sleep(BACK_OFF_S * 2**attempt)
        raise UnavailableError(f"the process of '{function.__name__}' was killed {MAX_ATTEMPTS} times")

    def warm(self, function: Callable[[], None]) -> None:
        """Call a function in each idle worker, without waiting. Its work is lost if a worker is killed."""
        with contextlib.suppress(BrokenProcessPool):
            for _ in range(self._count):
                self._started().submit(function)

    def _round(self, steps: Sequence[Step]) -> Iterator[tuple[Step, float | UnavailableError]]:
        """Yield the outcome of one attempt of each step, except of those that are lost with a killed worker."""
        pool = self._started()
        waiting: dict[Future[float], Step] = {}
        try:
            for step in steps:
                waiting[pool.submit(_perform, step.to_json(), self._store_url)] = step
            while waiting:
                ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    step = waiting.pop(future)
                    try:
                        outcome: float | UnavailableError = future.result()
                    except UnavailableError as error:
                        outcome = error
                    yield step, outcome
        except BrokenProcessPool:
            self._stop()
        finally:
            for future in waiting:
                future.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, initializer=_begin, initargs=(os.getpid(),))
        return self._pool

    def _stop(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


def perform(step: Step, store: Store, **tools: Any) -> float:
    """Do one step in this process, unless its result exists, and return its seconds."""
    start = time.monotonic()
    if store.size_bytes(step.key) is None:
        performing.perform(step, store, **tools)
    return time.monotonic() - start


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
