"""Identity of a file: the name for the results that are made from it, and the proof that a later read is the same file.

Where all bytes are read cheaply (files on disk, uploads, files on servers up to `Reading.hashed_bytes`) the identity is
the SHA-256 of the content, and the bytes that are parsed are those that were hashed: the open file on disk, or the
bytes in memory. A server cannot lie about such a file, and a copy, a cache and an upload are the same file.

A larger file on a server has the identity `address-…`: a hash of its address, of its size, UUID and keys, and of the
version (ETag) that S3 and web servers send. Its results are used for that address only, so a server can only lie about
its own files. Checksums of XRootD (adler32, crc32c) are not used: collisions are easy to make.
"""

from __future__ import annotations

import hashlib
import re

from hepfaas.datasets.byte_source import ByteSource, LocalSource, MemorySource, Stat
from hepfaas.datasets.reading import Reading
from hepfaas.platform.address import parsed

_UPLOAD = re.compile(r"uploads/([0-9a-f]{64})/[^/]+")
"""Key of an upload: `runs` has hashed its content (jobs/uploads.py)."""


def in_memory(source: ByteSource, most_bytes: int) -> ByteSource:
    """Return the source, or all its bytes in memory if they are at most `most_bytes`. Raises: the source's errors."""
    size = source.size_bytes
    if not 0 < size <= most_bytes:
        return source
    with source:
        (data,) = source.fetch([(0, size)])
    return MemorySource(data)


def uploaded(url: str, reading: Reading) -> str:
    """Return the SHA-256 of an upload in the owner's own store, '' for any other address."""
    own = reading.own and url.startswith(reading.own)
    match = _UPLOAD.fullmatch(url.removeprefix(reading.own)) if own else None
    return match[1] if match else ""


def identity_of(source: ByteSource, fingerprint: str, url: str, reading: Reading) -> str:
    """Return the identity of an open file. fingerprint: of its structure (root_worker.py). url: the address in the
    list of files, whatever endpoint it is read at.

    Servers of a federation send different versions of the same file, so theirs are not used.
    """
    digest = uploaded(url, reading)
    if digest:
        return digest
    if isinstance(source, LocalSource | MemorySource):
        return source.sha256()
    version = "" if reading.sources.federation_of(parsed(url)) else getattr(source, "version", "")
    text = repr(("address", url, version, fingerprint))
    return f"address-{hashlib.sha256(text.encode()).hexdigest()}"


def stat_of(source: ByteSource) -> Stat:
    """Return values that change when an open file on disk is written to, () for others."""
    return source.stat() if isinstance(source, LocalSource) else ()


def is_still(source: ByteSource, identity: str, since: Stat) -> bool:
    """Return whether an open file has the same identity as when `stat_of` returned `since`. A file on a server is in
    memory or its source checks it."""
    return not isinstance(source, LocalSource) or source.stat() == since or source.sha256() == identity
