"""Connections of predict: from the socket to the app and back with as little in between as uvicorn allows."""

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
from hepfaas.serving.predicting import json_response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
POLICY = b"\r\ncontent-security-policy: "
PROTECTION_LINES = b"".join(b"%s: %s\r\n" % pair for pair in RAW_PROTECTION) + b"\r\n"

SENDING_S = 1.0
"""So long a client that is refused may take to send its request."""

MOST_HEAD = 65_536
"""Bytes that may come without the end of a request's head or a piece of its body: the parser keeps them all."""

LISTENERS = 32
"""Handles at one socket: so many connections are taken in one round of the loop. With 8 the last of a thousand still
waits for 1 to 2 s. Where one comes alone, the others look in vain: 0.1 ms, for clients that connect anew each time."""


class OneWrite:
    """A transport of asyncio that sends the head of an answer together with what follows it: one call of the system
    instead of two, a tenth of the time that a row takes. It adds the headers of `browsers.PROTECTION` to a head without
    a policy: uvicorn looks at each header for 0.8 µs.

    expects_head: whether the next that is written begins an answer.
    """

    def __init__(self, below: asyncio.Transport) -> None:
        self._below, self._head = below, b""
        self.expects_head = True
        self.is_closing, self.get_extra_info = below.is_closing, below.get_extra_info
        self.pause_reading, self.resume_reading = below.pause_reading, below.resume_reading

    def write(self, data: bytes) -> None:
        """What uvicorn writes: a head by itself, then pieces of the body, the last of which may be empty."""
        if self._head:
            data, self._head = self._head + data, b""
        elif self.expects_head and data != CONTINUE:
            self.expects_head = False
            self._head = data if POLICY in data else data[:-2] + PROTECTION_LINES
            return
        self._below.write(data)

    def flush(self) -> None:
        """Sends what is held back."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Sends what is held back first."""
        self.flush()
        self._below.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to all that comes by a connection too many, when its body is there: a client that still sends would be
    cut off, and not hear it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SENDING_S):
            while (await receive()).get("more_body"):
                pass
    error = UnavailableError("too many connections to this instance; ask again in a second")
    status, headers = status_of(error) or (503, {})
    answer = json_response({"error": str(error)}, status, {**headers, "Connection": "close"})
    await answer(scope, receive, send)


class Protected(HttpToolsProtocol):
    """uvicorn's protocol, whose own answer to what is no HTTP has the headers of all others, and which keeps no head or
    trailer that does not end."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._unended = 0

    def data_received(self, data: bytes) -> None:
        """Parse what comes, and close the connection where no head ends within MOST_HEAD."""
        self._unended += len(data)
        super().data_received(data)
        if self._unended > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head or the trailer of the request is too long.")

    def on_headers_complete(self) -> None:
        """Begin to count anew."""
        self._unended = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Begin to count anew."""
        self._unended = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and close."""
        answer = json_response({"error": msg}, 400, {"Connection": "close"})
        protect(answer.raw_headers)
        head = b"".join(b"%s: %s\r\n" % pair for pair in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + answer.body)
        self.transport.close()


def straight_to(app: ASGIApp, most: int) -> type[HttpToolsProtocol]:
    """uvicorn's protocol for an app, past what stands before it: the router of functions-framework, which loads and
    starts the function, tries four patterns and draws twelve random letters for each request. most: connections that
    are kept at a time, idle ones too."""

    class Straight(Protected):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.app = app

        def connection_made(self, transport: Any) -> None:
            self._one_write = OneWrite(transport)
            super().connection_made(self._one_write)  # type: ignore[arg-type]
            if len(self.connections) > most:
                self.app = refused

        def on_response_complete(self) -> None:
            self._one_write.flush()
            self._one_write.expects_head = True
            super().on_response_complete()

    return Straight


class Loop(uvloop.Loop):
    """A loop that lets new connections in beside a crowd. uvloop's own takes one a round from each listener, and a
    round lasts until all who ask have been looked at: the last of a thousand would wait for seconds."""

    async def create_server(self, factory: Any, *given: Any, **options: Any) -> Any:  # type: ignore[override]
        """One that listens at a socket by several handles; elsewhere, as uvloop does."""
        servers = [await super().create_server(factory, *given, **options)]
        if "sock" not in options:
            return servers[0]
        for _ in range(LISTENERS - 1):
            try:
                servers.append(await super().create_server(factory, **{**options, "sock": options["sock"].dup()}))
            except OSError:  # no more descriptors: fewer will do
                break
        return _Listeners(servers)


class _Listeners:
    """Servers that are closed as one: all that uvicorn asks of one that it gave the socket."""

    def __init__(self, servers: list[Any]) -> None:
        self._servers = servers

    def close(self) -> None:
        """None of them takes connections any more."""
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Returns when all of them are closed."""
        for server in self._servers:
            await server.wait_closed()
