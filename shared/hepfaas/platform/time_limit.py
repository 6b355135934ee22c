"""How long what is asked for inside may take as a whole: set by who asks, kept by who reads from sockets (web.py)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNTIL: ContextVar[float] = ContextVar("until", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is asked for inside must have come by then, to its last byte, however slowly a server gives it."""
    before = _UNTIL.set(min(_UNTIL.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _UNTIL.reset(before)


def deadline() -> float:
    """When time is up, by `time.monotonic`; inf where nobody has set a limit."""
    return _UNTIL.get()


def remaining_s() -> float:
    """Raises: TimeoutError if there is nothing left."""
    left = _UNTIL.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("its time is up")
    return left
