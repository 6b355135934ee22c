"""The stored scores of an entry range: an Arrow IPC file, zstd, read one record batch at a time.

Columns: `entry`, the identifiers unchanged, the scores. The schema's metadata name the file and the entry range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.ipc

from hepfaas.scores.files import Columns
from hepfaas.training.prepared import Ranged


@dataclass(frozen=True)
class ScoreFacts:
    """Metadata of a part. file: identity; rows: number of events; n_surplus: events that had more values than slots."""

    file: str
    entries: tuple[int, int]
    rows: int
    n_surplus: int


def score_part(file: str, entries: tuple[int, int], blocks: Iterable[tuple[Columns, int]]) -> pa.Buffer:
    """Return a part as it is stored. blocks: columns and number of surplus events, in the order of entries."""
    batches, n_surplus = [], 0
    for columns, n_block_surplus in blocks:
        batches.append(pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()}))
        n_surplus += n_block_surplus
    facts = ScoreFacts(file, entries, sum(batch.num_rows for batch in batches), n_surplus)
    schema = batches[0].schema.with_metadata({"hepfaas": json.dumps(asdict(facts), sort_keys=True)})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


class ScorePart:
    """A stored part, read by ranges. read: returns bytes of the object from start to stop; size_bytes: its size."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._file = pa.ipc.open_file(pa.PythonFile(Ranged(read, size_bytes), mode="r"))
        values = json.loads((self._file.schema.metadata or {})[b"hepfaas"])
        self.facts = ScoreFacts(**{**values, "entries": tuple(values["entries"])})

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield events and their scores, some thousands at a time, in the order of entries."""
        for number in range(self._file.num_record_batches):
            yield self._file.get_batch(number)
