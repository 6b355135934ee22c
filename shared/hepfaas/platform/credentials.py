"""Credentials of owners for file servers: encrypted in the store, decrypted where the owner's files are read.

<owner>/credentials/<host>/<n>   kind, expiry, and the secret: AES-256-GCM with a key of HEPFAAS_CREDENTIALS_KEY,
                                 bound to this owner and host; a copy elsewhere cannot be decrypted
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.address import host_and_port
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store

KINDS = ("bearer", "x509")
KEYS = ("host", "kind", "secret", "expires")
MOST_SECRET_BYTES = 64_000
MOST_HOSTS = 100
NONCE_BYTES = 12
LAST_S = 4e9
_HOST = re.compile(r"(?=.{1,190}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""https://www.rfc-editor.org/rfc/rfc6750#section-2.1"""


@dataclass(frozen=True)
class Credential:
    """A credential for a host. expires: seconds since 1970, None if unknown. secret: a bearer token, or an X509 proxy
    (or certificate) with its key and chain, PEM."""

    host: str
    kind: str
    secret: str = field(repr=False)
    expires: float | None = None

    @property
    def mark(self) -> str:
        """A random name for this credential, which separates its connections from those of others."""
        with _LOCK:
            return _mark_of(_digest(self))

    @property
    def path(self) -> str:
        """The path of a file in memory with the secret: clients read proxies from files."""
        return _file_of(_digest(self), self.secret)

    def to_json(self) -> dict[str, Any]:
        """Return the values for its owner, without the secret."""
        ends = utc(self.expires) if self.expires else None
        return {"host": self.host, "kind": self.kind, "expires": ends}


@dataclass(frozen=True)
class Vault:
    """The credentials of one owner. keys: of 32 bytes each; the first encrypts, all decrypt; without a key there are no
    credentials."""

    store: Store
    owner: str
    keys: tuple[bytes, ...] = field(repr=False)

    def put(self, credential: Credential) -> None:
        """Store a credential in place of the previous one for its host. Raises: RequestError if there are too many."""
        hosts = set(self._hosts())
        if credential.host not in hosts and len(hosts) >= MOST_HOSTS:
            raise RequestError(f"there are credentials for {MOST_HOSTS} hosts; DELETE /v1/credentials/… one of them")
        numbers = self._numbers(credential.host)
        number = max(numbers, default=0) + 1
        sealed = json.dumps(self._sealed(credential)).encode()
        while not self.store.create(self._key(credential.host, number), sealed):
            number += 1
        for previous in numbers:
            self.store.delete(self._key(credential.host, previous))

    def get(self, host: str) -> Credential | None:
        """Return the credential for a host. Raises: RequestError if it has expired or was encrypted with another
        key."""
        if not self.keys or not _HOST.fullmatch(host):
            return None
        for number in reversed(self._numbers(host)):
            try:
                values = json.loads(self.store.get(self._key(host, number)))
            except MissingError:
                continue  # a newer one has just replaced it
            return self._usable(self._opened(host, values))
        return None

    def all(self) -> list[Credential]:
        """Return all credentials, without the secrets."""
        credentials = []
        for host in self._hosts():
            for number in self._numbers(host)[-1:]:
                values = json.loads(self.store.get(self._key(host, number)))
                credentials.append(Credential(host, values["kind"], "", values["expires"]))
        return credentials

    def delete(self, host: str) -> bool:
        """Remove the credential for a host. Return whether there was one."""
        host = _host_of(host)
        numbers = self._numbers(host) if host else []
        for number in numbers:
            self.store.delete(self._key(host, number))
        return bool(numbers)

    def _usable(self, credential: Credential) -> Credential:
        if credential.expires is not None and credential.expires < time.time():
            raise RequestError(
                f"your credential for host '{credential.host}' expired at {credential.to_json()['expires']}; POST "
                f"/v1/credentials a new one, or DELETE /v1/credentials/{credential.host}"
            )
        return credential

    def _sealed(self, credential: Credential) -> dict[str, Any]:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # only where there is a secret

        values = {"kind": credential.kind, "expires": credential.expires}
        nonce = os.urandom(NONCE_BYTES)
        data = AESGCM(self.keys[0]).encrypt(nonce, credential.secret.encode(), self._bound(credential.host, values))
        return {**values, "sealed": base64.b64encode(nonce + data).decode()}

    def _opened(self, host: str, values: Mapping[str, Any]) -> Credential:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        bound = {name: values[name] for name in ("kind", "expires")}
        sealed = base64.b64decode(values["sealed"])
        for key in self.keys:
            with suppress(InvalidTag):
                secret = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._bound(host, bound))
                return Credential(host, bound["kind"], secret.decode(), bound["expires"])
        raise RequestError(
            f"your credential for host '{host}' was encrypted with another key (HEPFAAS_CREDENTIALS_KEY); POST "
            "/v1/credentials it again"
        )

    def _bound(self, host: str, values: Mapping[str, Any]) -> bytes:
        """Return the values that the encryption binds the secret to."""
        return json.dumps([self.owner, host, values["kind"], values["expires"]]).encode()

    def _key(self, host: str, number: int) -> str:
        return f"credentials/{host}/{number:06d}"

    def _numbers(self, host: str) -> list[int]:
        return [int(key.rpartition("/")[2]) for key in self.store.keys(f"credentials/{host}/")]

    def _hosts(self) -> Iterator[str]:
        yield from dict.fromkeys(key.split("/")[1] for key in self.store.keys("credentials/"))


def credential_of(values: Mapping[str, Any]) -> Credential:
    """Return the credential from JSON values. Raises: RequestError, which never contains the secret."""
    for key in values:
        if key not in KEYS:
            raise RequestError(f"unknown key '{key[:40]}'; a credential has {', '.join(KEYS)}")
    host, kind, secret = (values.get(key) for key in KEYS[:3])
    host = _host_of(host) if isinstance(host, str) else ""
    if not host:
        raise RequestError("'host' is the name of the server that the credential is for, without a port")
    if kind not in KINDS:
        raise RequestError(f"'kind' takes {' or '.join(KINDS)}")
    if not isinstance(secret, str) or not 0 < len(secret) <= MOST_SECRET_BYTES or not secret.isascii():
        raise RequestError(f"'secret' is the token, or the proxy as PEM, of at most {MOST_SECRET_BYTES} bytes")
    end = _end_of_token(secret) if kind == "bearer" else _end_of_proxy(secret)
    stated = values.get("expires")
    if stated is not None and not _is_time(stated):
        raise RequestError("'expires' takes seconds since 1970")
    expires = min((float(time_s) for time_s in (end, stated) if time_s is not None), default=None)
    if expires is not None and expires < time.time():
        raise RequestError(f"the credential for host '{host}' has already expired")
    return Credential(host, str(kind), secret.strip(), expires)


def _host_of(text: str) -> str:
    """Return the normal form of a host, as in addresses; '' if a credential cannot be for it."""
    try:
        host, port = host_and_port(text)
    except RequestError:
        return ""
    return host if port is None and _HOST.fullmatch(host) else ""


def _end_of_token(secret: str) -> float | None:
    """Return the expiry of a token, None if it is not a JWT with an expiry."""
    if not _TOKEN.fullmatch(secret.strip()):
        raise RequestError("'secret' is not a bearer token: it has characters that tokens cannot have")
    try:
        body = secret.strip().split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    return float(end) if _is_time(end) else None


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < LAST_S


def _end_of_proxy(secret: str) -> float:
    """Return the earliest expiry in a chain of certificates. Raises: RequestError if the first one has no key."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    message = (
        "'secret' is not an X509 proxy: PEM, first the certificate, then its key without a password, then the chain"
    )
    try:
        chain = x509.load_pem_x509_certificates(secret.encode())
        fits = chain[0].public_key() == load_pem_private_key(_key_in(secret), None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RequestError(message) from error
    if not fits:
        raise RequestError(f"{message}; its key belongs to another certificate")
    return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)


def _key_in(pem: str) -> bytes:
    match = re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", pem, re.S)
    return match[0].encode() if match else b""


MOST_MARKS = 10_000
_FILES: dict[bytes, str] = {}
_LOCK = threading.Lock()


def _digest(credential: Credential) -> bytes:
    return hashlib.sha256(f"{credential.host}\0{credential.kind}\0{credential.secret}".encode()).digest()


@functools.lru_cache(MOST_MARKS)
def _mark_of(digest: bytes) -> str:
    """Return the name of a credential. After MOST_MARKS other credentials it gets a new name, and logs in again."""
    return secrets.token_hex(16)


def _file_of(digest: bytes, secret: str) -> str:
    """Return the path of a file in memory, which stays open as long as the process: clients remember a proxy by its
    path and read it again for new connections, so a reused path could log one owner in as another."""
    with _LOCK:
        if digest not in _FILES:
            file = os.memfd_create("credential", os.MFD_CLOEXEC)
            os.fchmod(file, 0o600)
            os.write(file, secret.encode())
            _FILES[digest] = f"/proc/self/fd/{file}"
        return _FILES[digest]
