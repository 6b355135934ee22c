"""Connections of `predict`: the shortest way from the socket to the app that uvicorn allows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hepfaas.errors import UnavailableError
from hepfaas.platform.browsers import RAW_PROTECTION, protect
from hepfaas.platform.statuses import status_of
from hepfaas.serving.responses import json_response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
POLICY = b"\r\ncontent-security-policy: "
PROTECTION_LINES = b"".join(b"%s: %s\r\n" % pair for pair in RAW_PROTECTION) + b"\r\n"

SENDING_S = 1.0
"""Time that a refused client has to finish sending its request."""

MOST_HEAD = 65_536
"""Most bytes of a request's head, which the parser keeps in memory."""

LISTENERS = 32
"""Handles of one socket; the loop accepts one connection from each in a round. With 8, the last of a thousand clients
waits for 1 to 2 s. A connection that comes alone costs 0.1 ms more."""


class OneWrite:
    """An asyncio transport that sends the head of a response together with the start of its body.

    One system call instead of two saves a tenth of the time of a one-row request. It also adds the headers of
    `browsers.PROTECTION` to a head without a policy, since uvicorn takes 0.8 µs for each header.

    expects_head: the next write begins a response.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""
        self.expects_head = True
        self.is_closing, self.get_extra_info = transport.is_closing, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write data of uvicorn: a head by itself, then pieces of the body, the last of which may be empty."""
        if self._head:
            data, self._head = self._head + data, b""
        elif self.expects_head and data != CONTINUE:
            self.expects_head = False
            self._head = data if POLICY in data else data[:-2] + PROTECTION_LINES
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send data that is held back."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send data that is held back, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 503 for connections over the limit. The body is read first: a client that still sends would not receive
    the response."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SENDING_S):
            while (await receive()).get("more_body"):
                pass
    error = UnavailableError("too many connections to this instance; ask again in a second")
    status, headers = status_of(error) or (503, {})
    response = json_response({"error": str(error)}, status, {**headers, "Connection": "close"})
    await response(scope, receive, send)


class ProtectedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit on heads and trailers. Its answer to invalid HTTP has `browsers.PROTECTION`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unended = 0

    def data_received(self, data: bytes) -> None:
        """Parse data; close the connection if a head does not end within MOST_HEAD."""
        self._unended += len(data)
        super().data_received(data)
        if self._unended > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head or the trailer of the request is too long.")

    def on_headers_complete(self) -> None:
        """Restart the count."""
        self._unended = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Restart the count."""
        self._unended = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and close."""
        response = json_response({"error": msg}, 400, {"Connection": "close"})
        protect(response.raw_headers)
        head = b"".join(b"%s: %s\r\n" % pair for pair in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + response.body)
        self.transport.close()


def protocol_for(app: ASGIApp, most_connections: int) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol that calls an app directly.

    It skips the router of functions-framework, which loads the function and then, for each request, tries four patterns
    and draws a random id. most_connections: at a time, with idle ones.
    """

    class DirectProtocol(ProtectedProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.app = app

        def connection_made(self, transport: Any) -> None:
            self._one_write = OneWrite(transport)
            super().connection_made(self._one_write)  # type: ignore[arg-type]
            if len(self.connections) > most_connections:
                self.app = refuse_connection

        def on_response_complete(self) -> None:
            self._one_write.flush()
            self._one_write.expects_head = True
            super().on_response_complete()

    return DirectProtocol


class ManyListenersLoop(uvloop.Loop):
    """An event loop that accepts new connections quickly beside many busy ones.

    uvloop accepts one connection a round from each listener, and a round serves all sockets that are ready: the last of
    a thousand new clients would wait for seconds.
    """

    async def create_server(self, factory: Any, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        """Return a server that listens at its socket by several handles; without a socket, as uvloop does."""
        servers = [await super().create_server(factory, *arguments, **options)]
        if "sock" not in options:
            return servers[0]
        for _ in range(LISTENERS - 1):
            try:
                servers.append(await super().create_server(factory, **{**options, "sock": options["sock"].dup()}))
            except OSError:  # no more descriptors: fewer listeners work too
                break
        return _Listeners(servers)


class _Listeners:
    """Servers that are closed together: the methods that uvicorn calls of a server that it gave the socket."""

    def __init__(self, servers: list[Any]) -> None:
        self._servers = servers

    def close(self) -> None:
        """Stop accepting connections."""
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Wait until all servers are closed."""
        for server in self._servers:
            await server.wait_closed()
