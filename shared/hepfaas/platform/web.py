"""Requests by HTTP to servers that others name: within a time for all of it, and in no private network unless it may.

A name is resolved once for a connection; what was checked is what is connected to, whatever the name says next.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import sys
import threading
import time
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from hepfaas.platform import hosts
from hepfaas.platform.time_limit import deadline, remaining_s

CONNECT_S = 4.0
SILENT_S = 60.0
"""So long a server may say nothing, where no shorter time is set."""


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    private: bool = False,
    certificate: str = "",
) -> urllib3.BaseHTTPResponse:
    """The answer, its body not read yet; no redirection is followed. private: whether the host may be at a private
    address. certificate: a file that is shown; '': none.

    Raises: RequestError if the host is in a private network and may not be; urllib3's HTTPError.
    """
    try:
        left = remaining_s()
    except TimeoutError as error:
        raise urllib3.exceptions.TimeoutError(str(error)) from error
    timeout = urllib3.Timeout(connect=min(CONNECT_S, left), read=min(SILENT_S, left))
    return _pools(private, certificate).request(
        method, url, headers=headers, body=body, timeout=timeout, preload_content=False, redirect=False
    )


class _Timed(io.RawIOBase):
    """Reads from a socket while there is time; a single read does not outlast it."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw, self._silent_s, self._until = sock, raw, sock.gettimeout(), deadline()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("its time is up")
        self._sock.settimeout(min(left, self._silent_s or SILENT_S))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Status, headers and body come within the time that was set when it was asked for."""

    def __init__(self, sock: socket.socket, *options: Any, **named: Any) -> None:
        super().__init__(sock, *options, **named)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))


def _looked_up(host: str, port: int | None) -> tuple[str, ...]:
    """Addresses of a host. The look-up has a thread of its own, since resolvers keep to no limit, and whoever owns a
    name says how long its server takes. Raises: TimeoutError; what `hosts.addresses` does."""
    found: SimpleQueue[tuple[str, ...] | OSError | UnicodeError] = SimpleQueue()

    def look() -> None:
        try:
            found.put(hosts.addresses(host, port))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look, name="name", daemon=True).start()
    try:
        said = found.get(timeout=min(SILENT_S, remaining_s()))
    except Empty:
        raise TimeoutError("its time is up") from None
    if isinstance(said, Exception):
        raise said
    return said


class _Public(HTTPConnection):
    """A connection to a public address."""

    response_class = _Response
    private = False

    def _new_conn(self) -> socket.socket:
        try:
            found = _looked_up(self._dns_host, self.port)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"the name of host '{self.host}' was not looked up in time") from error
        except (socket.gaierror, UnicodeError) as error:
            said = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(self.host, self, said) from error
        if not self.private:
            hosts.check_public(self.host, found)
        for place, address in enumerate(found, 1):
            try:
                sock = create_connection(
                    (address, self.port),
                    min(self.timeout or CONNECT_S, remaining_s()),
                    socket_options=self.socket_options,
                )
            except OSError as error:
                if place < len(found):
                    continue
                if isinstance(error, TimeoutError):
                    raise ConnectTimeoutError(self, f"host '{self.host}' takes no connection") from error
                raise NewConnectionError(self, f"host '{self.host}' takes no connection: {error}") from error
            sys.audit("http.client.connect", self, self.host, self.port)
            return sock
        raise NewConnectionError(self, f"host '{self.host}' has no address")


class _PublicTLS(_Public, HTTPSConnection):
    """Its certificate is checked for the name, not for the address."""


class _Any(_Public):
    private = True


class _AnyTLS(_PublicTLS):
    private = True


class _PublicPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Public


class _PublicPoolTLS(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PublicTLS


class _AnyPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Any


class _AnyPoolTLS(urllib3.HTTPSConnectionPool):
    ConnectionCls = _AnyTLS


@functools.lru_cache(64)
def _pools(private: bool, certificate: str) -> urllib3.PoolManager:
    """Connections that were made for the same: one to a private address serves nobody who may not go there."""
    found = urllib3.PoolManager(retries=False, maxsize=8, cert_file=certificate or None)
    found.pool_classes_by_scheme = (
        {"http": _AnyPool, "https": _AnyPoolTLS} if private else {"http": _PublicPool, "https": _PublicPoolTLS}
    )
    return found
