"""Knative's own queue-proxy as a process before a port: it queues and cuts off exactly as in a pod."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

import httpx
from support.servers import LIMIT_S, free_port, is_open, server_binary, wait_until

BUILT = Path(__file__).parents[2] / ".cache" / "go" / "bin"
OWN_PORTS = (8022, 9090)
"""Where every queue-proxy listens too, for its administration and its metrics; no variable changes them."""
TURN = Path(tempfile.gettempdir(), "hepfaas-tests-queue-proxy")
"""A file that whoever runs a queue-proxy holds locked: tests run in several processes."""
TURN_S = 240
PROBE = {"User-Agent": "Knative-Activator-Probe", "K-Network-Probe": "queue"}
"""Headers of a probe that queue-proxy answers itself (knative.dev/networking, pkg/http/header/header.go)."""


def program() -> str:
    """Path of queue-proxy, by the rule of `server_binary`; tests/build-queue-proxy builds it."""
    return shutil.which("queue", path=BUILT) or server_binary("queue", "tests/build-queue-proxy")


class QueueProxy:
    """A queue-proxy before a port of 127.0.0.1, while the `with` lasts; `url` leads through it.

    concurrency: calls passed on at once (containerConcurrency), 0 for no bound; others wait in the queue.
    timeout_s: whole seconds from a call's arrival, its time in the queue too, to its answer's end; then 504.
    One at a time on a machine: it waits for its turn, because of `OWN_PORTS`.
    """

    def __init__(self, user_port: int, concurrency: int = 1, timeout_s: int = 3) -> None:
        self.port, self._program = free_port(), program()
        self.url = f"http://127.0.0.1:{self.port}"
        self._variables = _variables(self.port, user_port, concurrency, timeout_s)

    def __enter__(self) -> "QueueProxy":
        self._turn = _turn()
        self._process = subprocess.Popen(
            [self._program], env={**os.environ, **self._variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(self._is_ready, self._process, "queue-proxy")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()  # told to end it would drain for 30 s
        self._process.wait(timeout=LIMIT_S)
        self._turn.close()

    def _is_ready(self) -> bool:
        """Asks as Knative's activator does: 200 once the port behind the proxy is open too; no call gets there."""
        try:
            return httpx.get(self.url, headers=PROBE, timeout=LIMIT_S).status_code == 200
        except httpx.TransportError:
            return False


def _variables(port: int, user_port: int, concurrency: int, timeout_s: int) -> dict[str, str]:
    probe = {"tcpSocket": {"host": "127.0.0.1", "port": user_port}, "successThreshold": 1}
    return {
        "CONTAINER_CONCURRENCY": str(concurrency),
        "QUEUE_SERVING_PORT": str(port),
        "QUEUE_SERVING_TLS_PORT": str(free_port()),
        "USER_PORT": str(user_port),
        "REVISION_TIMEOUT_SECONDS": str(timeout_s),
        "SERVING_LOGGING_CONFIG": "",
        "SERVING_LOGGING_LEVEL": "",
        "SERVING_NAMESPACE": "default",
        "SERVING_CONFIGURATION": "function",
        "SERVING_REVISION": "function-00001",
        "SERVING_POD": "function-00001-pod",
        "SERVING_POD_IP": "127.0.0.1",
        "SERVING_READINESS_PROBE": json.dumps(probe),
    }


def _turn() -> IO[str]:
    """Waits until no other queue-proxy runs; until the file is closed, it is this one's turn."""
    end, file = time.monotonic() + TURN_S, TURN.open("w")
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = "another test's queue-proxy runs"
        else:
            taken = ", ".join(f"something else listens on {port}" for port in OWN_PORTS if is_open(port))
        if not taken:
            return file
        if time.monotonic() > end:
            file.close()
            raise RuntimeError(f"queue-proxy cannot start: {taken}")
        time.sleep(0.1)
