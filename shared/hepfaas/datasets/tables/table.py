"""The interface of a table, and the bytes that it is read from."""

from __future__ import annotations

import io
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from hepfaas.datasets.branch_choice import Branch
from hepfaas.features.jagged import Values
from hepfaas.sandbox.tasks import Callbacks

BUFFER_BYTES = 1_000_000


class Table(ABC):
    """An open file of events.

    branches: of numbers, by name. left_out: other columns, with the reason. edges: entries at which its parts end, with
    0 and the number of entries; reading a part of it costs as much as all of it. compression: '' if there is none.
    notes: for the user, on missing values.
    """

    branches: Mapping[str, Branch]
    left_out: Sequence[tuple[str, str]]
    edges: Sequence[int]
    compression: str = ""
    notes: Sequence[str] = ()

    @property
    def entries(self) -> int:
        """Number of events."""
        return self.edges[-1]

    def layout(self) -> dict[str, Any]:
        """Return JSON values from which another process opens the same file without looking at all of it."""
        return {}

    @abstractmethod
    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Values]:
        """Return branches for the entries [start, stop), each (events,) or jagged."""


class Data(ABC):
    """The bytes of a file, at any place."""

    size_bytes: int

    @abstractmethod
    def read(self, start: int, stop: int) -> memoryview:
        """Return the bytes [start, stop)."""

    def whole(self) -> io.BufferedReader:
        """Return a file object."""
        return io.BufferedReader(_File(self), BUFFER_BYTES)

    def arrow(self) -> Any:
        """Return a file object of Arrow."""
        return pa.PythonFile(self.whole(), mode="r")


class MappedData(Data):
    """A file that is open in this process."""

    def __init__(self, descriptor: int) -> None:
        self.size_bytes = os.fstat(descriptor).st_size
        self._bytes = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if self.size_bytes else b"")

    def read(self, start: int, stop: int) -> memoryview:
        """Return the bytes [start, stop)."""
        return self._bytes[start:stop]

    def arrow(self) -> Any:
        """Return a file object of Arrow."""
        return pa.BufferReader(pa.py_buffer(self._bytes))


class FetchedData(Data):
    """A file whose bytes the parent process fetches."""

    def __init__(self, callbacks: Callbacks, size_bytes: int) -> None:
        self.size_bytes, self._callbacks = size_bytes, callbacks

    def read(self, start: int, stop: int) -> memoryview:
        """Return the bytes [start, stop)."""
        start, stop = min(start, self.size_bytes), min(stop, self.size_bytes)
        if start >= stop:
            return memoryview(b"")
        (part,) = self._callbacks("fetch", ranges=[(start, stop)])
        return memoryview(part)  # type: ignore[arg-type]  # an array is a buffer


class _File(io.RawIOBase):
    """The file object of some data."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._data.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data.read(self._at, self._at + len(buffer))
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
