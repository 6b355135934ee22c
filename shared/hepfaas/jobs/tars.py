"""The members of a tar or tar.gz, read as a stream in bounded memory.

Python's tarfile reads each extended header (PAX, GNU long names) into memory whole, whatever its size, and keeps all
members. Here every size is checked before anything of that size is read or kept. Plain files and directories of ustar,
PAX and GNU archives are read; links, devices and sparse files are refused.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from hepfaas.errors import RequestError

GZIP = b"\x1f\x8b"
PIECE = 1 << 16
MOST_HEADER = 65_536
"""Bytes of one extended header: a name, times and attributes take a few hundred."""
MOST_HEADERS = 16
"""Extended headers before one member."""
MOST_GZIP_MEMBERS = 100_000
"""Members of a gzip file: bgzip makes one for each 64 kB."""
MOST_RATIO, RATIO_FROM = 100, 100_000_000
"""Largest ratio of unpacked to sent bytes, checked once RATIO_FROM bytes are unpacked."""
TAIL = 1 << 20
"""Bytes that are read after the end of an archive: its padding, and the checksum of gzip."""

_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_IGNORED = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`."""
        ...


class Member:
    """A plain file or a directory of an archive; its content must be read before the next member."""

    def __init__(self, name: str, size_bytes: int, is_folder: bool, archive: _Bytes) -> None:
        self.name, self.is_folder, self._left, self._archive = name, is_folder, size_bytes, archive
        self._padding = -size_bytes % tarfile.BLOCKSIZE

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`. Raises: TarError if the archive ends before."""
        data = self._archive.piece(min(size, self._left))
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Skip the rest of the content."""
        while self._left:
            self.read(PIECE)
        self._archive.exactly(self._padding)


@dataclass(frozen=True)
class _Extended:
    """Values for the next member from its extended headers."""

    name: str | None = None
    size_bytes: int | None = None


def members(data: Readable, most_bytes: int, too_large: Callable[[], RequestError]) -> Iterator[Member]:
    """Yield the members of a tar, gzipped or not, of at most `most_bytes` unpacked, headers included.

    Raises: RequestError if a member is not a plain file or directory; TarError, zlib.error or ValueError if the archive
    is damaged; what `too_large` returns if it is larger.
    """
    archive = _Bytes(data, most_bytes, too_large)
    extended, headers, is_first = _Extended(), 0, True
    while block := archive.block():
        if not any(block):
            archive.tail()
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        if info.type in (*_EXTENDED, *_IGNORED, tarfile.GNUTYPE_LONGNAME):
            headers += 1
            if headers > MOST_HEADERS:
                raise RequestError(f"the archive has more than {MOST_HEADERS} extended headers before one member")
            extended = _read_extended(info, archive, extended)
            continue
        member = _member(info, extended, archive)
        yield member
        member.skip()
        extended, headers, is_first = _Extended(), 0, False
    if is_first or headers:
        raise tarfile.ReadError("it ends before its first member" if is_first else "it ends after an extended header")


def _read_extended(info: tarfile.TarInfo, archive: _Bytes, extended: _Extended) -> _Extended:
    if info.size > MOST_HEADER:
        raise RequestError(
            f"the archive has an extended header of {info.size:,} bytes; at most {MOST_HEADER:,} are read"
        )
    data = archive.exactly(info.size)
    archive.exactly(-info.size % tarfile.BLOCKSIZE)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return replace(extended, name=data.partition(b"\0")[0].decode("utf-8", "surrogateescape"))
    return _of_records(data, extended) if info.type in _EXTENDED else extended


def _of_records(data: bytes, extended: _Extended) -> _Extended:
    """Parse PAX records: each is 'length keyword=value' and a line break (POSIX.1-2024, pax, "pax Extended Header")."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 7)
        digits = data[at : max(space, at)]
        end = at + int(digits) if digits.isdigit() else 0
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not at < end <= len(data) or not equals or data[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a PAX header is damaged")
        if keyword.startswith(b"GNU.sparse"):
            raise RequestError("the archive has sparse files; pack it without --sparse")
        if keyword == b"path":
            extended = replace(extended, name=value.decode("utf-8", "surrogateescape"))
        elif keyword == b"size":
            if not value.isdigit() or len(value) > 15:
                raise tarfile.ReadError("a PAX header has an invalid size")
            extended = replace(extended, size_bytes=int(value))
        elif keyword == b"hdrcharset" and value not in (b"BINARY", b"ISO-IR 10646 2000 UTF-8"):
            raise tarfile.ReadError("a PAX header has an unknown character set")
        at = end
    return extended


def _member(info: tarfile.TarInfo, extended: _Extended, archive: _Bytes) -> Member:
    name = info.name if extended.name is None else extended.name
    if info.isdir():
        return Member(name, 0, True, archive)
    if info.type == tarfile.GNUTYPE_SPARSE:
        raise RequestError("the archive has sparse files; pack it without --sparse")
    if not info.isreg():
        raise RequestError(f"the archive's '{name[:200]}' is not a plain file; links are not unpacked")
    return Member(name, info.size if extended.size_bytes is None else extended.size_bytes, False, archive)


class _Bytes:
    """The unpacked bytes of an archive, counted before they are kept."""

    def __init__(self, data: Readable, most_bytes: int, too_large: Callable[[], RequestError]) -> None:
        head = data.read(len(GZIP))
        self._pieces = _unzipped(head, data) if head == GZIP else _plain(head, data)
        self._left, self._too_large = most_bytes, too_large
        self._kept = memoryview(b"")

    def piece(self, size: int) -> bytes:
        """Return the next bytes, at least one and at most `size`. Raises: TarError at the end, unless `size` is 0."""
        if not size:
            return b""
        if not self._fill():
            raise tarfile.ReadError("unexpected end of data")
        data, self._kept = self._kept[:size], self._kept[size:]
        return bytes(data)

    def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes, which are few. Raises: TarError if the archive ends before."""
        data = self.piece(size)
        while len(data) < size:
            data += self.piece(size - len(data))
        return data

    def block(self) -> bytes:
        """Return the next header, b'' at the end of the archive."""
        return self.exactly(tarfile.BLOCKSIZE) if self._fill() else b""

    def tail(self) -> None:
        """Read at most TAIL bytes after the archive: the checksum of gzip is at its end."""
        left = TAIL
        while left > 0 and self._fill():
            left -= len(self._kept)
            self._kept = memoryview(b"")

    def _fill(self) -> bool:
        if not self._kept:
            self._kept = memoryview(next(self._pieces, b""))
            self._left -= len(self._kept)
            if self._left < 0:
                raise self._too_large()
        return bool(self._kept)


def _plain(head: bytes, data: Readable) -> Iterator[bytes]:
    piece = head
    while piece:
        yield piece
        piece = data.read(PIECE)


def _unzipped(head: bytes, data: Readable) -> Iterator[bytes]:
    """Yield the unpacked bytes of a gzip file. Raises: zlib.error; TarError; RequestError if they are too many."""
    sent, unpacked, gzip_members = 0, 0, 1
    unzip, zipped = zlib.decompressobj(wbits=31), head
    while zipped or (zipped := data.read(PIECE)):
        sent += len(zipped)
        while zipped:
            if unzip.eof:
                zipped = zipped.lstrip(b"\0")  # padding after members, as gzip allows
                if not zipped:
                    break
                gzip_members += 1
                if gzip_members > MOST_GZIP_MEMBERS:
                    raise RequestError(f"the archive has more than {MOST_GZIP_MEMBERS:,} gzip members")
                unzip = zlib.decompressobj(wbits=31)
            piece = unzip.decompress(zipped, PIECE)
            zipped = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
            unpacked += len(piece)
            if unpacked > RATIO_FROM and unpacked > MOST_RATIO * sent:
                raise RequestError(
                    f"the archive unpacks to more than {MOST_RATIO} times its size; leave out empty files"
                )
            if piece:
                yield piece
    if not unzip.eof:
        raise tarfile.ReadError("the gzip file is incomplete")
