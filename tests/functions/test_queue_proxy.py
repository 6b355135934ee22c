"""`train` behind Knative's queue-proxy: a step cut off at the time limit ends after the redelivery."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from hepfaas.cli import main
from hepfaas.client import Client
from hepfaas.errors import UnavailableError
from hepfaas.models import versions
from hepfaas.platform.cloud_events import read_event
from hepfaas.platform.stores import open_store
from support.jobs import small_job
from support.queue_proxy import QueueProxy
from support.servers import LIMIT_S, free_port, is_open, wait_until
from support.system import System

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 3


@contextmanager
def process(command: list[str], port: int, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server of this test in a session of its own."""
    started = subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: is_open(port), started, command[0])
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(timeout=LIMIT_S)


@contextmanager
def train_function(system: System, port: int, budget_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start the function as in a pod."""
    variables = {
        **system.up.replicas._environ,
        "FUNCTION_TARGET": "train",
        "FUNCTION_SOURCE": str(ROOT / "functions" / "train" / "main.py"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
        "THREADS": "2",
        "HEPFAAS_BUDGET_S": str(budget_s),
    }
    with process([sys.executable, "-m", "functions_framework"], port, **variables) as started:
        yield started


class ThroughTheProxy:
    """Calls `train` through a queue-proxy and keeps its answers."""

    def __init__(self, system: System, url: str) -> None:
        self._below, self._url = system.up.replicas, url
        self.answers: list[int] = []

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        if name != "train":
            return await self._below.call(name, headers, body, timeout_s)
        async with httpx.AsyncClient(timeout=timeout_s) as client:
            try:
                answer = await client.post(f"{self._url}/", headers=dict(headers), content=body)
            except httpx.HTTPError as error:
                raise UnavailableError(str(error)) from error
        self.answers.append(answer.status_code)
        return answer


@pytest.mark.slow
def test_a_step_cut_off_by_the_proxy_is_finished_by_the_redelivery(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "cut", seed=51, epochs=4)
    with System(tmp_path / "up") as system:
        port = free_port()
        with train_function(system, port, budget_s=1), QueueProxy(port, timeout_s=TIMEOUT_S) as proxy:
            through = ThroughTheProxy(system, proxy.url)
            system.up.broker._caller = through
            with Client(system.url) as client:
                ended = client.wait(client.submit(folder), timeout_s=300)
            assert ended.state == "completed", ended.error
            assert 504 in through.answers
            assert 204 in through.answers
            weights = versions.card_of(system.store(), versions.Version("cut", 1))["weights"]
    assert main(["train", str(folder), "--store", str(tmp_path / "loop")]) == 0
    assert versions.card_of(open_store(f"{tmp_path}/loop/local"), versions.Version("cut", 1))["weights"] == weights


class Held:
    """Holds back the events for `train`."""

    def __init__(self, system: System) -> None:
        self._below = system.up.replicas
        self.event: tuple[dict[str, str], bytes] | None = None

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        if name == "train":
            self.event = (dict(headers), body)
            return httpx.Response(204)
        return await self._below.call(name, headers, body, timeout_s)


@pytest.mark.slow
def test_sigterm_lets_a_running_step_end(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "term", seed=53)
    with System(tmp_path / "up") as system:
        held = Held(system)
        system.up.broker._caller = held
        with Client(system.url) as client:
            client.submit(folder)
        end = time.monotonic() + LIMIT_S
        while held.event is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        port = free_port()
        with train_function(system, port, budget_s=0.01) as function:
            headers, body = held.event
            threading.Timer(1, function.terminate).start()
            answer = httpx.post(f"http://127.0.0.1:{port}/", headers=headers, content=body, timeout=LIMIT_S)
            assert answer.status_code == 204
            assert function.wait(timeout=LIMIT_S) == 0
        assert system.store().size_bytes(read_event(headers, body).subject) is not None
