"""The stored form of a prepared entry range: an Arrow IPC file, zstd, that can be read one record batch at a time.

A record batch has 2,000 rows of one split, fewer at the split's end; rows of a split are in the order of entries.
Columns: `features` (fixed size list of float32), `label`, `entry`, and the identifiers as they were. What the part
is, how many rows each split has and which split each batch is of stands in the schema's metadata.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from hepfaas.runs.epochs import BATCH_ROWS
from hepfaas.runs.splits import Split
from hepfaas.training.segments import Rows
from hepfaas.training.split import event_ids, id_sum

CHUNK_ROWS = 4 * BATCH_ROWS
"""Events in memory at once as rows of the matrix: 25 MB at 800 features."""

FOOTER_BYTES = 1 << 16
"""Read at once from the end of a part: the whole footer of all but the widest."""


@dataclass(frozen=True)
class PartFacts:
    """Whose events a part holds.

    file: identity; entries: range; rows: of each split; id_sum: of the training rows' event ids (split.id_sum);
    order: the split of each record batch, one digit after the other.
    """

    file: str
    entries: tuple[int, int]
    label: int
    rows: tuple[int, int, int]
    id_sum: int
    order: str

    def batches(self, split: int) -> list[int]:
        """Numbers of the record batches of a split."""
        return [number for number, digit in enumerate(self.order) if digit == str(split)]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PartFacts:
        """From the values of `dataclasses.asdict`, also after a journey through JSON text."""
        return cls(**{**values, "entries": tuple(values["entries"]), "rows": tuple(values["rows"])})


@dataclass(frozen=True)
class PreparedRows:
    """Some events: features (rows, features), entry (rows,), identifiers by name (rows,)."""

    features: NDArray[np.float32]
    entries: NDArray[np.int64]
    identifiers: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, rows: Any) -> PreparedRows:
        identifiers = {name: values[rows] for name, values in self.identifiers.items()}
        return PreparedRows(self.features[rows], self.entries[rows], identifiers)

    @classmethod
    def joined(cls, some: Sequence[PreparedRows]) -> PreparedRows:
        """One after the other."""
        if len(some) == 1:
            return some[0]
        return cls(
            np.concatenate([rows.features for rows in some]),
            np.concatenate([rows.entries for rows in some]),
            {name: np.concatenate([rows.identifiers[name] for rows in some]) for name in some[0].identifiers},
        )


def part_of(
    file: str,
    entries: tuple[int, int],
    label: int,
    split: NDArray[np.uint8],
    events: Callable[[slice], PreparedRows],
) -> pa.Buffer:
    """The part as it is stored. split: of each event of the range, (events,). events: gives some of them, in the
    order of the file, a few thousand at a time: memory does not grow with the range."""
    counts = np.bincount(split, minlength=len(Split))
    ids = event_ids(file, np.arange(*entries, dtype=np.int64)[split == Split.TRAINING])
    order = "".join(str(number) for number, _, _ in _batches(split))
    rows = (int(counts[0]), int(counts[1]), int(counts[2]))
    facts = PartFacts(file, entries, label, rows, id_sum(ids), order)
    sink = pa.BufferOutputStream()
    writer = None
    for some in _rows(split, events):
        batch = _batch(label, some)
        if writer is None:
            writer = _writer(sink, batch.schema, facts)
        writer.write_batch(batch)
    if writer is None:
        raise ValueError(f"entries {entries} are no events")
    writer.close()
    return sink.getvalue()


def _batches(split: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Which batches can be stored after each chunk of events: (split, chunk, rows), those of ends last."""
    waiting = [0] * len(Split)
    n_chunks = -(-len(split) // CHUNK_ROWS)
    for chunk in range(n_chunks):
        found = np.bincount(split[chunk * CHUNK_ROWS : (chunk + 1) * CHUNK_ROWS], minlength=len(Split))
        for number, count in enumerate(found.tolist()):
            waiting[number] += count
            while waiting[number] >= BATCH_ROWS or (chunk == n_chunks - 1 and waiting[number]):
                rows = min(BATCH_ROWS, waiting[number])
                waiting[number] -= rows
                yield number, chunk, rows


def _rows(split: NDArray[np.uint8], events: Callable[[slice], PreparedRows]) -> Iterator[PreparedRows]:
    """The batches as `_batches` has them, each chunk of events asked for once."""
    waiting: list[list[PreparedRows]] = [[] for _ in Split]
    asked = -1
    for number, chunk, rows in _batches(split):
        while asked < chunk:
            asked += 1
            chunk_rows = slice(asked * CHUNK_ROWS, min((asked + 1) * CHUNK_ROWS, len(split)))
            some, whose = events(chunk_rows), split[chunk_rows]
            for place, held in enumerate(waiting):
                held.append(some[whose == place])
        have = PreparedRows.joined(waiting[number])
        yield have[:rows]
        waiting[number] = [have[rows:]]


class Part:
    """A stored part, read by ranges. `read(start, stop)` gives bytes of the object, `size_bytes` is its size."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._file = pa.ipc.open_file(pa.PythonFile(Ranged(read, size_bytes), mode="r"))
        metadata = self._file.schema.metadata or {}
        self.facts = PartFacts.from_json(json.loads(metadata[b"hepfaas"]))
        self.n_features = int(self._file.schema.field("features").type.list_size)

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


class Ranged(io.RawIOBase):
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
    described = schema.with_metadata({"hepfaas": json.dumps(asdict(facts), sort_keys=True)})
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


def _matrix_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    column = batch.column("features")
    flat: NDArray[np.float32] = column.values.to_numpy()
    width = column.type.list_size
    return flat[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
