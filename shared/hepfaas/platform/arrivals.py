"""Bodies of requests while they arrive at a function with few threads. Slow ones of one owner keep nobody out."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
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
    """The bodies that a process waits for.

    One more than `most` takes the place of a slow one, which belongs to an owner with more bodies, or is refused.
    """

    def __init__(self, most: int = MOST_ARRIVING) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Body] = []

    @contextmanager
    def body(self, request: Request, owner: str) -> Iterator[None]:
        """Read the body of a request within the block. owner: "" for a caller that is not known yet.

        Raises: UnavailableError, where the body is read, if too many bodies arrive or it is too slow beside them.
        """
        source = request.environ["wsgi.input"]
        request.environ["wsgi.input"] = _Body(self, owner, source, request.environ.get("gunicorn.socket"))
        try:
            yield
        finally:
            request.environ["wsgi.input"] = source

    @contextmanager
    def waiting_for(self, body: _Body) -> Iterator[None]:
        """Wait for a piece of a body within the block. Raises: UnavailableError."""
        with self._lock:
            if len(self._waiting) >= self._most:
                self._displace_for(body)
            self._waiting.append(body)
        try:
            yield
        finally:
            with self._lock, suppress(ValueError):
                self._waiting.remove(body)

    def _displace_for(self, new: _Body) -> None:
        counts = Counter(body.owner for body in self._waiting)
        slow = [body for body in self._waiting if body.piece_s > SLOW_S and counts[body.owner] > counts[new.owner]]
        if not slow:
            new.cut()  # the rest of it is not read
            raise UnavailableError(f"{len(self._waiting)} requests send their bodies just now; try again in a second")
        slowest = max(slow, key=lambda body: (counts[body.owner], body.piece_s))
        self._waiting.remove(slowest)
        slowest.cut()


class _Body:
    """A WSGI input that knows how long its present piece has taken."""

    def __init__(self, arrivals: Arrivals, owner: str, source: IO[bytes], connection: socket.socket | None) -> None:
        self.owner = owner
        self._arrivals, self._source, self._connection = arrivals, source, connection
        self._began = math.inf
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
        while size and (piece := self._piece(min(size, PIECE_BYTES) if size > 0 else PIECE_BYTES)):
            pieces.append(piece)
            size -= len(piece) if size > 0 else 0
        return b"".join(pieces)

    def readline(self, size: int = -1) -> bytes:
        """Return a line, as WSGI wants it."""
        return self._source.readline(size)

    def _piece(self, size: int) -> bytes:
        self._began = time.monotonic()
        with self._arrivals.waiting_for(self):
            try:
                return self._source.read(size)
            finally:
                if self._is_cut:  # whatever the connection gave then
                    raise UnavailableError("the body came too slowly while many others came; send it again")
