"""Identity of a file: the name that results made from it are stored under, and the proof that a file read later is it.

Where all bytes are read cheaply (files on disk, uploads, files on servers up to `Reading.hashed_bytes`) the identity is
the SHA-256 of the content, and what is parsed is what was hashed: the open file on disk, or the bytes in memory. A
server cannot lie about such a file, and a copy, a cache and an upload are the same file.

A larger file on a server has the identity `address-…`: a hash of the address under which it was named, of its size,
UUID and keys, and of the version (ETag) that S3 and web servers state. Its results count for that address alone, so a
server can only lie about its own files. Checksums of XRootD (adler32, crc32c) are not used: another content with the
same checksum is made in a moment.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import threading
import time
from collections import OrderedDict
from io import BufferedReader
from typing import Any, Self

import numpy as np
import uproot
from uproot.source.chunk import Chunk, Source
from uproot.source.futures import TrivialFuture

from hepfaas.datasets.doors import Reading

Stat = tuple[int, ...]

MOST_REMEMBERED = 10_000
SETTLED_NS = 1_000_000_000
"""The clock of a file system is coarse: a file that changed this recently may change again with the same times."""

_UPLOAD = re.compile(r"uploads/([0-9a-f]{64})/[^/]+")
"""Key of an upload: `runs` has hashed its content (service/uploads.py)."""

_known: OrderedDict[Stat, str] = OrderedDict()
_lock = threading.Lock()


class LocalSource(uproot.MemmapSource):  # type: ignore[misc]  # uproot has no types
    """A file on disk, mapped. The descriptor stays open, so that what is hashed is what is mapped."""

    _file_path: str
    _held: BufferedReader

    def _open(self) -> None:
        self._held = open(self._file_path, "rb")  # noqa: PTH123, SIM115  # closed by __exit__
        path, self._file_path = self._file_path, f"/proc/self/fd/{self._held.fileno()}"
        try:
            super()._open()
        except BaseException:
            self._held.close()
            raise
        finally:
            self._file_path = path

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._held.close()

    def stat(self) -> Stat:
        """Return what changes when the file is written to."""
        found = os.fstat(self._held.fileno())
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def sha256(self) -> str:
        """Return the SHA-256 of the content, computed once a process for each state of a file."""
        before = self.stat()
        with _lock:
            known = _known.get(before)
        if known:
            return known
        settled = before[-1] < time.time_ns() - SETTLED_NS
        self._held.seek(0)
        digest = hashlib.file_digest(self._held, "sha256").hexdigest()
        if settled and self.stat() == before:
            with _lock:
                _known[before] = digest
                while len(_known) > MOST_REMEMBERED:
                    _known.popitem(last=False)
        return digest


class HeldSource(Source):  # type: ignore[misc]  # uproot has no types
    """A file whose bytes are all in memory."""

    def __init__(self, file_path: str, data: bytes) -> None:
        super().__init__()
        self._file_path, self._data, self._num_bytes, self._closed = file_path, memoryview(data), len(data), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed, self._data = True, memoryview(b"")

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def sha256(self) -> str:
        """Return the SHA-256 of the content."""
        return hashlib.sha256(self._data).hexdigest()

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return one range."""
        return Chunk(self, start, stop, TrivialFuture(np.frombuffer(self._data[start:stop], np.uint8)))

    def chunks(self, ranges: list[tuple[int, int]], notifications: queue.Queue[Any]) -> list[Chunk]:
        """Return many ranges."""
        chunks = [self.chunk(start, stop) for start, stop in ranges]
        for chunk in chunks:
            notifications.put(chunk)
        return chunks


class Given(Source):  # type: ignore[misc]  # uproot has no types
    """The handler that makes uproot read from a source that is open already."""

    def __new__(cls, file_path: str, source: Source, **options: Any) -> Source:
        """Return that source."""
        return source


def held(source: Source, path: str, most_bytes: int) -> Source:
    """Return the source, or all its bytes in memory if they are at most `most_bytes`. Raises: as the source does."""
    size = int(source.num_bytes)
    if not 0 < size <= most_bytes:
        return source
    with source:
        data = bytes(source.chunk(0, size).raw_data)
    return HeldSource(path, data)


def uploaded(url: str, reading: Reading) -> str:
    """Return the SHA-256 of an upload in the owner's own store, '' for any other address."""
    own = reading.own and url.startswith(reading.own)
    match = _UPLOAD.fullmatch(url.removeprefix(reading.own)) if own else None
    return match[1] if match else ""


def identity_of(file: Any, url: str, reading: Reading) -> str:
    """Return the identity of an open file. url: the address under which it was named, whatever door it is read at.

    The servers of a federation state different versions of the same file, so theirs do not count.
    """
    digest = uploaded(url, reading)
    if digest:
        return digest
    source = file.file.source
    if isinstance(source, LocalSource | HeldSource):
        return source.sha256()
    version = "" if reading.sources.federation_of(url) else getattr(source, "version", "")
    text = repr(("address", url, version, fingerprint(file)))
    return f"address-{hashlib.sha256(text.encode()).hexdigest()}"


def fingerprint(file: Any) -> str:
    """Return a hash of size, UUID and keys: equal for copies of a file, and easily made equal for another one."""
    keys = [file.key(name) for name in file.iterkeys(recursive=True)]
    facts = [(k.fName, k.fClassName, k.fCycle, k.fSeekKey, k.fNbytes, k.fObjlen, k.fDatime) for k in keys]
    text = repr((int(file.file.source.num_bytes), file.file.uuid.hex, facts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stat_of(file: Any) -> Stat:
    """Return what changes when an open file on disk is written to, () for others."""
    source = file.file.source
    return source.stat() if isinstance(source, LocalSource) else ()


def is_still(file: Any, identity: str, since: Stat) -> bool:
    """Return whether an open file has the identity that it had when `stat_of` gave this. A file on a server is in
    memory or watched by its source."""
    return stat_of(file) == since or file.file.source.sha256() == identity
