"""Sources of the bytes of a file, before anything in them is parsed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from hepfaas.sandbox.processes import sealed_memory

Range = tuple[int, int]
Stat = tuple[int, ...]

MOST_REMEMBERED = 10_000
SETTLED_NS = 1_000_000_000
"""Clocks of file systems are coarse: a file that changed this recently may change again without a new time stamp."""

_known: OrderedDict[Stat, str] = OrderedDict()
_lock = threading.Lock()


class ByteSource(ABC):
    """A file of `size_bytes`. descriptor: of the open file, if it is on disk or in memory."""

    size_bytes: int
    descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes [start, stop) of each range."""

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Close what is open."""


class LocalSource(ByteSource):
    """An open file on disk: the bytes that are hashed are those that are read."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: PTH123, SIM115  # closed by `close`
        self.descriptor = self._file.fileno()
        self.size_bytes = os.fstat(self.descriptor).st_size

    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes [start, stop) of each range."""
        return [os.pread(self._file.fileno(), stop - start, start) for start, stop in ranges]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def stat(self) -> Stat:
        """Return values that change when the file is written to."""
        stat = os.fstat(self._file.fileno())
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def sha256(self) -> str:
        """Return the SHA-256 of the content; a process computes it once for each state of a file."""
        before = self.stat()
        with _lock:
            known = _known.get(before)
        if known:
            return known
        settled = before[-1] < time.time_ns() - SETTLED_NS
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        if settled and self.stat() == before:
            with _lock:
                _known[before] = digest
                while len(_known) > MOST_REMEMBERED:
                    _known.popitem(last=False)
        return digest


class BodySource(ByteSource):
    """A file from a request body, in memory that a worker can map."""

    def __init__(self, body: bytes) -> None:
        self.size_bytes = len(body)
        self.descriptor = sealed_memory(len(body), body)

    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes [start, stop) of each range."""
        assert self.descriptor is not None
        return [os.pread(self.descriptor, stop - start, start) for start, stop in ranges]

    def close(self) -> None:
        """Release the memory."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


class MemorySource(ByteSource):
    """A file whose bytes are all in memory."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self.size_bytes = len(data)

    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes [start, stop) of each range."""
        return [self._data[start:stop] for start, stop in ranges]

    def sha256(self) -> str:
        """Return the SHA-256 of the content."""
        return hashlib.sha256(self._data).hexdigest()
