"""Reader of untrusted FlatBuffers: each access is checked against the buffer first.

Format: https://flatbuffers.dev/internals. Tables are read by field number; the caller knows the schema. Its depth is
fixed, the length of each vector is limited and no byte is read as content twice, so the time is linear in the size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

I8, U8, I32, U32, U64, F32 = (struct.Struct(f"<{kind}") for kind in "bBiIQf")

MOST_FIELDS = 32
"""Fields of a table that are read; our schemas have no more."""

MOST_TEXT = 100_000
"""Largest string in bytes."""

MOST_BYTES = 2**31 - 1
"""Largest buffer that 32-bit offsets can address."""

Buffer = bytes | bytearray | memoryview


class FlatBufferError(ValueError):
    """An offset, size or string of the buffer is invalid."""


class Table:
    """A table whose layout has been checked."""

    __slots__ = ("_at", "_fields", "_reader", "_size")

    def __init__(self, reader: _Reader, at: int) -> None:
        self._reader, self._at = reader, at
        self._fields, self._size = reader.layout(at)

    def has(self, field: int) -> bool:
        """Return True if the field is present."""
        return field < len(self._fields) and self._fields[field] != 0

    def number(self, field: int, kind: struct.Struct, default: int = 0) -> int:
        """Return a scalar field. Raises: FlatBufferError."""
        at = self._place(field, kind.size)
        return int(kind.unpack_from(self._reader.data, at)[0]) if at else default

    def table(self, field: int) -> Table | None:
        """Return the table that the field points to, None if it is absent. Raises: FlatBufferError."""
        at = self._place(field, 4)
        return Table(self._reader, self._reader.target(at)) if at else None

    def tables(self, field: int, most: int) -> list[Table]:
        """Return a vector of at most `most` tables. Raises: FlatBufferError."""
        start, count = self.vector(field, 4)
        if count > most:
            raise FlatBufferError(f"a vector has {count:,} tables; at most {most:,} are read")
        reader = self._reader
        return [Table(reader, reader.target(at)) for at in range(start, start + 4 * count, 4)]

    def vector(self, field: int, width: int) -> tuple[int, int]:
        """Return the start and the number of the elements of a vector, (0, 0) if it is absent.

        width: bytes of an element. Raises: FlatBufferError.
        """
        at = self._place(field, 4)
        return self._reader.vector(self._reader.target(at), width) if at else (0, 0)

    def numbers(self, field: int, kind: struct.Struct, most: int) -> tuple[Any, ...]:
        """Return a vector of at most `most` scalars. Raises: FlatBufferError."""
        start, count = self.vector(field, kind.size)
        if count > most:
            raise FlatBufferError(f"a vector has {count:,} numbers; at most {most:,} are read")
        return struct.unpack_from(f"<{count}{kind.format[1]}", self._reader.data, start) if count else ()

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield a vector of structs of two 64-bit integers. Raises: FlatBufferError."""
        start, count = self.vector(field, 16)
        for at in range(start, start + 16 * count, 16):
            yield struct.unpack_from("<qq", self._reader.data, at)

    def text(self, field: int) -> str | None:
        """Return a string, None if it is absent. Raises: FlatBufferError, also if it is not UTF-8."""
        at = self._place(field, 4)
        if not at:
            return None
        start, count = self._reader.vector(self._reader.target(at), 1)
        end = start + count
        data = self._reader.data
        if count > MOST_TEXT or end >= len(data) or data[end] != 0:
            raise FlatBufferError(f"the string at byte {start:,} of {count:,} bytes is too long or has no end")
        try:
            return str(data[start:end], "utf-8")
        except UnicodeDecodeError as error:
            raise FlatBufferError(f"the string at byte {start:,} is not UTF-8") from error

    def scalars_are_inside(self) -> bool:
        """Return True if a scalar of any width can be read from each field."""
        return self._at + max(self._fields, default=0) + 8 <= len(self._reader.data)

    def _place(self, field: int, width: int) -> int:
        """Return the position of a field, 0 if it is absent."""
        offset = self._fields[field] if field < len(self._fields) else 0
        if not offset:
            return 0
        if offset + width > self._size:
            raise FlatBufferError(f"field {field} of the table at byte {self._at:,} lies outside it")
        return self._at + offset


class _Reader:
    """The bytes, the layouts of their tables, and the number of bytes that may still be read."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self._unread = len(data)
        self._layouts: dict[int, tuple[tuple[int, ...], int]] = {}

    def layout(self, at: int) -> tuple[tuple[int, ...], int]:
        """Return the offsets of the fields of a table and its size."""
        if at & 3 or at + 4 > len(self.data):
            raise FlatBufferError(f"no table can be at byte {at:,}")
        vtable = at - I32.unpack_from(self.data, at)[0]
        layout = self._layouts.get(vtable)
        if layout is None:
            layout = self._layouts[vtable] = self._vtable(vtable)
        if at + layout[1] > len(self.data):
            raise FlatBufferError(f"the table at byte {at:,} extends past the end")
        self._read(layout[1])
        return layout

    def target(self, at: int) -> int:
        """Return the position that an offset points to."""
        return at + int(U32.unpack_from(self.data, at)[0])

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Return the start and the number of the elements of a vector."""
        start = at + 4
        if at & 3 or start > len(self.data):
            raise FlatBufferError(f"no vector can be at byte {at:,}")
        count = int(U32.unpack_from(self.data, at)[0])
        if start + count * width > len(self.data) or (width >= 8 and count and start & 7):
            raise FlatBufferError(f"the vector at byte {at:,} of {count:,} elements extends past the end")
        self._read(count * width)
        return start, count

    def _vtable(self, at: int) -> tuple[tuple[int, ...], int]:
        if at < 0 or at & 1 or at + 4 > len(self.data):
            raise FlatBufferError(f"no vtable can be at byte {at:,}")
        length, size = struct.unpack_from("<HH", self.data, at)
        if length < 4 or length & 1 or at + length > len(self.data) or size < 4:
            raise FlatBufferError(f"the vtable at byte {at:,} has length {length} for tables of {size} bytes")
        fields = struct.unpack_from(f"<{min(MOST_FIELDS, length // 2 - 2)}H", self.data, at + 4)
        if any(offset and not 4 <= offset < size for offset in fields):
            raise FlatBufferError(f"the vtable at byte {at:,} has fields outside of its tables of {size} bytes")
        return fields, size

    def _read(self, count: int) -> None:
        self._unread -= count
        if self._unread < 0:
            raise FlatBufferError("its parts overlap")


def root(data: Buffer, identifier: bytes = b"") -> Table:
    """Return the root table of a FlatBuffer. identifier: the file identifier of four bytes, b"": any.

    Raises: FlatBufferError.
    """
    if not 8 <= len(data) <= MOST_BYTES:
        raise FlatBufferError(f"{len(data):,} bytes are not a FlatBuffer")
    if identifier and bytes(data[4:8]) != identifier:
        raise FlatBufferError(f"it is not marked '{identifier.decode()}'")
    return Table(_Reader(data), int(U32.unpack_from(data, 0)[0]))
