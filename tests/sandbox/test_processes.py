"""Workers are forked, ended and replaced, also many at once; none outlives the process that uses it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hepfaas.errors import UnavailableError
from hepfaas.models.inference import ConfinedModel, Graph, WorkerLostError
from hepfaas.sandbox.processes import ForkServer, Memory, Worker, sealed_memory
from support.graphs import doubling

LIMIT_S = 30.0
WORKER = "hepfaas.models.inference_worker"
ROW = np.ones((1, 3), dtype=np.float32)

STARTS = """
import sys
from hepfaas.sandbox.processes import ForkServer, Memory, Worker
server = ForkServer()
worker = Worker(server, "hepfaas.models.inference_worker", Memory(), 4096)
print(server._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def graph() -> Graph:
    return Graph(doubling(3), (3,), 3)


def process_of(server: ForkServer) -> int:
    assert server._process
    return server._process.pid


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for(what: str, holds: object) -> None:
    end = time.monotonic() + LIMIT_S
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.01)


def test_many_workers_come_and_go_at_once(server: ForkServer, graph: Graph) -> None:
    def one(number: int) -> bool:
        model = ConfinedModel(server, graph, Memory())
        right = np.array_equal(model.predict(ROW), 2 * ROW)
        model.close()
        return right

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(200)))
    wait_for("all workers have ended", lambda: not children(process_of(server)))


def test_a_fork_server_that_was_killed_is_started_again(server: ForkServer, graph: Graph) -> None:
    first, second = (ConfinedModel(server, graph, Memory()) for _ in range(2))
    assert np.array_equal(first.predict(ROW), 2 * ROW)
    (worker,) = children(process_of(server))
    os.kill(process_of(server), signal.SIGKILL)
    wait_for("its worker has ended too", lambda: not Path(f"/proc/{worker}/cmdline").exists())
    with pytest.raises(WorkerLostError):
        first.predict(ROW)
    assert np.array_equal(second.predict(ROW), 2 * ROW)
    assert np.array_equal(first.predict(ROW), 2 * ROW)
    for model in (first, second):
        model.close()


def test_workers_end_with_the_process_that_uses_them() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        server = int(parent.stdout.readline())
        wait_for("the worker has started", lambda: children(server))
        (worker,) = children(server)
        os.kill(worker, signal.SIGSTOP)  # as if it hung
        parent.kill()
    for process in (server, worker):
        wait_for("it has ended", lambda process=process: not Path(f"/proc/{process}/cmdline").exists())


def test_the_memory_of_all_workers_together_is_limited(server: ForkServer) -> None:
    graph = Graph(doubling(10_000_000), (10_000_000,), 10_000_000)  # a row is 40 MB, its tensors twice that
    memory = Memory(worker_mb=1_000, total_mb=150)
    models = [ConfinedModel(server, graph, memory) for _ in range(4)]
    row = np.ones((1, 10_000_000), dtype=np.float32)

    def compute() -> None:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            for model in models:
                model.predict(row)

    with pytest.raises(WorkerLostError, match="was ended by SIGKILL"):
        compute()
    for model in models:
        model.close()


def test_the_size_of_shared_memory_cannot_be_changed() -> None:
    for content in (None, b"x" * 4096):
        descriptor = sealed_memory(4096, content)
        for size in (0, 8192):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)
        if content:
            with pytest.raises(PermissionError):
                os.pwrite(descriptor, b"y", 0)
        os.close(descriptor)


def test_without_a_process_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ForkServer()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(UnavailableError, match="no worker process can be started: No such file or directory"):
        Worker(server, WORKER, Memory(), 4096)
