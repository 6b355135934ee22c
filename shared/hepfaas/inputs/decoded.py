"""What documents of events take in memory once they are decoded, from what they say before anything of them is.

What a footer or a tree claims is not believed where the decoder goes by other sizes: of Arrow each buffer's own length
counts, of Parquet each page's, of ROOT each basket's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any

from hepfaas import flatbuffer
from hepfaas.errors import RequestError
from hepfaas.flatbuffer import FlatBufferError

VALUE_BYTES = 16
"""Of each number while it becomes part of a vector."""

MESSAGE_BYTES = 4_096
"""Of a record batch or a row group, however little is in it."""

MOST_FOOTER = 16_000_000
"""Bytes of a Parquet footer, which takes some thirty times as many in memory."""

PAGE_BYTES = 1_024
"""Of a page of Parquet, however little it says is in it: to look at it takes a while."""

VALUES_OF = {0: 5, 2: 7, 3: 8}
"""Where a page's header tells its values, by the page's type: data, dictionary, data in the second form."""

MOST_DEPTH = 4
"""Structs inside a page's header."""

PARQUET_ROWS = 65_536
"""Decoded at a time."""

_FILE_MAGIC = b"ARROW1"
_PREFIX = struct.Struct("<q")

Body = bytes | memoryview
Hold = Callable[[int], None]
"""Told how many bytes are about to be needed, in all. Raises: TooLargeError; OverloadedError."""


def arrow_table(body: Body, is_file: bool, hold: Hold) -> Any:
    """The table of an Arrow stream, or of an Arrow file, which is one with a footer: that is not looked at.

    Raises: what pyarrow does; RequestError; what `hold` does.
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


def parquet_table(body: Body, wanted: Callable[[Collection[str]], list[str]], hold: Hold) -> Any:
    """The columns of a Parquet file that are wanted of those there are, decoded some rows at a time.

    Raises: what pyarrow does; RequestError; what `hold` and `wanted` do.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if int.from_bytes(body[-8:-4], "little") > MOST_FOOTER:
        raise RequestError(f"the Parquet file's footer has more than {MOST_FOOTER:,} bytes; write larger row groups")
    with pq.ParquetFile(pa.BufferReader(body)) as file:
        names = wanted(file.schema_arrow.names)
        metadata, needed = file.metadata, 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            needed += MESSAGE_BYTES + VALUE_BYTES * max(0, group.num_rows)
            for place in range(group.num_columns):
                column = group.column(place)
                if column.path_in_schema in names or column.path_in_schema.partition(".")[0] in names:
                    for size, values in pages_of(body, column):
                        needed += max(PAGE_BYTES, size, VALUE_BYTES * values)
                        hold(needed)
            hold(needed)
        batches, came = [], 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=names):
            came += MESSAGE_BYTES + batch.nbytes
            hold(max(needed, came))
            batches.append(batch)
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


def pages_of(body: Body, column: Any) -> Iterator[tuple[int, int]]:
    """Uncompressed bytes and values of each page of a column of a row group, as its own header has them (PageHeader of
    parquet.thrift). Raises: RequestError."""
    begins = (column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else 0)
    at = min((place for place in begins if place > 0), default=0)  # without values the data page's place is 0
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
    """Fields of a struct in Thrift's compact protocol by their numbers, those that are numbers or structs, and where it
    ends. Raises: IndexError if there is none."""
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
    found, at = _unsigned(body, at)
    return found >> 1 ^ -(found & 1), at


def _unsigned(body: Body, at: int) -> tuple[int, int]:
    found = 0
    for place in range(10):
        found |= (body[at + place] & 127) << 7 * place
        if body[at + place] < 128:
            return found, at + place + 1
    raise IndexError(at)


def _batch_bytes(metadata: memoryview, body: Any) -> int:
    """Of a message that holds a record batch, by its Flatbuffers (format/Message.fbs, Schema.fbs of Arrow)."""
    try:
        message = flatbuffer.root(metadata)
        batch = message.table(2)
        if batch and message.number(1, flatbuffer.U8) == 2:  # a dictionary: its record batch
            batch = batch.table(1)
        if batch is None:
            raise FlatBufferError("it is missing")
        compressed = batch.has(3)
        values = [length for length, _ in batch.pairs(1)]
        places = list(batch.pairs(2))
        sizes = [_uncompressed(body, *place) if compressed else place[1] for place in places]
        if min((*values, *sizes, *(offset for offset, _ in places)), default=0) < 0:
            raise struct.error("a negative length or place")
        return max(sum(sizes), VALUE_BYTES * sum(values))
    except (FlatBufferError, struct.error) as error:
        raise RequestError(f"the body is no Arrow: a record batch is described wrongly: {error}") from error


def _uncompressed(body: Any, offset: int, length: int) -> int:
    """Bytes of a buffer of a compressed body: it begins with their number, -1 if it is not compressed itself."""
    if length == 0:
        return 0
    (size,) = _PREFIX.unpack_from(body, offset)
    return length if size == -1 else int(size)
