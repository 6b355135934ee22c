"""The sample of test events is bounded, has events of each file, and its factors give back the number of all rows."""

import pytest
from hepfaas.evaluation.sample import MOST_BATCHES, MOST_ROWS, MOST_VALUES, batches_of
from hypothesis import given
from hypothesis import strategies as st

FILES = st.lists(st.lists(st.integers(1, 2_000), min_size=1, max_size=80), min_size=1, max_size=70)


@given(FILES, st.integers(1, 50_000))
def test_the_sample_is_bounded_and_stands_for_all_rows(parts: list[list[int]], n_features: int) -> None:
    files = [str(number) for number, rows in enumerate(parts) for _ in rows]
    rows = [count for part in parts for count in part]
    sample = batches_of(files, rows, n_features)
    assert 0 < len(sample) <= MOST_BATCHES
    assert [batch.index for batch in sample] == sorted({batch.index for batch in sample})
    assert sum(batch.rows for batch in sample) <= MOST_ROWS
    assert sum(batch.rows for batch in sample) * n_features <= max(MOST_VALUES, len(sample) * n_features)
    assert all(1 <= batch.rows <= rows[batch.index] for batch in sample)
    assert sum(batch.rows * batch.factor for batch in sample) == pytest.approx(sum(rows))
    if len(parts) <= MOST_BATCHES:
        assert {files[batch.index] for batch in sample} == set(files)
        for number, part in enumerate(parts):
            mine = [batch for batch in sample if files[batch.index] == str(number)]
            assert sum(batch.rows * batch.factor for batch in mine) == pytest.approx(sum(part))


def test_a_few_events_are_all_in_the_sample() -> None:
    assert [(batch.index, batch.rows, batch.factor) for batch in batches_of(["a", "b"], [2_000, 30], 20)] == [
        (0, 2_000, 1),
        (1, 30, 1),
    ]


def test_a_small_file_is_in_the_sample_as_far_as_it_has_rows() -> None:
    sample = batches_of([*["large"] * 1_000, "small"], [2_000] * 1_000 + [500], 20)
    assert sample[-1].index == 1_000
    assert (sample[-1].rows, sample[-1].factor) == (500, 1)
    assert len(sample) == MOST_BATCHES


def test_no_rows_give_no_sample() -> None:
    assert batches_of([], [], 20) == []
