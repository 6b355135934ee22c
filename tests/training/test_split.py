"""The split depends only on the identity of the event."""

import numpy as np
from hepfaas.runs.splits import USUAL_SPLIT
from hepfaas.training.split import event_ids, id_sum, split_of
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**40), st.integers(1, 500), st.integers(0, 9))
def test_the_cut_into_ranges_changes_nothing(start: int, count: int, seed: int) -> None:
    entries = np.arange(start, start + count, dtype=np.int64)
    one_by_one = [split_of("file", entries[i : i + 1], seed)[0] for i in range(count)]
    assert split_of("file", entries, seed).tolist() == one_by_one


def test_the_fractions_are_64_16_20() -> None:
    counts = np.bincount(split_of("file", np.arange(1_000_000), 21), minlength=3)
    np.testing.assert_allclose(counts / 1_000_000, USUAL_SPLIT.fractions, atol=0.002)


def test_another_file_or_seed_is_another_split() -> None:
    entries = np.arange(1000)
    base = split_of("file", entries, 21)
    for other in (split_of("other", entries, 21), split_of("file", entries, 22)):
        assert 300 < (base != other).sum() < 700


def test_ids_differ_between_events_and_files() -> None:
    ids = np.concatenate([event_ids(name, np.arange(50_000)) for name in ("a", "b")])
    assert len(np.unique(ids)) == 100_000
    assert id_sum(ids) == (id_sum(ids[:50_000]) + id_sum(ids[50_000:])) % 2**64
