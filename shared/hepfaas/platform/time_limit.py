"""A deadline for all requests within a block; the code that reads from sockets keeps it (web.py)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNTIL: ContextVar[float] = ContextVar("until", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Set the limit for requests within the block, until their last byte."""
    before = _UNTIL.set(min(_UNTIL.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _UNTIL.reset(before)


def deadline() -> float:
    """Return the deadline, by `time.monotonic`; inf without a limit."""
    return _UNTIL.get()


def remaining_s() -> float:
    """Return the time until the deadline. Raises: TimeoutError if it has passed."""
    left = _UNTIL.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("its time is up")
    return left
