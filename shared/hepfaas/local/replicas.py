"""Processes of the functions. Their number follows the load, from none without requests to `max_scale`."""

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
MAX_FAILED = 3
"""Failed starts in a row after which requests are answered with an error until the next start."""

BACK_OFF_S, MAX_BACK_OFF_S = 0.25, 30.0


@dataclass(frozen=True)
class Function:
    """A function: max_scale processes, each with `concurrency` requests at a time, ended after idle_s without one.

    variables: of the environment of this function alone.
    """

    name: str
    max_scale: int = 1
    concurrency: int = 1
    idle_s: float = IDLE_S
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Failed:
    """Number of failed starts of a function in a row, and the time from which the next is allowed."""

    count: int = 0
    again: float = 0.0

    def add(self) -> None:
        """Count a failed start."""
        self.count += 1
        self.again = time.monotonic() + min(BACK_OFF_S * 2**self.count, MAX_BACK_OFF_S)


@dataclass
class Replica:
    """A process of a function. busy: requests under way. used: time of the last one."""

    process: subprocess.Popen[bytes]
    url: str
    busy: int = 0
    used: float = field(default_factory=time.monotonic)
    ready: bool = False

    @property
    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.process.poll() is None


class Replicas:
    """The processes of all functions, for use in one event loop."""

    def __init__(self, functions: Path, environ: Mapping[str, str], logs: Path) -> None:
        self._functions, self._environ, self._logs = functions, dict(environ), logs
        self._specs: dict[str, Function] = {}
        self._replicas: dict[str, list[Replica]] = {}
        self._freed: dict[str, asyncio.Condition] = {}
        self._failed: dict[str, Failed] = {}
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.started = 0
        self._closed = False

    def add(self, function: Function) -> None:
        """Add a function, without processes."""
        self._specs[function.name] = function
        self._replicas[function.name] = []
        self._freed[function.name] = asyncio.Condition()
        self._failed[function.name] = Failed()

    def set_variable(self, name: str, value: str) -> None:
        """Set an environment variable of future processes."""
        self._environ[name] = value

    def count(self, name: str) -> int:
        """Return the number of running processes of a function."""
        return sum(replica.alive for replica in self._replicas[name])

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        """Return the response of a function; timeout_s includes the wait for a process. Raises: UnavailableError."""
        try:
            async with asyncio.timeout(timeout_s), self.lent(name) as url:
                return await self._client.post(f"{url}/", headers=dict(headers), content=body)
        except TimeoutError as error:
            raise UnavailableError(f"function '{name}' did not answer within {timeout_s} s") from error
        except httpx.HTTPError as error:
            raise UnavailableError(f"function '{name}' closed the connection: {error}") from error

    @asynccontextmanager
    async def lent(self, name: str) -> AsyncIterator[str]:
        """Yield the URL of a process that has room for a request, and count the request until the context ends."""
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
        function, freed = self._specs[name], self._freed[name]
        async with freed:
            while not self._closed:
                self._replicas[name] = [replica for replica in self._replicas[name] if replica.alive]
                ready = [replica for replica in self._replicas[name] if replica.ready]
                free = [replica for replica in ready if replica.busy < function.concurrency]
                if free:
                    return max(free, key=lambda replica: replica.used)
                is_starting = len(ready) < len(self._replicas[name])
                failed = self._failed[name]
                may_start = time.monotonic() >= failed.again
                if not self._replicas[name] and failed.count >= MAX_FAILED and not may_start:
                    ends = f"function '{name}' ends during its start"
                    raise UnavailableError(
                        f"{ends}; the reason is in {self._log(name)}",
                        outside=f"{ends}; the reason is in its log, in the folder of `hepfaas up`",
                    )
                if not is_starting and may_start and len(self._replicas[name]) < function.max_scale:
                    self._start(function)
                with suppress(TimeoutError):
                    await asyncio.wait_for(freed.wait(), 1)
            raise UnavailableError("the service is stopping")

    def _start(self, function: Function) -> None:
        """Start a process; `_wait_for` notifies those that wait in `_free`."""
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
                response = await self._client.get(f"{replica.url}/healthz", timeout=5)
                if response.status_code < 500:
                    replica.ready, replica.used = True, time.monotonic()
                    self._failed[name] = Failed()
                    break
            await asyncio.sleep(POLL_S)
        if not replica.ready:
            self._failed[name].add()
            kill(replica.process)
        async with self._freed[name]:
            self._freed[name].notify_all()

    def reap(self) -> None:
        """Terminate processes that have been idle for too long."""
        now = time.monotonic()
        for name, replicas in self._replicas.items():
            for replica in replicas:
                if replica.ready and not replica.busy and now - replica.used > self._specs[name].idle_s:
                    replica.ready = False
                    replica.process.terminate()

    async def close(self) -> None:
        """End all processes. A step that is cut off is repeated after the next start."""
        self._closed = True  # no process starts from now on
        processes = [replica.process for replicas in self._replicas.values() for replica in replicas]
        await asyncio.to_thread(child.stop, processes, STOP_S)
        await self._client.aclose()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
