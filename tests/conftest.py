"""Fixtures that all tests share. Servers start once a session, on free ports, and stop at its end."""

import functools
import os
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx._transports import default as transports
from hypothesis import settings
from support.grid import TRUST
from support.servers import XRootD, free_port, seaweedfs, wait_for_s3
from support.system import System

os.environ |= {
    # before XRootD's client is loaded, whose threads read the environment: an unreachable server costs a second
    "XRD_CONNECTIONWINDOW": "1",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_STREAMERRORWINDOW": "1",
    **TRUST.variables,
}

if "CI" not in os.environ:  # Hypothesis has a profile of its own for CI, which has no deadline either
    settings.register_profile("any speed", deadline=None)
    settings.load_profile("any speed")


@functools.cache
def authorities(*places: str | None) -> ssl.SSLContext:
    """Return a TLS context with the authorities in these places, those that the environment names."""
    return httpx.create_ssl_context()


def tls_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """Return the TLS context of a client; the usual one is read once, since it takes 27 ms and there are thousands."""
    if verify is True and cert is None and trust_env:
        return authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return httpx.create_ssl_context(verify, cert, trust_env)


transports.create_ssl_context = tls_context

LONGEST = (
    "test_chaos.py", "test_same_weights.py", "test_runs.py", "test_uploads.py", "test_run_requests.py",
    "test_least_rights.py", "test_reading.py", "test_bodies.py", "test_documents.py", "test_learner.py",
    "test_train.py", "test_fuzz.py", "test_intake.py", "test_prepare.py",
)  # fmt: skip
"""Files that begin first, so that no process works on one of them alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files of tests by `LONGEST`."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real files of experiments."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def xrootd() -> Iterator[XRootD]:
    """An XRootD server for the whole run."""
    with XRootD() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SeaweedFS of its own; gives the AWS_* variables that lead to it."""
    variables = {
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs"), variables) as process:
        wait_for_s3(variables, process)
        yield variables


@pytest.fixture
def s3_url(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket, and the environment that leads there."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://tests/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The whole system, for the tests that may share one."""
    with System(tmp_path_factory.mktemp("up")) as started:
        yield started
