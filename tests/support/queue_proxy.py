"""Knative's queue-proxy as a process in front of a port. It queues requests and times them out as in a pod."""

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
"""Fixed ports of queue-proxy for administration and metrics."""
LOCK = Path(tempfile.gettempdir(), "hepfaas-tests-queue-proxy")
"""File that the test with the running queue-proxy holds locked, since tests run in several processes."""
LOCK_S = 240
PROBE = {"User-Agent": "Knative-Activator-Probe", "K-Network-Probe": "queue"}
"""Headers of a probe that queue-proxy answers itself (knative.dev/networking, pkg/http/header/header.go)."""


def program() -> str:
    """Return the path of queue-proxy by the rule of `server_binary`; tests/build-queue-proxy builds it."""
    return shutil.which("queue", path=BUILT) or server_binary("queue", "tests/build-queue-proxy")


class QueueProxy:
    """A queue-proxy in front of a port of 127.0.0.1, as a context manager; `url` leads through it.

    concurrency: requests passed on at once (containerConcurrency), 0 for no bound; others wait in the queue.
    timeout_s: whole seconds from a request's arrival to the end of its answer, including the queue; then 504.
    Because of `OWN_PORTS` only one can run on a machine; others wait.
    """

    def __init__(self, user_port: int, concurrency: int = 1, timeout_s: int = 3) -> None:
        self.port, self._program = free_port(), program()
        self.url = f"http://127.0.0.1:{self.port}"
        self._variables = _variables(self.port, user_port, concurrency, timeout_s)

    def __enter__(self) -> "QueueProxy":
        self._lock = _lock()
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
        self._process.kill()  # after SIGTERM it would drain for 30 s
        self._process.wait(timeout=LIMIT_S)
        self._lock.close()

    def _is_ready(self) -> bool:
        """Probe as Knative's activator does: 200 once the port behind the proxy is open; the probe is not passed on."""
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


def _lock() -> IO[str]:
    """Wait until no other queue-proxy runs; return the locked file, which is unlocked when closed."""
    end, file = time.monotonic() + LOCK_S, LOCK.open("w")
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "another test's queue-proxy runs"
        else:
            reason = ", ".join(f"something else listens on {port}" for port in OWN_PORTS if is_open(port))
        if not reason:
            return file
        if time.monotonic() > end:
            file.close()
            raise RuntimeError(f"queue-proxy cannot start: {reason}")
        time.sleep(0.1)
