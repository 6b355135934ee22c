"""What a model's code printed while a step lasted, as much of it as a log holds: the beginning and the end.

Lines come in while they are printed, and what is too much goes at once, whatever is printed and however fast.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import IO

MOST_BYTES = 2_000_000
"""Of one step, as Python holds the lines: far more than Keras prints with verbose=1, 20 lines a second."""

MOST_OF_LINE = 10_000
"""Bytes of one line that is printed, characters of one that is kept."""


class StepLog:
    """The lines of one step after the other; any thread may add some."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._half_bytes = most_bytes // 2
        self._lock = threading.Lock()
        self._begin()

    def append(self, line: str) -> None:
        """Adds a line, and drops one from the middle if there is no room."""
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

    def taken(self) -> tuple[str, ...]:
        """What was printed since this was asked last; where lines were dropped, a line says how many."""
        with self._lock:
            gap = (
                f"… {self._dropped_lines:,} lines ({self._dropped_characters / 1e6:,.1f} MB) are left out here: the "
                f"log of a step keeps its first and its last {self._half_bytes / 1e6:g} MB …"
            )
            lines = (*self._first, *([gap] if self._dropped_lines else []), *self._last)
            self._begin()
        return lines

    def _begin(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._first_bytes = self._last_bytes = self._dropped_lines = self._dropped_characters = 0


def shortened(text: str) -> str:
    """A text, or if it is too long for a line of the log its beginning and its end."""
    too_many = len(text) - MOST_OF_LINE
    half = MOST_OF_LINE // 2
    return f"{text[:half]} … {too_many:,} characters left out … {text[-half:]}" if too_many > 0 else text


def lines_of(source: IO[bytes]) -> Iterator[bytes]:
    """Lines as they are printed; of one that is too long the beginning and the end. None is ever held whole."""
    half = MOST_OF_LINE // 2
    while line := source.readline(half):
        end, left_out = b"", 0
        while not (end or line).endswith(b"\n") and (more := source.readline(half)):
            end += more
            left_out += max(0, len(end) - half)
            end = end[-half:]
        yield line + (f" … {left_out:,} bytes left out … ".encode() if left_out else b"") + end
