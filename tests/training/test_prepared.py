"""A prepared part returns its rows, one record batch at a time, whatever its number of events."""

import io

import numpy as np
import pyarrow as pa
from hepfaas.training.prepared import PreparedRows, StoredPart, part_of
from hepfaas.training.split import event_ids, id_sum, split_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

FEATURES = np.random.default_rng(2).random((30_000, 3), dtype=np.float32)


def events(rows: slice) -> PreparedRows:
    entries = np.arange(rows.start, rows.stop) + 100
    return PreparedRows(FEATURES[rows], entries, {"event": entries.astype(np.uint64)})


def stored(split: NDArray[np.uint8]) -> bytes:
    selected = np.arange(100, 100 + len(split))
    return part_of(
        file="file", entries=(100, 100 + len(split)), label=1, selected=selected, split=split, events=events
    ).to_pybytes()


def part(data: bytes) -> StoredPart:
    return StoredPart(lambda start, stop: data[start:stop], len(data))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30_000), st.sampled_from(["mixed", "train only", "test last", "one each"]))
def test_every_row_is_in_a_batch_of_its_split(count: int, how: str) -> None:
    split = split_of("file", np.arange(count), 21)
    if how == "train only":
        split[:] = 0
    elif how == "test last":
        split.sort()
    elif how == "one each":
        split[:] = 0
        split[: min(2, count)] = [1, 2][: min(2, count)]
    stored_part = part(stored(split))
    assert stored_part.facts.rows == tuple(np.bincount(split, minlength=3))
    for number in range(3):
        batches = [stored_part.rows(batch) for batch in stored_part.facts.batches(number)]
        sizes = [len(batch.labels) for batch in batches]
        assert all(size == 2_000 for size in sizes[:-1])
        mine = np.flatnonzero(split == number)
        assert sum(sizes) == len(mine)
        if sizes:
            np.testing.assert_array_equal(np.concatenate([batch.features for batch in batches]), FEATURES[mine])
            np.testing.assert_array_equal(
                np.concatenate([batch.ids for batch in batches]), event_ids("file", mine + 100)
            )
        np.testing.assert_array_equal(stored_part.entries(stored_part.facts.batches(number)), mine + 100)
    assert stored_part.facts.id_sum == id_sum(event_ids("file", np.flatnonzero(split == 0) + 100))


def test_one_batch_takes_few_bytes_of_the_whole() -> None:
    data = stored(split_of("file", np.arange(30_000), 21))
    reads: list[int] = []

    def read(start: int, stop: int) -> bytes:
        reads.append(stop - start)
        return data[start:stop]

    rows = StoredPart(read, len(data)).rows(0)
    assert rows.features.shape == (2_000, 3)
    assert set(rows.labels) == {1}
    assert len(reads) <= 3
    assert sum(reads) < len(data) / 2


def test_it_is_a_file_that_anybody_reads() -> None:
    table = pa.ipc.open_file(io.BytesIO(stored(np.zeros(6_000, dtype=np.uint8)))).read_all()
    assert table.column_names == ["features", "label", "entry", "event"]
    assert table.num_rows == 6_000


def test_a_part_without_selected_events_has_no_rows() -> None:
    def none(rows: slice) -> PreparedRows:
        return PreparedRows(FEATURES[rows][:0], np.zeros(0, dtype=np.int64), {})

    empty = np.zeros(0, dtype=np.int64)
    data = part_of(
        file="file",
        entries=(100, 120),
        label=1,
        selected=empty,
        split=empty.astype(np.uint8),
        events=none,
        rejected=(20,),
    )
    stored_part = part(data.to_pybytes())
    assert stored_part.facts.rows == (0, 0, 0)
    assert stored_part.facts.rejected == (20,)
    assert [stored_part.facts.batches(split) for split in range(3)] == [[], [], []]
    assert stored_part.entries([]).tolist() == []
