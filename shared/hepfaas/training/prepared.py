"""Stored form of a prepared entry range: an Arrow IPC file, compressed with zstd and read by record batch.

A record batch has 2,000 rows of one split, fewer at the split's end; rows of a split are in the order of entries.
Columns: `features` (fixed size list of float32), `label`, `entry`, the identifiers unchanged as `identifier/<name>`,
and, where a run has them, `weight` (float64, physical), `training_weight` (float32), `spectator/<name>` and
`target/<number>` (float32, standardised). The schema's metadata hold the `PartFacts`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from hepfaas.runs.epochs import BATCH_ROWS
from hepfaas.runs.folds import DIGITS
from hepfaas.runs.splits import Split
from hepfaas.training.segments import Rows
from hepfaas.training.split import event_ids, id_sum

CHUNK_ROWS = 4 * BATCH_ROWS
"""Rows of the matrix in memory at once: 25 MB at 800 features."""

FEATURES, ENTRY, LABEL, WEIGHT, TRAINING_WEIGHT = "features", "entry", "label", "weight", "training_weight"
IDENTIFIER, SPECTATOR, TARGET = "identifier/", "spectator/", "target/"
"""Names of columns; the last three begin those of identifiers, spectators and targets."""

FOOTER_BYTES = 1 << 16
"""Bytes of the first read, from the end of a part: enough for the footer unless the part is very wide."""


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """The events of a part.

    file: identity. entries: range. label: class of all events; -1: each event has its own. rows: of each split.
    id_sum: of the training rows' event ids (split.id_sum). order: the split of each record batch, one digit each.
    rejected: events by the number of the first cut that rejects them. flow: with weights, the exact sums of weights and
    of squared weights by cut, and then those of the selected events.
    groups: in a run with folds, the rows and the id_sum of each group (runs/folds.py). `order` then has the groups, and
    all rows count as test rows, since each is in one fold: `PreparedPart.of_fold` gives the samples of one network.
    """

    file: str
    entries: tuple[int, int]
    label: int
    rows: tuple[int, int, int]
    id_sum: int
    order: str
    rejected: tuple[int, ...] = ()
    flow: tuple[tuple[Any, Any], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()

    def batches(self, split: int) -> list[int]:
        """Return the numbers of the record batches of a split."""
        return [number for number, digit in enumerate(self.order) if digit == str(split)]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PartFacts:
        """Return the facts from the values of `dataclasses.asdict`, or from those read back from JSON."""
        tuples = {name: tuple(values.get(name, ())) for name in ("entries", "rows", "rejected", "flow", "groups")}
        return cls(**{**values, **tuples})


@dataclass(frozen=True)
class PreparedRows:
    """Prepared events: features (rows, features), entries (rows,), further columns by name, each (rows,)."""

    features: NDArray[np.float32]
    entries: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, rows: Any) -> PreparedRows:
        columns = {name: values[rows] for name, values in self.columns.items()}
        return PreparedRows(self.features[rows], self.entries[rows], columns)

    @classmethod
    def joined(cls, pieces: Sequence[PreparedRows]) -> PreparedRows:
        """Return the rows of all pieces in order."""
        if len(pieces) == 1:
            return pieces[0]
        return cls(
            np.concatenate([rows.features for rows in pieces]),
            np.concatenate([rows.entries for rows in pieces]),
            {name: np.concatenate([rows.columns[name] for rows in pieces]) for name in pieces[0].columns},
        )


def part_of(
    *,
    file: str,
    entries: tuple[int, int],
    label: int,
    selected: NDArray[np.int64],
    split: NDArray[np.uint8],
    events: Callable[[slice], PreparedRows],
    n_groups: int = 0,
    rejected: tuple[int, ...] = (),
    flow: tuple[tuple[Any, Any], ...] = (),
) -> pa.Buffer:
    """Return the part as it is stored.

    selected: entries of the selected events, (events,). split: of each of them; its group, if the run has folds.
    events: returns the rows of a slice of them. It is called once for each chunk, in order, and once for an empty slice
    if none is selected, so that memory does not grow with the range. n_groups: 0 without folds. label, rejected, flow:
    see `PartFacts`.
    """
    n_places = n_groups or len(Split)
    counts = np.bincount(split, minlength=n_places).tolist()
    ids = event_ids(file, selected)
    order = "".join(DIGITS[number] for number, _, _ in _batches(split, n_places))
    groups = tuple((counts[group], id_sum(ids[split == group])) for group in range(n_groups))
    facts = PartFacts(
        file=file,
        entries=entries,
        label=label,
        rows=(0, 0, len(selected)) if n_groups else (counts[0], counts[1], counts[2]),
        id_sum=id_sum(ids if n_groups else ids[split == Split.TRAINING]),
        order=order,
        groups=groups,
        rejected=rejected,
        flow=flow,
    )
    sink = pa.BufferOutputStream()
    writer = None
    for batch_rows in _rows(split, n_places, events):
        batch = _batch(label, batch_rows)
        if writer is None:
            writer = _writer(sink, batch.schema, facts)
        writer.write_batch(batch)
    if writer is None:
        writer = _writer(sink, _batch(label, events(slice(0, 0))).schema, facts)
    writer.close()
    return sink.getvalue()


def _batches(split: NDArray[np.uint8], n_places: int) -> Iterator[tuple[int, int, int]]:
    """Yield the batches in the order of storing, as (split or group, chunk after which it is complete, rows)."""
    waiting = [0] * n_places
    n_chunks = -(-len(split) // CHUNK_ROWS)
    for chunk in range(n_chunks):
        counts = np.bincount(split[chunk * CHUNK_ROWS : (chunk + 1) * CHUNK_ROWS], minlength=n_places)
        for number, count in enumerate(counts.tolist()):
            waiting[number] += count
            while waiting[number] >= BATCH_ROWS or (chunk == n_chunks - 1 and waiting[number]):
                rows = min(BATCH_ROWS, waiting[number])
                waiting[number] -= rows
                yield number, chunk, rows


def _rows(split: NDArray[np.uint8], n_places: int, events: Callable[[slice], PreparedRows]) -> Iterator[PreparedRows]:
    """Yield the rows of each batch of `_batches`; each chunk of events is read once."""
    waiting: list[list[PreparedRows]] = [[] for _ in range(n_places)]
    n_read = 0
    for number, chunk, rows in _batches(split, n_places):
        while n_read <= chunk:
            chunk_slice = slice(n_read * CHUNK_ROWS, min((n_read + 1) * CHUNK_ROWS, len(split)))
            chunk_rows, chunk_split = events(chunk_slice), split[chunk_slice]
            for index, pieces in enumerate(waiting):
                pieces.append(chunk_rows[chunk_split == index])
            n_read += 1
        joined = PreparedRows.joined(waiting[number])
        yield joined[:rows]
        waiting[number] = [joined[rows:]]


class StoredPart:
    """A stored part, read by byte ranges. `read(start, stop)` returns bytes of the object, `size_bytes` is its size."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._file = pa.ipc.open_file(pa.PythonFile(Ranged(read, size_bytes), mode="r"))
        metadata = self._file.schema.metadata or {}
        self.facts = PartFacts.from_json(json.loads(metadata[b"hepfaas"]))
        self.n_features = int(self._file.schema.field(FEATURES).type.list_size)

    @property
    def types(self) -> dict[str, np.dtype[Any]]:
        """Return the type of each column but the features."""
        fields = (field for field in self._file.schema if field.name != FEATURES)
        return {field.name: np.dtype(field.type.to_pandas_dtype()) for field in fields}

    def prepared(self, number: int) -> PreparedRows:
        """Return one record batch with all columns, labels among them."""
        batch = self._file.get_batch(number)
        names = [name for name in batch.schema.names if name not in (FEATURES, ENTRY)]
        columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}
        return PreparedRows(_matrix_of(batch), batch.column(ENTRY).to_numpy(), columns)

    def rows(self, number: int) -> Rows:
        """Return one record batch for the learner."""
        batch = self._file.get_batch(number)
        entries = batch.column(ENTRY).to_numpy()
        targets = [batch.column(name).to_numpy() for name in batch.schema.names if name.startswith(TARGET)]
        labels = np.stack(targets, axis=1) if targets else batch.column(LABEL).to_numpy().astype(np.int64)
        weights = batch.column(TRAINING_WEIGHT).to_numpy() if TRAINING_WEIGHT in batch.schema.names else None
        return Rows(_matrix_of(batch), labels, event_ids(self.facts.file, entries), weights)

    def event_weights(self, number: int) -> NDArray[np.float64] | None:
        """Return the physical weights of one record batch, (rows,); None in a run without weights."""
        batch = self._file.get_batch(number)
        return batch.column(WEIGHT).to_numpy() if WEIGHT in batch.schema.names else None

    def spectators(self, number: int) -> dict[str, NDArray[Any]]:
        """Return the spectators of one record batch by name, each (rows,)."""
        batch = self._file.get_batch(number)
        names = [name for name in batch.schema.names if name.startswith(SPECTATOR)]
        return {name.removeprefix(SPECTATOR): batch.column(name).to_numpy(zero_copy_only=False) for name in names}

    def entries(self, numbers: Iterable[int]) -> NDArray[np.int64]:
        """Return the entries of record batches, (rows,)."""
        batches = [self._file.get_batch(number).column(ENTRY).to_numpy() for number in numbers]
        return np.concatenate(batches) if batches else np.zeros(0, dtype=np.int64)


class Ranged(io.RawIOBase):
    """A file read by byte ranges. Its end, where Arrow keeps the index, is read once."""

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


def _batch(label: int, rows: PreparedRows) -> pa.RecordBatch:
    count, n_features = rows.features.shape
    features = pa.FixedSizeListArray.from_arrays(pa.array(rows.features.reshape(-1)), n_features)
    columns = {
        FEATURES: features,
        LABEL: pa.array(np.full(count, label, dtype=np.int32)),
        ENTRY: pa.array(rows.entries),
        **{name: pa.array(values) for name, values in rows.columns.items()},
    }
    return pa.RecordBatch.from_pydict(columns)


def _matrix_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    column = batch.column(FEATURES)
    flat: NDArray[np.float32] = column.values.to_numpy()
    width = column.type.list_size
    return flat[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
