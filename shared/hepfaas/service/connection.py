"""Connections of predict: from the socket to the app and back with as little in between as uvicorn allows."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class OneWrite:
    """A transport of asyncio that sends the head of an answer together with what follows it: one call of the system
    instead of two, a tenth of the time that a row takes."""

    def __init__(self, below: asyncio.Transport) -> None:
        self._below, self._head = below, b""
        self.is_closing, self.get_extra_info = below.is_closing, below.get_extra_info
        self.pause_reading, self.resume_reading = below.pause_reading, below.resume_reading

    def write(self, data: bytes) -> None:
        """What uvicorn writes: a head by itself, then pieces of the body, the last of which may be empty."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and data != CONTINUE:
            self._head = data
            return
        self._below.write(data)

    def flush(self) -> None:
        """Sends what is held back: a piece of a body may look like a head."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Sends what is held back first."""
        self.flush()
        self._below.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


def straight_to(app: ASGIApp) -> type[HttpToolsProtocol]:
    """uvicorn's protocol for an app, past what stands before it: the router of functions-framework, which loads and
    starts the function, tries four patterns and draws twelve random letters for each request."""

    class Straight(HttpToolsProtocol):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.app = app

        def connection_made(self, transport: Any) -> None:
            self._one_write = OneWrite(transport)
            super().connection_made(self._one_write)  # type: ignore[arg-type]

        def on_response_complete(self) -> None:
            self._one_write.flush()
            super().on_response_complete()

    return Straight
