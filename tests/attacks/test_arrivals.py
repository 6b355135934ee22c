"""Bodies that stop on their way: those of one tenant hold the threads of a function, and others are answered."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from support.identities import Issuer, Process, function
from support.servers import LIMIT_S

THREADS = 17
PATHS = {"runs": "/v1/runs", "intake": "/v1/rules/x"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(scope="module", params=sorted(PATHS))
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, issuer: Issuer
) -> Iterator[tuple[Process, str]]:
    name = request.param
    variables = {"HEPFAAS_ISSUER": issuer.url, "HEPFAAS_AUDIENCE": "training", "THREADS": str(THREADS)}
    with function(tmp_path_factory.mktemp("stalled"), name, **variables) as process:
        yield process, PATHS[name]


def stalled(url: str, path: str, token: str, kind: str = "application/json") -> socket.socket:
    """Send a request whose body stops after one byte."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=LIMIT_S)
    method = "PUT" if "rules" in path else "POST"
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\n{authorization}Content-Type: {kind}\r\n"
    connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    return connection


def test_stalled_bodies_of_one_tenant_keep_nobody_out(target: tuple[Process, str], issuer: Issuer) -> None:
    process, path = target
    with ExitStack() as stack:
        held = [stack.enter_context(stalled(process.url, path, issuer.token("mallory"))) for _ in range(2 * THREADS)]
        time.sleep(3)  # long enough to be slow
        for number in range(5):
            headers = {"Authorization": f"Bearer {issuer.token('alice')}", "Content-Type": "application/json"}
            method = "PUT" if "rules" in path else "POST"
            answer = httpx.request(method, f"{process.url}{path}", content=b"{}", headers=headers, timeout=8)
            assert answer.status_code == 422, (number, answer.text)
        held[0].settimeout(LIMIT_S)
        refusals = b"".join(connection.recv(4_096) for connection in held[-8:])
        assert b" 503 " in refusals or b" 429 " in refusals
        assert b"Retry-After" in refusals


def test_stalled_bodies_of_strangers_keep_nobody_out(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> None:
    variables = {"HEPFAAS_ISSUER": issuer.url, "HEPFAAS_AUDIENCE": "training", "THREADS": str(THREADS)}
    with function(tmp_path_factory.mktemp("strangers"), "intake", **variables) as process, ExitStack() as stack:
        for _ in range(2 * THREADS):
            stack.enter_context(stalled(process.url, "/", "", "application/cloudevents+json"))
        time.sleep(3)
        headers = {"Authorization": f"Bearer {issuer.token('alice')}", "Content-Type": "application/json"}
        answer = httpx.put(f"{process.url}/v1/rules/x", content=b"{}", headers=headers, timeout=8)
        assert answer.status_code == 422, answer.text
