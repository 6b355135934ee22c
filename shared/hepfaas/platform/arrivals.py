"""Bodies of requests while they arrive at a function with few threads. Slow ones of one owner keep nobody out."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from flask import Request

from hepfaas.errors import UnavailableError

MOST_ARRIVING = 12
"""Bodies that arrive at once, of 17 requests that a process answers at once: short requests always have a thread."""

PIECE_BYTES = 65_536
SLOW_S = 2.0
"""A piece that takes longer marks its body as slow: it can lose its place to another owner's."""


class Arrivals:
    """The bodies that arrive at one process.

    One more than `most` takes the place of a slow one, which belongs to an owner with more bodies, or is refused.
    """

    def __init__(self, most: int = MOST_ARRIVING) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._bodies: list[_Body] = []

    @contextmanager
    def body(self, request: Request, owner: str) -> Iterator[None]:
        """Read the body of a request within the block. owner: "" for a caller that is not known yet.

        Raises: UnavailableError if too many bodies arrive; within the block also if the body was too slow.
        """
        if not request.content_length and not request.headers.get("Transfer-Encoding"):
            yield
            return
        source = request.environ["wsgi.input"]
        body = _Body(owner, source, request.environ.get("gunicorn.socket"), self._remove)
        self._add(body)
        request.environ["wsgi.input"] = body
        try:
            yield
        finally:
            request.environ["wsgi.input"] = source
            self._remove(body)

    def _add(self, body: _Body) -> None:
        with self._lock:
            if len(self._bodies) >= self._most:
                self._displace_for(body)
            self._bodies.append(body)

    def _displace_for(self, new: _Body) -> None:
        counts = Counter(body.owner for body in self._bodies)
        slow = [body for body in self._bodies if body.piece_s > SLOW_S and counts[body.owner] > counts[new.owner]]
        if not slow:
            new.cut()  # nobody waits for the rest of it
            raise UnavailableError(f"{len(self._bodies)} requests send their bodies just now; try again in a second")
        slowest = max(slow, key=lambda body: (counts[body.owner], body.piece_s))
        self._bodies.remove(slowest)
        slowest.cut()

    def _remove(self, body: _Body) -> None:
        with self._lock, suppress(ValueError):
            self._bodies.remove(body)


class _Body:
    """A WSGI input that knows how long its present piece has taken."""

    def __init__(
        self, owner: str, source: IO[bytes], connection: socket.socket | None, at_end: Callable[[_Body], None]
    ) -> None:
        self.owner = owner
        self._source, self._connection, self._at_end = source, connection, at_end
        self._began = time.monotonic()
        self._is_cut = False

    @property
    def piece_s(self) -> float:
        """Seconds since the present piece began."""
        return time.monotonic() - self._began

    def cut(self) -> None:
        """End the reading of the body."""
        self._is_cut = True
        if self._connection:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, b"" at the end. Raises: UnavailableError if the body was cut."""
        pieces: list[bytes] = []
        while size:
            self._began = time.monotonic()
            try:
                piece = self._source.read(min(size, PIECE_BYTES) if size > 0 else PIECE_BYTES)
            finally:
                if self._is_cut:  # whatever the connection gave then
                    raise UnavailableError("the body came too slowly while many others came; send it again")
            if not piece:
                self._at_end(self)
                break
            pieces.append(piece)
            size -= len(piece) if size > 0 else 0
        return b"".join(pieces)

    def readline(self, size: int = -1) -> bytes:
        """Return a line, as WSGI wants it."""
        return self._source.readline(size)
