"""The stored form of a prepared entry range: an Arrow IPC file, zstd, that can be read one record batch at a time.

Record batches have 2,000 rows; those with training rows come first, then validation, then test, each in the order
of entries. Columns: `features` (fixed size list of float32), `label`, `entry`, and the identifiers as they were.
What the part is and how many rows each split has stands in the schema's metadata.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from hepfaas.runs.epochs import BATCH_ROWS
from hepfaas.training.segments import Rows
from hepfaas.training.split import SPLITS, event_ids

FOOTER_BYTES = 1 << 16
"""Read at once from the end of a part: the whole footer of all but the widest."""


@dataclass(frozen=True)
class PartFacts:
    """Whose events a part holds: file identity, entry range, label, rows of each split, and the sum of the
    training rows' event ids (split.id_sum)."""

    file: str
    entries: tuple[int, int]
    label: int
    rows: tuple[int, int, int]
    id_sum: int

    def first_batch(self, split: int) -> int:
        """Number of the first record batch of a split."""
        return sum(-(-rows // BATCH_ROWS) for rows in self.rows[:split])

    def batches(self, split: int) -> range:
        """Numbers of the record batches of a split."""
        return range(self.first_batch(split), self.first_batch(split + 1))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PartFacts:
        """From the values of `dataclasses.asdict`, also after a journey through JSON text."""
        return cls(values["file"], tuple(values["entries"]), values["label"], tuple(values["rows"]), values["id_sum"])


@dataclass(frozen=True)
class PreparedRows:
    """Some rows of one split: features (rows, features), entry (rows,), identifiers by name (rows,)."""

    features: NDArray[np.float32]
    entries: NDArray[np.int64]
    identifiers: Mapping[str, NDArray[Any]]


def to_bytes(facts: PartFacts, rows: Iterable[PreparedRows], n_features: int) -> pa.Buffer:
    """The part as it is stored; `rows` come split after split, 2,000 at once, fewer only at a split's end."""
    sink = pa.BufferOutputStream()
    writer = None
    for some in rows:
        batch = _batch(facts.label, some)
        if writer is None:
            writer = _writer(sink, batch.schema, facts)
        writer.write_batch(batch)
    if writer is None:
        writer = _writer(sink, _batch(facts.label, _no_rows(n_features)).schema, facts)
    writer.close()
    return sink.getvalue()


class Part:
    """A stored part, read by ranges. `read(start, stop)` gives bytes of the object, `size_bytes` is its size."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._file = pa.ipc.open_file(pa.PythonFile(_Ranged(read, size_bytes), mode="r"))
        metadata = self._file.schema.metadata or {}
        self.facts = PartFacts.from_json(json.loads(metadata[b"hepfaas"]))

    def rows(self, number: int) -> Rows:
        """One record batch as the learner takes it."""
        batch = self._file.get_batch(number)
        entries = batch.column("entry").to_numpy()
        labels = np.full(len(entries), self.facts.label, dtype=np.int64)
        return Rows(_matrix_of(batch), labels, event_ids(self.facts.file, entries))

    def entries(self, split: int) -> NDArray[np.int64]:
        """The entries of a split, (rows,)."""
        batches = [self._file.get_batch(number).column("entry").to_numpy() for number in self.facts.batches(split)]
        return np.concatenate(batches) if batches else np.zeros(0, dtype=np.int64)


class _Ranged(io.RawIOBase):
    """A file of byte ranges, with the end of it, where Arrow keeps its index, read once."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._read, self._size, self._position = read, size_bytes, 0
        self._tail_start = max(0, size_bytes - FOOTER_BYTES)
        self._tail = read(self._tail_start, size_bytes)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        start = self._position
        stop = self._size if size is None or size < 0 else min(self._size, start + size)
        self._position = stop
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : stop - self._tail_start]
        return self._read(start, stop)


def _writer(sink: pa.BufferOutputStream, schema: pa.Schema, facts: PartFacts) -> pa.ipc.RecordBatchFileWriter:
    described = schema.with_metadata({"hepfaas": json.dumps({**asdict(facts), "splits": SPLITS}, sort_keys=True)})
    return pa.ipc.new_file(sink, described, options=pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1)))


def _batch(label: int, some: PreparedRows) -> pa.RecordBatch:
    count, n_features = some.features.shape
    features = pa.FixedSizeListArray.from_arrays(pa.array(some.features.reshape(-1)), n_features)
    columns = {
        "features": features,
        "label": pa.array(np.full(count, label, dtype=np.int32)),
        "entry": pa.array(some.entries),
        **{name: pa.array(values) for name, values in some.identifiers.items()},
    }
    return pa.RecordBatch.from_pydict(columns)


def _no_rows(n_features: int) -> PreparedRows:
    return PreparedRows(np.zeros((0, n_features), dtype=np.float32), np.zeros(0, dtype=np.int64), {})


def _matrix_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    column = batch.column("features")
    flat: NDArray[np.float32] = column.values.to_numpy()
    width = column.type.list_size
    return flat[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
