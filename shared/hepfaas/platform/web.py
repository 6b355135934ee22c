"""HTTP requests to servers that users name: with one deadline, and to private networks only if that is allowed.

A host name is resolved once for each connection: the checked address is the one that is connected to.
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
"""Longest silence of a server, if no shorter limit is set."""


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    body: bytes | None = None,
    private: bool = False,
    certificate: str = "",
) -> urllib3.BaseHTTPResponse:
    """Return the response without its body; redirections are not followed. private: whether the host may have a private
    address. certificate: file of a client certificate, '' for none.

    Raises: RequestError if the host has a private address and must not; urllib3's HTTPError.
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
    """A socket that is read until the deadline; a single read does not outlast it."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw, self._silent_s, self._deadline = sock, raw, sock.gettimeout(), deadline()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("its time is up")
        self._sock.settimeout(min(left, self._silent_s or SILENT_S))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response with the deadline that was set when it was requested."""

    def __init__(self, sock: socket.socket, *options: Any, **named: Any) -> None:
        super().__init__(sock, *options, **named)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))


def _resolved(host: str, port: int | None) -> tuple[str, ...]:
    """Return the addresses of a host. The look-up has its own thread: resolvers have no time limit, and the owner of a
    name chooses how long its server takes. Raises: TimeoutError; the errors of `hosts.addresses`."""
    results: SimpleQueue[tuple[str, ...] | OSError | UnicodeError] = SimpleQueue()

    def look() -> None:
        try:
            results.put(hosts.addresses(host, port))
        except (OSError, UnicodeError) as error:
            results.put(error)

    threading.Thread(target=look, name="name", daemon=True).start()
    try:
        result = results.get(timeout=min(SILENT_S, remaining_s()))
    except Empty:
        raise TimeoutError("its time is up") from None
    if isinstance(result, Exception):
        raise result
    return result


class _Public(HTTPConnection):
    """A connection to a public address."""

    response_class = _Response
    private = False

    def _new_conn(self) -> socket.socket:
        try:
            addresses = _resolved(self._dns_host, self.port)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"the name of host '{self.host}' was not looked up in time") from error
        except (socket.gaierror, UnicodeError) as error:
            reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(self.host, self, reason) from error
        if not self.private:
            hosts.check_public(self.host, addresses)
        for number, address in enumerate(addresses, 1):
            try:
                sock = create_connection(
                    (address, self.port),
                    min(self.timeout or CONNECT_S, remaining_s()),
                    socket_options=self.socket_options,
                )
            except OSError as error:
                if number < len(addresses):
                    continue
                if isinstance(error, TimeoutError):
                    raise ConnectTimeoutError(self, f"host '{self.host}' takes no connection") from error
                raise NewConnectionError(self, f"host '{self.host}' takes no connection: {error}") from error
            sys.audit("http.client.connect", self, self.host, self.port)
            return sock
        raise NewConnectionError(self, f"host '{self.host}' has no address")


class _PublicTLS(_Public, HTTPSConnection):
    """A connection by TLS. The certificate is checked for the name, not for the address."""


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
    """Return the connection pools for these options: connections to private addresses are not shared with others."""
    manager = urllib3.PoolManager(retries=False, maxsize=8, cert_file=certificate or None)
    manager.pool_classes_by_scheme = (
        {"http": _AnyPool, "https": _AnyPoolTLS} if private else {"http": _PublicPool, "https": _PublicPoolTLS}
    )
    return manager
