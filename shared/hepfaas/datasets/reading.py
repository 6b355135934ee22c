"""Read a file at its endpoints: caches first, then origins. If one fails, the next one serves the whole request.

Owns the order and the time limits of endpoints, and which of the owner's credentials each gets.
"""

from __future__ import annotations

import functools
import math
import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeVar

from hepfaas.datasets.address_checks import check_host, is_private
from hepfaas.datasets.errors import redacted
from hepfaas.datasets.sources import Sources, sources_in
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.address import XROOTD, Address, parsed
from hepfaas.platform.credentials import Credential, Vault
from hepfaas.platform.roles import Group
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store
from hepfaas.platform.time_limit import within
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory

T = TypeVar("T")

CONNECT_S = 2.0
"""Longest time for a connection to an endpoint."""

PROBE_S = 1.5
"""Time between connections that test whether a silent endpoint is alive: a dead one is given up after 3.5 s."""

SILENT_S = 150.0
"""Longest time until an endpoint that accepts connections has sent a file's header or an entry range; its client gives
up a single request before that."""

ALL_S = 270.0
"""Longest time for one header or range in the service, over all endpoints: a step has 300 s."""

HASHED_BYTES = Settings.hashed_bytes

UNENCRYPTED = ("root", "xroot", "http", "dav")


@dataclass(frozen=True)
class Endpoint:
    """An address at which a file is read, and the credential for it.

    url: the normal form of an address, or the path of a local file. limit_s: for one request. private: whether the
    host may be in a private network."""

    url: str
    credential: Credential | None = None
    limit_s: float = 60.0
    private: bool = True


@dataclass
class ReadLog:
    """The results of a reading. served: origin of the endpoint that served the last read. failures: messages of the
    endpoints that failed before it."""

    served: str = ""
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """The way to read the files of one owner.

    credential: gives the owner's credential for a host. groups: of the caller. own: prefix of addresses in the owner's
    store, which have no other endpoint. private: whether any address may be in a private network; addresses that the
    operator's file names may. all_s: limit for one header or range over all endpoints. hashed_bytes: largest file on a
    server that is identified by its content. memory: of the worker processes.
    """

    sources: Sources = field(default_factory=Sources)
    credential: Callable[[str], Credential | None] = lambda host: None
    groups: Collection[Group] = ()
    own: str = ""
    private: bool = True
    all_s: float = math.inf
    hashed_bytes: int = HASHED_BYTES
    memory: Memory = USUAL_MEMORY
    log: ReadLog = field(default_factory=ReadLog)

    def through(self, url: str, work: Callable[[Endpoint], T]) -> T:
        """Return what `work` returns for the first endpoint that succeeds.

        Raises: RequestError or UnavailableError of the last endpoint.
        """
        if "://" not in url or (self.own and url.startswith(self.own)):
            return work(Endpoint(url))
        address = parsed(url)
        self.sources.check(address, self.groups)
        private = self.private or self.sources.allowed is not None or self.sources.federation_of(address) is not None
        *first, last = self.sources.endpoints(address)
        limit_s = min(SILENT_S, self.all_s / (len(first) + 1))

        def probed(endpoint: Endpoint) -> T:
            _probe(endpoint)
            return _limited(work, endpoint, limit_s, is_probed=True)

        def waited_for(endpoint: Endpoint) -> T:
            return work(endpoint) if self.all_s == math.inf else _limited(work, endpoint, limit_s)

        failures: list[str] = []
        for endpoint in first:
            try:
                return self._at(endpoint, private, probed)
            except (RequestError, UnavailableError) as error:
                failures.append(str(error))
                self.log.failures.append(str(error))
        try:
            return self._at(last, private, waited_for)
        except (RequestError, UnavailableError) as error:
            if not failures:
                raise
            family = RequestError if isinstance(error, RequestError) else UnavailableError
            raise family(f"no endpoint could read '{address}': {'; '.join([*failures, str(error)])}") from error

    def _at(self, address: Address, private: bool, work: Callable[[Endpoint], T]) -> T:
        """Return what `work` returns for one endpoint. Its errors are raised without the secret."""
        if not private and address.scheme in XROOTD:  # its client resolves names itself; for http(s) see web.py
            check_host(address, allow_private=False)
        credential = self._credential_for(address)
        try:
            result = work(Endpoint(str(address), credential, private=private))
        except (RequestError, UnavailableError) as error:
            if credential is None:
                raise
            family = RequestError if isinstance(error, RequestError) else UnavailableError
            outside = redacted(error.outside, credential)
            raise family(redacted(str(error), credential), outside=outside) from None
        self.log.served = address.origin
        return result

    def _credential_for(self, address: Address) -> Credential | None:
        """Return the owner's credential for the host of an endpoint.

        Raises: RequestError if a token would be sent unencrypted to a public address.
        """
        credential = self.credential(address.host) if address.scheme != "s3" else None
        if credential and credential.kind == "bearer" and address.scheme in UNENCRYPTED and not is_private(address):
            raise RequestError(
                f"'{address}' is read without encryption, which would show your token to others; name it by "
                f"{'roots' if 'root' in address.scheme else 'https'}://, or DELETE /v1/credentials/{address.host}"
            )
        return credential


PLAIN = Reading()
"""Any address, each its own endpoint, without credentials."""


@dataclass(frozen=True)
class Readings:
    """The way to read files in one process, for all owners. keys: decrypt their credentials. private: whether files may
    be read from private addresses. hashed_bytes: largest file on a server that is identified by its content."""

    sources: Sources = field(default_factory=Sources)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    private: bool = False
    hashed_bytes: int = HASHED_BYTES
    memory: Memory = USUAL_MEMORY

    @classmethod
    def from_settings(cls, settings: Settings) -> Readings:
        """Return what the settings say. Raises: RequestError if the operator's file is wrong."""
        return cls(
            sources=sources_in(settings.sources, settings.issuers[0] if settings.issuers else ""),
            keys=settings.credentials_keys,
            private=settings.allow_private,
            hashed_bytes=settings.hashed_bytes,
            memory=settings.worker_memory,
        )

    def vault(self, store: Store, owner: str) -> Vault:
        """Return the credentials of an owner; `store` is the owner's."""
        return Vault(store, owner, self.keys)

    def reading(self, store: Store, owner: str, groups: Collection[Group]) -> Reading:
        """Return the reading for one step or request of an owner, on behalf of a member of these groups."""
        return Reading(
            self.sources,
            credential=functools.cache(self.vault(store, owner).get),
            groups=groups,
            own=f"{store.url}/",
            private=self.private,
            all_s=ALL_S,
            hashed_bytes=self.hashed_bytes,
            memory=self.memory,
        )


def _limited(work: Callable[[Endpoint], T], endpoint: Endpoint, limit_s: float, is_probed: bool = False) -> T:
    """Return what `work` returns within the limit. After that its thread is abandoned, whatever its client still waits
    for: it ends by the client's own limits (http(s): at the same time) and its result is dropped.

    is_probed: whether an endpoint that stops accepting connections is given up as well. Raises: UnavailableError.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def perform() -> None:
        try:
            with within(limit_s):
                results.append(work(endpoint))
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=perform, name="reader", daemon=True).start()
    end = time.monotonic() + limit_s
    while not done.wait(min(PROBE_S, max(0.0, end - time.monotonic()))):
        if time.monotonic() >= end:
            raise UnavailableError(f"the server of '{endpoint.url}' did not answer within {limit_s:.0f} s")
        if is_probed:
            _probe(endpoint)
    if errors:
        raise errors[0]
    return results[0]


def _probe(endpoint: Endpoint) -> None:
    """Raise UnavailableError if an endpoint does not accept a connection."""
    address = parsed(endpoint.url)
    if address.connects_to is None:
        return
    try:
        socket.create_connection((address.host, address.connects_to), timeout=CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or "it takes no connection"
        raise UnavailableError(f"the server of '{endpoint.url}' does not answer: {reason}") from error
