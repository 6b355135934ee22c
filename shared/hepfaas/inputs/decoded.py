"""Memory that documents of events need once they are decoded, found out before they are decoded.

Footers and trees are not trusted where the decoder uses other sizes: Arrow counts by the length of each buffer, Parquet
by each page, ROOT by each basket.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any

from hepfaas import flatbuffer
from hepfaas.errors import RequestError
from hepfaas.flatbuffer import FlatBufferError

ARROW_STREAM, ARROW_FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"

VALUE_BYTES = 16
"""Memory of each number until it is part of a vector."""

MESSAGE_BYTES = 4_096
"""Memory of a record batch or a row group, even an empty one."""

MOST_FOOTER_BYTES = 16_000_000
"""Largest Parquet footer; it takes some thirty times as much memory."""

PAGE_BYTES = 1_024
"""Memory counted for a Parquet page, even an empty one, since reading it takes time."""

VALUES_OF = {0: 5, 2: 7, 3: 8}
"""Field of a page header that has the number of values, by type of page: data, dictionary, data version 2."""

MOST_DEPTH = 4
"""Nested structs in a page header."""

PARQUET_ROWS = 65_536
"""Rows decoded at a time."""

_FILE_MAGIC = b"ARROW1"
_PREFIX = struct.Struct("<q")

Body = bytes | memoryview
Hold = Callable[[int], None]
"""Called with the total bytes that will be needed, before they are. Raises: TooLargeError; OverloadedError."""


def arrow_table(body: Body, is_file: bool, hold: Hold) -> Any:
    """Return the table of an Arrow stream or an Arrow file. A file is a stream with a footer, which is ignored.

    Raises: what pyarrow raises; RequestError; what `hold` raises.
    """
    import pyarrow as pa

    data = pa.py_buffer(body)
    if is_file:
        if not bytes(body[: len(_FILE_MAGIC)]) == bytes(body[-len(_FILE_MAGIC) :]) == _FILE_MAGIC:
            raise pa.ArrowInvalid("it does not begin and end as an Arrow file does")
        data = data.slice(8)
    needed = 0
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(data)):
        needed += MESSAGE_BYTES
        if message.type in ("record batch", "dictionary"):
            needed += _batch_bytes(memoryview(message.metadata), message.body)
        hold(needed)
    return pa.ipc.open_stream(pa.BufferReader(data)).read_all()


def parquet_table(body: Body, choose: Callable[[Collection[str]], list[str]], hold: Hold) -> Any:
    """Return columns of a Parquet file, decoded some rows at a time. choose: returns the columns to read of all.

    Raises: what pyarrow raises; RequestError; what `hold` and `choose` raise.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if int.from_bytes(body[-8:-4], "little") > MOST_FOOTER_BYTES:
        raise RequestError(
            f"the Parquet file's footer has more than {MOST_FOOTER_BYTES:,} bytes; write larger row groups"
        )
    with pq.ParquetFile(pa.BufferReader(body)) as file:
        names = choose(file.schema_arrow.names)
        metadata, needed = file.metadata, 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            needed += MESSAGE_BYTES + VALUE_BYTES * max(0, group.num_rows)
            for index in range(group.num_columns):
                column = group.column(index)
                if column.path_in_schema in names or column.path_in_schema.partition(".")[0] in names:
                    for size, values in pages_of(body, column):
                        needed += max(PAGE_BYTES, size, VALUE_BYTES * values)
                        hold(needed)
            hold(needed)
        batches, decoded = [], 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=names):
            decoded += MESSAGE_BYTES + batch.nbytes
            hold(max(needed, decoded))
            batches.append(batch)
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


def pages_of(body: Body, column: Any) -> Iterator[tuple[int, int]]:
    """Yield uncompressed bytes and number of values of each page of a column chunk, from the page's own header
    (PageHeader of parquet.thrift). Raises: RequestError."""
    offsets = (column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else 0)
    at = min((offset for offset in offsets if offset > 0), default=0)  # a column without values has offset 0
    end = at + column.total_compressed_size
    while 0 <= at < end:
        try:
            header, at = _struct(body, at, 0)
            size, compressed = int(header[2]), int(header[3])
            values = int(header[VALUES_OF[header[1]]][1])
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise RequestError(f"column '{column.path_in_schema}' of the Parquet file has a damaged page") from error
        if min(size, compressed, values) < 0:
            raise RequestError(f"column '{column.path_in_schema}' of the Parquet file has a page of negative size")
        at += compressed
        yield size, values


def _struct(body: Body, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the numbers and structs in a struct of Thrift's compact protocol, by field number, and where it ends.

    Raises: IndexError if it is malformed.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := body[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _integer(body, at)
        fields[number], at = _value(body, at, kind & 15, depth)
    return fields, at + 1


def _value(body: Body, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true and false
        return None, at
    if kind in (4, 5, 6):
        return _integer(body, at)
    if kind == 8:
        length, at = _unsigned(body, at)
        return None, at + length
    if kind == 12 and depth < MOST_DEPTH:
        return _struct(body, at, depth + 1)
    if kind in (3, 7):
        return None, at + (1 if kind == 3 else 8)
    raise IndexError(kind)  # page headers have no lists


def _integer(body: Body, at: int) -> tuple[int, int]:
    encoded, at = _unsigned(body, at)
    return encoded >> 1 ^ -(encoded & 1), at


def _unsigned(body: Body, at: int) -> tuple[int, int]:
    number = 0
    for index in range(10):
        number |= (body[at + index] & 127) << 7 * index
        if body[at + index] < 128:
            return number, at + index + 1
    raise IndexError(at)


def _batch_bytes(metadata: memoryview, body: Any) -> int:
    """Return the memory of a record batch, from its FlatBuffers (format/Message.fbs, Schema.fbs of Arrow)."""
    try:
        message = flatbuffer.root(metadata)
        batch = message.table(2)
        if batch and message.number(1, flatbuffer.U8) == 2:  # a dictionary: its record batch
            batch = batch.table(1)
        if batch is None:
            raise FlatBufferError("it is missing")
        compressed = batch.has(3)
        values = [length for length, _ in batch.pairs(1)]
        buffers = list(batch.pairs(2))
        sizes = [_uncompressed_bytes(body, *buffer) if compressed else buffer[1] for buffer in buffers]
        if min((*values, *sizes, *(offset for offset, _ in buffers)), default=0) < 0:
            raise struct.error("a negative length or offset")
        return max(sum(sizes), VALUE_BYTES * sum(values))
    except (FlatBufferError, struct.error) as error:
        raise RequestError(f"the body is not Arrow: the metadata of a record batch is damaged: {error}") from error


def _uncompressed_bytes(body: Any, offset: int, length: int) -> int:
    """Return the size of a buffer in a compressed body. It begins with that size, -1 if it is not compressed itself."""
    if length == 0:
        return 0
    (size,) = _PREFIX.unpack_from(body, offset)
    return length if size == -1 else int(size)
