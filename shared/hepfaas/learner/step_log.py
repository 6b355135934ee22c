"""The log of one step: the lines that a model's code printed, bounded to the first and the last of them.

Lines are dropped as they arrive, so memory stays bounded however much and however fast the code prints.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import IO

MAX_LOG_BYTES = 2_000_000
"""Size of a step's lines as Python objects: far more than Keras prints with verbose=1, 20 lines a second."""

MAX_LINE = 10_000
"""Longest line: bytes as read, characters as kept."""


class StepLog:
    """The lines of one step. Safe to call from several threads."""

    def __init__(self, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._half_bytes = max_bytes // 2
        self._lock = threading.Lock()
        self._reset()

    def append(self, line: str) -> None:
        """Add a line; drop lines from the middle if the log is full."""
        line = shortened(line)
        size_bytes = sys.getsizeof(line)
        with self._lock:
            if not self._last and self._first_bytes + size_bytes <= self._half_bytes:
                self._first.append(line)
                self._first_bytes += size_bytes
                return
            self._last.append(line)
            self._last_bytes += size_bytes
            while self._last_bytes > self._half_bytes:
                dropped = self._last.popleft()
                self._last_bytes -= sys.getsizeof(dropped)
                self._dropped_lines += 1
                self._dropped_characters += len(dropped)

    def take(self) -> tuple[str, ...]:
        """Return the lines since the last call and forget them; one line reports how many were dropped."""
        with self._lock:
            gap = (
                f"… {self._dropped_lines:,} lines ({self._dropped_characters / 1e6:,.1f} MB) are left out here: the "
                f"log of a step keeps its first and its last {self._half_bytes / 1e6:g} MB …"
            )
            lines = (*self._first, *([gap] if self._dropped_lines else []), *self._last)
            self._reset()
        return lines

    def _reset(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._first_bytes = self._last_bytes = self._dropped_lines = self._dropped_characters = 0


def shortened(text: str) -> str:
    """Return the text, without its middle if it is longer than a line of the log."""
    excess = len(text) - MAX_LINE
    half = MAX_LINE // 2
    return f"{text[:half]} … {excess:,} characters left out … {text[-half:]}" if excess > 0 else text


def lines_of(source: IO[bytes]) -> Iterator[bytes]:
    """Yield lines as they are printed, long ones without their middle. No long line is ever held whole in memory."""
    half = MAX_LINE // 2
    while line := source.readline(half):
        end, left_out = b"", 0
        while not (end or line).endswith(b"\n") and (more := source.readline(half)):
            end += more
            left_out += max(0, len(end) - half)
            end = end[-half:]
        yield line + (f" … {left_out:,} bytes left out … ".encode() if left_out else b"") + end
