"""A prepared part gives its rows back, one record batch at a time."""

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hepfaas.training.prepared import Part, PartFacts, PreparedRows, to_bytes
from hepfaas.training.split import event_ids

RNG = np.random.default_rng(2)
FEATURES = RNG.random((6_000, 7), dtype=np.float32)
ROWS = (3_900, 1_000, 1_100)
FACTS = PartFacts("file", (100, 6_100), 1, ROWS, 42)


def rows() -> Iterator[PreparedRows]:
    start = 0
    for count in ROWS:
        stop = start + count
        for at in range(start, stop, 2_000):
            some = np.arange(at, min(at + 2_000, stop))
            yield PreparedRows(FEATURES[some], some + 100, {"event": some.astype(np.uint64)})
        start = stop


@pytest.fixture(scope="module")
def stored() -> bytes:
    return to_bytes(FACTS, rows(), 7).to_pybytes()


def part(data: bytes) -> Part:
    return Part(lambda start, stop: data[start:stop], len(data))


def test_every_batch_is_what_was_stored(stored: bytes) -> None:
    found = part(stored)
    assert found.facts == FACTS
    assert [list(found.facts.batches(split)) for split in range(3)] == [[0, 1], [2], [3]]
    batches = [found.rows(number) for number in range(4)]
    assert [len(batch.labels) for batch in batches] == [2_000, 1_900, 1_000, 1_100]
    np.testing.assert_array_equal(np.concatenate([batch.features for batch in batches]), FEATURES)
    np.testing.assert_array_equal(batches[2].ids, event_ids("file", np.arange(4_000, 5_000)))
    assert set(batches[0].labels) == {1}
    np.testing.assert_array_equal(found.entries(1), np.arange(4_000, 5_000))


def test_one_batch_takes_few_bytes_of_the_whole(stored: bytes) -> None:
    reads: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> bytes:
        reads.append((start, stop))
        return stored[start:stop]

    found = Part(read, len(stored))
    found.rows(0)
    assert len(reads) <= 3
    assert found.rows(0).features.shape == (2_000, 7)


def test_it_is_a_file_that_anybody_reads(stored: bytes) -> None:
    table = pa.ipc.open_file(io.BytesIO(stored)).read_all()
    assert table.column_names == ["features", "label", "entry", "event"]
    assert table.num_rows == 6_000


def test_a_part_without_rows_is_a_part() -> None:
    facts = PartFacts("file", (0, 0), 0, (0, 0, 0), 0)
    data = to_bytes(facts, iter(()), 7).to_pybytes()
    assert part(data).facts == facts
    assert part(data).entries(0).shape == (0,)
