"""A certificate authority for tests: certificates of hosts and people, proxies, and XRootD's macaroons."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier
from support.servers import XRootD

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")
"""proxyCertInfo of a proxy with all rights of its owner: https://www.rfc-editor.org/rfc/rfc3820#section-3.8"""

POLICY = """access_id_CA X509 '/O=tests/CN=authority'
pos_rights globus CA:sign
cond_subjects globus '"/O=tests/*"'
"""


def name(*parts: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests")
    return x509.Name([organisation, *(x509.NameAttribute(NameOID.COMMON_NAME, part) for part in parts)])


def pem(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Trust:
    """The authorities that this process and its children trust. The variables are set before any test and stay: native
    clients read them from their own threads."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="hepfaas-trust-")
        self._bundle, self._folder = Path(self._scratch.name, "authorities.pem"), Path(self._scratch.name, "grid")
        self._folder.mkdir()
        usual = ssl.get_default_verify_paths().cafile
        self._usual = Path(usual).read_text() if usual else ""
        self._bundle.write_text(self._usual)
        self.variables = {"SSL_CERT_FILE": str(self._bundle), "X509_CERT_DIR": str(self._folder)}

    @contextmanager
    def of(self, authority: Authority) -> Iterator[None]:
        """Trust an authority within the block."""
        self._bundle.write_text(self._usual + authority.file.read_text())
        copies = [Path(shutil.copy(path, self._folder)) for path in authority.folder.iterdir()]
        try:
            yield
        finally:
            self._bundle.write_text(self._usual)
            for copy in copies:
                copy.unlink()


TRUST = Trust()


class Authority:
    """Issues certificates, as a context manager. `folder` is the directory of trusted certificates."""

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory(prefix="hepfaas-authority-")  # readable by other users
        self.folder = folder = Path(self._scratch.name)
        self._key, self._name = new_key(), name("authority")
        certificate = self._issued(
            subject=self._name, issuer=self._name, key=self._key, by=self._key, is_authority=True
        )
        self.file = folder / "authority.pem"
        self.file.write_text(pem_of(certificate))
        subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True, timeout=60)
        for link in [path for path in folder.iterdir() if path.name.endswith(".0")]:
            link.with_suffix(".signing_policy").write_text(POLICY)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        return self

    def __exit__(self, *error: object) -> None:
        self._scratch.cleanup()

    def host(self, folder: Path) -> tuple[Path, Path]:
        """Write certificate and key of localhost; return the paths."""
        key = new_key()
        certificate = self._issued(
            subject=name("localhost"), issuer=self._name, key=key, by=self._key, is_authority=False
        )
        paths = folder / "host.pem", folder / "host.key"
        for path, text in zip(paths, (pem_of(certificate), pem(key)), strict=True):
            path.write_text(text)
            path.chmod(0o644 if path.suffix == ".pem" else 0o400)
        return paths

    def person(self, person: str) -> str:
        """Return certificate and key of a person."""
        key = new_key()
        return pem_of(
            self._issued(subject=name(person), issuer=self._name, key=key, by=self._key, is_authority=False)
        ) + pem(key)

    def proxy(self, person: str, lasts: datetime.timedelta = DAY) -> str:
        """Return a proxy of a person: certificate, key, and the person's certificate."""
        person_key, proxy_key, serial = new_key(), new_key(), "12345"
        certificate = self._issued(
            subject=name(person), issuer=self._name, key=person_key, by=self._key, is_authority=False
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(person, serial))
            .issuer_name(name(person))
            .public_key(proxy_key.public_key())
            .serial_number(int(serial))
            .not_valid_before(NOW - 2 * DAY)
            .not_valid_after(NOW + lasts)
            .add_extension(x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.5.5.7.1.14"), INHERIT_ALL), True)
            .add_extension(_usage(False), True)
        )
        return pem_of(builder.sign(person_key, hashes.SHA256())) + pem(proxy_key) + pem_of(certificate)

    def _issued(
        self,
        *,
        subject: x509.Name,
        issuer: x509.Name,
        key: rsa.RSAPrivateKey,
        by: rsa.RSAPrivateKey,
        is_authority: bool,
    ) -> x509.Certificate:
        address = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 3 * DAY)
            .not_valid_after(NOW + 3 * DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(_usage(is_authority), True)
            .add_extension(address, False)
            .sign(by, hashes.SHA256())
        )


def give_to_xrootd(*paths: Path) -> None:
    """Make files readable only by the XRootD server, which may run as another user."""
    for path in paths:
        path.chmod(0o400)
        with contextlib.suppress(PermissionError, LookupError):  # the server runs as this user
            shutil.chown(path, "xrootd")


@contextlib.contextmanager
def with_macaroons(secret: bytes) -> Iterator[XRootD]:
    """Run a server whose files need a token made with this secret."""
    with tempfile.TemporaryDirectory(prefix="hepfaas-grid-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        (folder / "secret").write_text(base64.b64encode(secret).decode() + "\n")
        (folder / "nobody").write_text("u nobody /nowhere rl\n")
        give_to_xrootd(folder / "secret", folder / "nobody")
        more = (
            "all.sitename tests\nofs.authorize 1\nofs.authlib ++ libXrdMacaroons.so\nmacaroons.maxduration 86400\n"
            f"macaroons.secretkey {folder}/secret\nacc.authdb {folder}/nobody\n"
        )
        with XRootD(more) as server:
            yield server


@contextlib.contextmanager
def with_certificates(authority: Authority) -> Iterator[XRootD]:
    """Run a server, 'localhost', that needs a login with a certificate of this authority."""
    with tempfile.TemporaryDirectory(prefix="hepfaas-grid-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        certificate, key = authority.host(folder)
        give_to_xrootd(certificate, key)
        more = (
            f"xrootd.seclib libXrdSec.so\nsec.protocol gsi -certdir:{authority.folder} -cert:{certificate} -key:{key} "
            "-gridmap:/dev/null -gmapopt:0 -vomsat:0 -crl:0\nsec.protbind * only gsi\n"
        )
        with XRootD(more) as server:
            yield server


def read_token(secret: bytes) -> str:
    """Return a token that allows to read files for an hour."""
    expiry = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    activity = "activity:READ_METADATA,DOWNLOAD"
    return macaroon(secret, "tests", "name:alice", activity, "path:/store", f"before:{expiry}")


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not is_authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def macaroon(secret: bytes, site: str, *caveats: str) -> str:
    """Return a token for an XRootD server of that site: https://github.com/rescrv/libmacaroons, version 1."""
    digest = hmac.digest(
        hmac.digest(b"macaroons-key-generator".ljust(32, b"\0"), secret, hashlib.sha256), b"tests", hashlib.sha256
    )
    packets = _packet("location", site.encode()) + _packet("identifier", b"tests")
    for caveat in caveats:
        digest = hmac.digest(digest, caveat.encode(), hashlib.sha256)
        packets += _packet("cid", caveat.encode())
    return base64.urlsafe_b64encode(packets + _packet("signature", digest)).decode().rstrip("=")


def _packet(key: str, value: bytes) -> bytes:
    body = f"{key} ".encode() + value + b"\n"
    return f"{len(body) + 4:04x}".encode() + body
