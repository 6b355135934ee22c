"""The split depends only on the identity of the event."""

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.folds import MOST_FOLDS, Folds, split_of_group
from hepfaas.runs.splits import USUAL_SPLIT, Split, SplitRule
from hepfaas.training.split import event_ids, folds_of, groups_of, id_sum, split_of
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


@given(st.integers(2, MOST_FOLDS), st.integers(0, 2**40), st.integers(0, 9))
def test_each_event_is_a_test_event_of_one_fold(number: int, start: int, seed: int) -> None:
    groups = groups_of("file", np.arange(start, start + 200), seed, Folds(number))
    splits = np.array([[split_of_group(group, fold) for group in groups] for fold in range(number)])
    assert ((splits == Split.TEST).sum(axis=0) == 1).all()
    assert (np.sort(splits, axis=0)[:-1] == np.sort(splits, axis=0)[0]).all()  # the same sample in all other folds


def test_folds_are_equal_shares_and_validation_events_a_fifth_of_the_others() -> None:
    groups = groups_of("file", np.arange(1_000_000), 21, Folds(5))
    counts = np.bincount(groups, minlength=10) / 1_000_000
    np.testing.assert_allclose(counts, [0.16, 0.04] * 5, atol=0.002)
    half = groups_of("file", np.arange(1_000_000), 21, Folds(5), SplitRule((0.25, 0.25, 0.5)))
    np.testing.assert_allclose(np.bincount(half) / 1_000_000, [0.1] * 10, atol=0.002)


def test_an_expression_gives_the_fold_by_its_remainder() -> None:
    values, entries = np.array([0, 1, 2, 7, -1]), np.arange(5)
    assert folds_of("a", entries, 21, Folds(3, "event"), values).tolist() == [0, 1, 2, 1, 2]
    assert folds_of("b", entries, 22, Folds(3, "event"), values + 0.5).tolist() == [0, 1, 2, 1, 2]
    assert (groups_of("a", entries, 21, Folds(3, "event"), values=values) // 2).tolist() == [0, 1, 2, 1, 2]
    for value in (np.nan, np.inf):
        with pytest.raises(RequestError, match=f"'event' is {value} in entry 3, which gives no fold"):
            folds_of("a", entries, 21, Folds(3, "event"), np.array([0.0, 1.0, 2.0, value, 4.0]))


def test_ids_differ_between_events_and_files() -> None:
    ids = np.concatenate([event_ids(name, np.arange(50_000)) for name in ("a", "b")])
    assert len(np.unique(ids)) == 100_000
    assert id_sum(ids) == (id_sum(ids[:50_000]) + id_sum(ids[50_000:])) % 2**64
