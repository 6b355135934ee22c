"""Reads a file through its doors, one after the other: what one does not give, the next is asked for again as a whole.

Owns which door is asked and how long it is waited for, and which of the owner's credentials it is shown.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeVar

from hepfaas.datasets.addresses import check_host, is_private
from hepfaas.datasets.errors import redacted
from hepfaas.datasets.sources import Sources
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.address import XROOTD, Address, parsed
from hepfaas.platform.credentials import Credential
from hepfaas.platform.roles import Group
from hepfaas.platform.time_limit import within
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory

T = TypeVar("T")

CONNECT_S = 2.0
"""So long a door is waited for that does not take a connection."""

LOOK_S = 1.5
"""So often it is looked at whether a door that says nothing is still there: one that dies is left after 3.5 s."""

SILENT_S = 150.0
"""So long a door that takes connections may need for a file's header or an entry range before the next one is asked;
its client gives up a single request before that."""

ALL_S = 270.0
"""So long all doors together may need for one header or range in the service, where a step has 300 s."""

HASHED_BYTES = 8_000_000
"""A file on a server up to this size is fetched whole, and its identity is the hash of its content: identity.py."""

IN_CLEAR = ("root", "xroot", "http", "dav")


@dataclass(frozen=True)
class Door:
    """An address at which a file is read, and what is shown there.

    url: the normal form of an address, or the path of a file here. limit_s: for one request to it. private: whether it
    may be in a private network."""

    url: str
    credential: Credential | None = None
    limit_s: float = 60.0
    private: bool = True


@dataclass
class Reading:
    """How an owner's files are read, and by whom they were served.

    credential: his for a host. groups: of who asks. own: what addresses in the store begin with, which come from no
    door. private: whether any address may be in a private network; those that the operator's file names may. all_s:
    for one header or range, from all doors. served: the door that gave what was read last. left: what was wrong with
    those before it. hashed_bytes: largest file on a server that is identified by its content. memory: of the processes
    that look into files.
    """

    sources: Sources = field(default_factory=Sources)
    credential: Callable[[str], Credential | None] = lambda host: None
    groups: Collection[Group] = ()
    own: str = ""
    private: bool = True
    all_s: float = math.inf
    served: str = ""
    left: list[str] = field(default_factory=list)
    hashed_bytes: int = HASHED_BYTES
    memory: Memory = USUAL_MEMORY

    def through(self, url: str, work: Callable[[Door], T]) -> T:
        """What `work` gives at the first door that has it. Raises: RequestError or UnavailableError of the last one."""
        if "://" not in url or (self.own and url.startswith(self.own)):
            return work(Door(url))
        named = parsed(url)
        self.sources.check(named, self.groups)
        private = self.private or self.sources.allowed is not None or self.sources.federation_of(named) is not None
        *first, last = self.sources.doors(named)
        share_s = self.all_s / (len(first) + 1)

        def watched(door: Door) -> T:
            _check_is_there(door)
            return _watched(work, door, min(SILENT_S, share_s), looked_after=True)

        def watched_at_last(door: Door) -> T:
            return work(door) if self.all_s == math.inf else _watched(work, door, min(SILENT_S, share_s))

        failures: list[str] = []
        for address in first:
            try:
                return self._at(address, private, watched)
            except (RequestError, UnavailableError) as error:
                failures.append(str(error))
                self.left.append(str(error))
        try:
            return self._at(last, private, watched_at_last)
        except (RequestError, UnavailableError) as error:
            if not failures:
                raise
            family = RequestError if isinstance(error, RequestError) else UnavailableError
            raise family(f"'{named}' was read through no door: {'; '.join([*failures, str(error)])}") from error

    def _at(self, address: Address, private: bool, work: Callable[[Door], T]) -> T:
        """What `work` gives at one door; what it raises tells no secret."""
        if not private and address.scheme in XROOTD:  # its client resolves for itself; of http(s) see web.py
            check_host(address, allow_private=False)
        credential = self._shown_at(address)
        try:
            found = work(Door(str(address), credential, private=private))
        except (RequestError, UnavailableError) as error:
            text = redacted(str(error), credential)
            if credential is None:
                raise
            raise (RequestError if isinstance(error, RequestError) else UnavailableError)(text) from None
        self.served = address.origin
        return found

    def _shown_at(self, address: Address) -> Credential | None:
        """The owner's credential for the host of a door; in clear to private addresses alone.

        Raises: RequestError if it would be shown to everybody on the way.
        """
        found = self.credential(address.host) if address.scheme != "s3" else None
        if found and found.kind == "bearer" and address.scheme in IN_CLEAR and not is_private(address):
            raise RequestError(
                f"'{address}' is read without encryption, which would show your token to others; name it by "
                f"{'roots' if 'root' in address.scheme else 'https'}://, or DELETE /v1/credentials/{address.host}"
            )
        return found


PLAIN = Reading()
"""Every address, each its own door."""


def _watched(work: Callable[[Door], T], door: Door, most_s: float, looked_after: bool = False) -> T:
    """What `work` gives. A door that has not given it by then is left, whatever its client would still wait for; what
    was begun there ends by its own limits (http(s): at the same time) and is thrown away.

    looked_after: whether one that takes no connection any more is left as well. Raises: UnavailableError.
    """
    found: list[T] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def perform() -> None:
        try:
            with within(most_s):
                found.append(work(door))
        except BaseException as error:
            failed.append(error)
        done.set()

    threading.Thread(target=perform, name="reader", daemon=True).start()
    end = time.monotonic() + most_s
    while not done.wait(min(LOOK_S, max(0.0, end - time.monotonic()))):
        if time.monotonic() >= end:
            raise UnavailableError(f"the server of '{door.url}' has not given what was asked for in {most_s:.0f} s")
        if looked_after:
            _check_is_there(door)
    if failed:
        raise failed[0]
    return found[0]


def _check_is_there(door: Door) -> None:
    """Raises: UnavailableError if a door takes no connection."""
    address = parsed(door.url)
    if address.connects_to is None:
        return
    try:
        socket.create_connection((address.host, address.connects_to), timeout=CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or "it takes no connection"
        raise UnavailableError(f"the server of '{door.url}' does not answer: {reason}") from error
