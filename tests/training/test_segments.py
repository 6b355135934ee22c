"""Each epoch draws every row once, mixes the labels in proportion, and is the same for the same seed."""

from collections import Counter

from hepfaas.runs.epochs import BATCH_ROWS, BLOCK_ROWS, n_segments
from hepfaas.training.segments import (
    Block,
    SplitPart,
    blocks_of,
    first_rows,
    round_of,
    rows_in,
    seed_of,
    segments_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def numbered(rows: int, first: int = 0) -> list[tuple[int, int]]:
    """Return the number and the rows of each record batch of a split."""
    return [(first + place, min(BATCH_ROWS, rows - start)) for place, start in enumerate(range(0, rows, BATCH_ROWS))]


def parts_from(sizes: list[tuple[int, int]]) -> list[SplitPart]:
    return [SplitPart(f"p{number}", label, numbered(rows, first=number)) for number, (label, rows) in enumerate(sizes)]


parts_of_data = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30_000)), min_size=1, max_size=12).map(parts_from)


def counted(blocks: list[Block]) -> Counter[tuple[str, int]]:
    return Counter((piece.batch, row) for block in blocks for piece in block for row in range(piece.start, piece.stop))


@settings(max_examples=40, deadline=None)
@given(parts_of_data, st.integers(0, 5))
def test_every_row_is_drawn_once(parts: list[SplitPart], seed: int) -> None:
    blocks = blocks_of(parts, seed)
    rows = counted(blocks)
    assert set(rows.values()) == {1}
    assert len(rows) == sum(part.rows for part in parts)
    assert max(rows_in([block]) for block in blocks) <= BLOCK_ROWS + len(parts)


@settings(max_examples=40, deadline=None)
@given(parts_of_data, st.integers(0, 5))
def test_every_block_mixes_the_labels_in_proportion(parts: list[SplitPart], seed: int) -> None:
    label_of = {part.key: part.label for part in parts}
    total = Counter[int]()
    for part in parts:
        total[part.label] += part.rows
    blocks = blocks_of(parts, seed)
    for block in blocks:
        here = Counter[int]()
        for piece in block:
            here[label_of[piece.batch.split("/")[0]]] += piece.stop - piece.start
        for label, count in total.items():
            assert abs(here[label] - count / len(blocks)) <= 1


@given(st.integers(1, 400_000), st.integers(1, 300_000))
@settings(deadline=None)
def test_an_epoch_has_as_many_segments_as_the_plan_says(rows: int, segment_rows: int) -> None:
    blocks = blocks_of([SplitPart("p", 0, numbered(rows))], 1)
    segments = segments_of(blocks, segment_rows)
    assert len(segments) == n_segments(rows, segment_rows)
    assert [block for segment in segments for block in segment] == blocks


@settings(max_examples=30, deadline=None)
@given(parts_of_data, st.integers(2, 9), st.integers(1, 5), st.integers(1, 300_000))
def test_a_training_by_chunks_passes_over_one_chunk_after_the_other(
    parts: list[SplitPart], n_chunks: int, passes: int, segment_rows: int
) -> None:
    rows = sum(part.rows for part in parts)
    rounds = [round_of(parts, 5, n_chunks=n_chunks, passes=passes, number=number) for number in range(passes)]
    for blocks in rounds:
        segments = segments_of(blocks, segment_rows, rows, n_chunks)
        assert len(segments) == n_segments(rows, segment_rows, n_chunks)
        assert [block for segment in segments for block in segment] == blocks
        assert max(rows_in([block]) for block in blocks) <= BLOCK_ROWS + len(parts)
    everything = [block for blocks in rounds for block in blocks]
    per_chunk = len(everything) // (n_chunks * passes)
    seen = [everything[start : start + per_chunk] for start in range(0, len(everything), per_chunk)]  # one pass each
    chunks = seen[::passes]
    assert seen == [chunk for chunk in chunks for _ in range(passes)]
    drawn = counted([block for chunk in chunks for block in chunk])
    assert set(drawn.values()) == {1}
    assert len(drawn) == rows
    sizes = [rows_in(chunk) for chunk in chunks]
    assert max(sizes) - min(sizes) <= per_chunk * len({part.label for part in parts})


def test_another_epoch_is_another_order() -> None:
    parts = [SplitPart("p", 0, numbered(40 * BATCH_ROWS))]
    assert blocks_of(parts, seed_of(1, "epoch", 0)) == blocks_of(parts, seed_of(1, "epoch", 0))
    assert blocks_of(parts, seed_of(1, "epoch", 0)) != blocks_of(parts, seed_of(1, "epoch", 1))


@settings(max_examples=40, deadline=None)
@given(parts_of_data, st.integers(1, 200_000))
def test_a_bounded_look_takes_no_row_twice_and_no_more_than_asked(parts: list[SplitPart], most: int) -> None:
    taken = first_rows(blocks_of(parts, 1), most)
    assert max(counted(taken).values(), default=1) == 1
    assert rows_in(taken) <= most
