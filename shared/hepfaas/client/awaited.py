"""The calls of Client for `await` and `async for`, made from those of Client: each runs in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from hepfaas.client.calls import DAY_S, Client, not_ended, pauses
from hepfaas.client.connection import MOST_CONNECTIONS, Token
from hepfaas.client.status import Status

T = TypeVar("T")
P = ParamSpec("P")
END = object()


def _awaited(
    call: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Return a call of AsyncClient for one of Client."""

    @wraps(call)
    async def awaited(self: AsyncClient, /, *args: P.args, **more: P.kwargs) -> T:
        return await self._in_thread(partial(call, self._client, *args, **more))

    return awaited


def _iterated(
    call: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    """Return a call of AsyncClient for one of Client that yields."""

    @wraps(call)
    async def iterated(self: AsyncClient, /, *args: P.args, **more: P.kwargs) -> AsyncIterator[T]:
        items = _with_callbacks(partial(call, self._client), *args, **more)
        while (item := await self._in_thread(partial(next, items, END))) is not END:
            yield cast(T, item)

    return iterated


def _with_callbacks(call: Callable[..., T], *args: Any, **more: Any) -> T:
    """Return the result of a call whose callbacks run in the event loop, not in its thread."""
    call_soon = asyncio.get_running_loop().call_soon_threadsafe

    def in_loop(value: Any) -> Any:
        return partial(call_soon, value) if callable(value) else value

    return call(*map(in_loop, args), **{name: in_loop(value) for name, value in more.items()})


class AsyncClient:
    """Client for programs that wait for many things at once: up to 1,000 calls, callbacks in the event loop.

    `await` the calls that return in Client, and use `async for` on those that yield.
    """

    def __init__(self, url: str, token: Token = "", group: str = "") -> None:
        self._client = Client(url, token, group)
        self._threads = ThreadPoolExecutor(MOST_CONNECTIONS, "hepfaas-client")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, at)
        self._threads.shutdown(wait=False, cancel_futures=True)  # a thread that still reads gets a closed connection

    submit = _awaited(Client.submit)
    status = _awaited(Client.status)
    runs = _iterated(Client.runs)
    models = _awaited(Client.models)
    report = _awaited(Client.report)
    report_page = _awaited(Client.report_page)
    compare = _awaited(Client.compare)
    ledger = _awaited(Client.ledger)
    tag = _awaited(Client.tag)
    untag = _awaited(Client.untag)
    note = _awaited(Client.note)
    notes = _awaited(Client.notes)
    score = _awaited(Client.score)
    predict = _iterated(Client.predict)
    scores = _iterated(Client.scores)
    cancel = _awaited(Client.cancel)
    retry = _awaited(Client.retry)
    delete = _awaited(Client.delete)
    fetch = _awaited(Client.fetch)
    log = _iterated(Client.log)
    steps = _iterated(Client.steps)

    async def follow(self, run: str, timeout_s: float = DAY_S) -> AsyncIterator[Status]:
        """Client.follow without a thread between two looks."""
        end = time.monotonic() + timeout_s
        for pause_s in pauses():
            yield (status := await self.status(run))
            if status.ended:
                return
            if time.monotonic() > end:
                raise not_ended(run, timeout_s)
            await asyncio.sleep(pause_s)

    async def wait(
        self, run: str, on_status: Callable[[Status], None] | None = None, timeout_s: float = DAY_S
    ) -> Status:
        """Client.wait without a thread between two looks."""
        async for status in self.follow(run, timeout_s):
            if on_status and not status.ended:
                on_status(status)
        return status

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
