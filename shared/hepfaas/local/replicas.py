"""Every function in processes of its own, as many as its load asks for: none when nobody calls, at most `max_scale`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hepfaas.errors import UnavailableError
from hepfaas.local import child

START_S = 60
IDLE_S = 120.0
POLL_S = 0.03
STOP_S = 2.0
MOST_FAILED = 3
"""Starts in a row that may fail while callers wait for the next; after that they are told."""

BACK_OFF_S, MOST_BACK_OFF_S = 0.25, 30.0


@dataclass(frozen=True)
class Function:
    """One function: its entry point, how many processes it may have and how many requests each takes at a time.

    variables: of its environment alone.
    """

    name: str
    max_scale: int = 1
    concurrency: int = 1
    idle_s: float = IDLE_S
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Failed:
    """Starts of a function that failed in a row, and when the next may be tried."""

    count: int = 0
    again: float = 0.0

    def once_more(self) -> None:
        """One more failed."""
        self.count += 1
        self.again = time.monotonic() + min(BACK_OFF_S * 2**self.count, MOST_BACK_OFF_S)


@dataclass
class Replica:
    """One process of a function."""

    process: subprocess.Popen[bytes]
    url: str
    busy: int = 0
    used: float = field(default_factory=time.monotonic)
    ready: bool = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None


class Replicas:
    """The processes of all functions. Used from one event loop."""

    def __init__(self, functions: Path, environ: Mapping[str, str], logs: Path) -> None:
        self._functions, self._environ, self._logs = functions, dict(environ), logs
        self._kinds: dict[str, Function] = {}
        self._replicas: dict[str, list[Replica]] = {}
        self._freed: dict[str, asyncio.Condition] = {}
        self._failed: dict[str, Failed] = {}
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.started = 0
        self._closed = False

    def add(self, function: Function) -> None:
        """Makes a function known."""
        self._kinds[function.name] = function
        self._replicas[function.name] = []
        self._freed[function.name] = asyncio.Condition()
        self._failed[function.name] = Failed()

    def set_variable(self, name: str, value: str) -> None:
        """A variable of the environment of processes to come."""
        self._environ[name] = value

    def count(self, name: str) -> int:
        """Processes of a function that run."""
        return sum(replica.alive for replica in self._replicas[name])

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        """One request to a function, waiting for a free process included. Raises: UnavailableError."""
        try:
            async with asyncio.timeout(timeout_s), self.lent(name) as url:
                return await self._client.post(f"{url}/", headers=dict(headers), content=body)
        except TimeoutError as error:
            raise UnavailableError(f"function '{name}' gave no answer in {timeout_s} s") from error
        except httpx.HTTPError as error:
            raise UnavailableError(f"function '{name}' cut the connection: {error}") from error

    @asynccontextmanager
    async def lent(self, name: str) -> AsyncIterator[str]:
        """The URL of a process with a free place, while it is used."""
        replica = await self._free(name)
        replica.busy += 1
        try:
            yield replica.url
        finally:
            replica.busy -= 1
            replica.used = time.monotonic()
            async with self._freed[name]:
                self._freed[name].notify_all()

    async def _free(self, name: str) -> Replica:
        function, freed = self._kinds[name], self._freed[name]
        async with freed:
            while not self._closed:
                self._replicas[name] = [one for one in self._replicas[name] if one.alive]
                free = [one for one in self._replicas[name] if one.ready and one.busy < function.concurrency]
                if free:
                    return max(free, key=lambda one: one.used)
                starting = [one for one in self._replicas[name] if not one.ready]
                failed = self._failed[name]
                may_start = time.monotonic() >= failed.again
                if not self._replicas[name] and failed.count >= MOST_FAILED and not may_start:
                    ends = f"function '{name}' ends as it starts"
                    raise UnavailableError(
                        f"{ends}; {self._log(name)} tells why", outside=f"{ends}; its log in the folder of up tells why"
                    )
                if not starting and may_start and len(self._replicas[name]) < function.max_scale:
                    self._start(function)
                with suppress(TimeoutError):
                    await asyncio.wait_for(freed.wait(), 1)
            raise UnavailableError("the system is stopping")

    def _start(self, function: Function) -> None:
        """A further process; who waits is told when it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.started += 1
        variables = {
            **self._environ,
            **function.variables,
            "FUNCTION_TARGET": function.name,
            "FUNCTION_SOURCE": str(self._functions / function.name / "main.py"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKERS": "1",
            "THREADS": str(function.concurrency + 1),
        }
        with self._log(function.name).open("ab") as out:
            process = child.started([sys.executable, "-m", "functions_framework"], variables, out)
        replica = Replica(process, f"http://127.0.0.1:{port}")
        self._replicas[function.name].append(replica)
        task = asyncio.create_task(self._wait_for(replica, function.name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    async def _wait_for(self, replica: Replica, name: str) -> None:
        end = time.monotonic() + START_S
        while replica.alive and time.monotonic() < end:
            with suppress(httpx.HTTPError):
                answer = await self._client.get(f"{replica.url}/healthz", timeout=5)
                if answer.status_code < 500:
                    replica.ready, replica.used = True, time.monotonic()
                    self._failed[name] = Failed()
                    break
            await asyncio.sleep(POLL_S)
        if not replica.ready:
            self._failed[name].once_more()
            kill(replica.process)
        async with self._freed[name]:
            self._freed[name].notify_all()

    def reap(self) -> None:
        """Ends processes that nobody has called for long."""
        now = time.monotonic()
        for name, replicas in self._replicas.items():
            for replica in replicas:
                if replica.ready and not replica.busy and now - replica.used > self._kinds[name].idle_s:
                    replica.ready = False
                    replica.process.terminate()

    async def close(self) -> None:
        """Ends them all. A step that is under way may be cut off: it loses its work and nothing else."""
        self._closed = True  # from now on nobody starts another one
        processes = [replica.process for some in self._replicas.values() for replica in some]
        await asyncio.to_thread(child.stop, processes, STOP_S)
        await self._client.aclose()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
