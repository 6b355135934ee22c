"""Scores as they are sent, part after part: lines of JSON, an Arrow stream, or Parquet. Memory does not grow with them.

Lines end with one that says it was all, or what went wrong; an Arrow stream with its end mark, Parquet with its footer.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import MissingError, RequestError, UnavailableError, public_text
from hepfaas.scores.files import Columns

LINES, ARROW_STREAM, PARQUET = (
    "application/x-ndjson",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
)
OFFERED = (LINES, ARROW_STREAM, PARQUET)


def streamed(kind: str, some: Iterable[Columns], model: str, files: int) -> Iterator[bytes]:
    """The scores as a media type of those offered. What goes wrong half-way is told by the last line; the other forms
    break off, without their end."""
    return _lines(some, model, files) if kind == LINES else _tables(kind, some, {"model": model})


def lines_of(columns: Columns) -> bytes:
    """JSON, one object a line and event, put together from the text of whole columns: ten times as fast as event by
    event."""
    import orjson

    line = b"{" + b",".join(orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in columns) + b"}\n"
    return b"".join(map(line.__mod__, zip(*map(_texts, columns.values()), strict=True)))


def error_line(error: str, events: int) -> bytes:
    """The last line where something went wrong, after so many events."""
    import orjson

    return orjson.dumps({"error": error, "events": events}, option=orjson.OPT_APPEND_NEWLINE)


def _texts(values: NDArray[Any]) -> list[bytes]:
    """Each number as JSON; NaN is null, float32 the shortest text that gives it back."""
    import orjson

    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    return orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if len(plain) else []


def _lines(some: Iterable[Columns], model: str, files: int) -> Iterator[bytes]:
    import orjson

    events = 0
    try:
        for columns in some:
            yield lines_of(columns)
            events += len(columns["entry"])
        yield orjson.dumps({"model": model, "files": files, "events": events}, option=orjson.OPT_APPEND_NEWLINE)
    except (RequestError, UnavailableError, MissingError) as error:
        yield error_line(public_text(error), events)


def _tables(kind: str, some: Iterable[Columns], told: Mapping[str, str]) -> Iterator[bytes]:
    """The columns of the first part are those of all: others' values are cast to them, null where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = _Sent()
    out = pa.PythonFile(sink, mode="w")
    writer: Any = None

    def begun(schema: Any) -> Any:
        if kind == PARQUET:
            return pq.ParquetWriter(out, schema, compression="zstd")
        return pa.ipc.new_stream(out, schema)

    for columns in some:
        arrays = {name: pa.array(values) for name, values in columns.items()}
        if writer is None:
            schema = pa.schema([(name, values.type) for name, values in arrays.items()], told)
            writer = begun(schema)
        none = pa.nulls(len(columns["entry"]))
        batch = [arrays.get(item.name, none).cast(item.type) for item in schema]
        writer.write_batch(pa.RecordBatch.from_arrays(batch, schema=schema))
        yield sink.taken()
    writer = writer or begun(pa.schema([("file", pa.int32()), ("entry", pa.int64())], told))
    writer.close()
    yield sink.taken()


class _Sent(io.RawIOBase):
    """Takes what is written and gives it away; positions go on counting, as Parquet's footer needs them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._written += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        data, self._parts = b"".join(self._parts), []
        return data
