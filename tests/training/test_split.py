"""The split depends only on the identity of the event."""

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.splits import Split, fractions_in
from hepfaas.training.split import FRACTIONS, event_ids, fold_of, id_sum, split_by, split_of
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**40), st.integers(1, 500), st.integers(0, 9))
def test_the_cut_into_ranges_changes_nothing(start: int, count: int, seed: int) -> None:
    entries = np.arange(start, start + count, dtype=np.int64)
    one_by_one = [split_of("file", entries[i : i + 1], seed)[0] for i in range(count)]
    assert split_of("file", entries, seed).tolist() == one_by_one
    folds = [fold_of("file", entries[i : i + 1], seed, 5)[0] for i in range(count)]
    assert fold_of("file", entries, seed, 5).tolist() == folds
    by_value = [split_by(entries[i : i + 1] % 2, "file", entries[i : i + 1], seed)[0] for i in range(count)]
    assert split_by(entries % 2, "file", entries, seed).tolist() == by_value


def test_the_fractions_are_64_16_20() -> None:
    counts = np.bincount(split_of("file", np.arange(1_000_000), 21), minlength=3)
    np.testing.assert_allclose(counts / 1_000_000, FRACTIONS, atol=0.002)


def test_another_file_or_seed_is_another_split() -> None:
    entries = np.arange(1000)
    base = split_of("file", entries, 21)
    for other in (split_of("other", entries, 21), split_of("file", entries, 22)):
        assert 300 < (base != other).sum() < 700


def test_ids_differ_between_events_and_files() -> None:
    ids = np.concatenate([event_ids(name, np.arange(50_000)) for name in ("a", "b")])
    assert len(np.unique(ids)) == 100_000
    assert id_sum(ids) == (id_sum(ids[:50_000]) + id_sum(ids[50_000:])) % 2**64


def test_other_fractions_are_those_of_the_events() -> None:
    counts = np.bincount(split_of("file", np.arange(1_000_000), 21, (0.5, 0.1, 0.4)), minlength=3)
    np.testing.assert_allclose(counts / 1_000_000, (0.5, 0.1, 0.4), atol=0.002)


def test_an_expression_names_the_test_events_and_the_others_keep_their_ratio() -> None:
    entries = np.arange(1_000_000)
    for values in (entries % 2 == 0, (entries % 2 == 0) * -2.5):
        split = split_by(values, "file", entries, 21, (0.6, 0.2, 0.2))
        assert (split[1::2] == Split.TEST).all()
        np.testing.assert_allclose(np.bincount(split[::2]) / 500_000, (0.75, 0.25), atol=0.002)


def test_an_event_without_a_value_is_an_error() -> None:
    values = np.array([1.0, np.nan, 0.0])
    with pytest.raises(RequestError, match="the expression of 'split' has no value for 1 of 3 events"):
        split_by(values, "file", np.arange(3), 21)


def test_folds_are_equal_and_independent_of_the_split() -> None:
    entries = np.arange(1_000_000)
    both = split_of("file", entries, 21).astype(int) * 5 + fold_of("file", entries, 21, 5)
    np.testing.assert_allclose(
        np.bincount(both).reshape(3, 5) / 1_000_000, np.outer(FRACTIONS, np.full(5, 0.2)), atol=0.002
    )


def test_fractions_are_given_by_name() -> None:
    assert fractions_in({"test": 0.2, "train": 0.6, "validation": 0.2}, "p: 'split'") == (0.6, 0.2, 0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": 0.5, "test": 0.5}, "p: 'split' takes a number between 0 and 1 for each of train, validation"),
        ({"train": 1, "validation": 0, "test": 0}, "takes a number between 0 and 1"),
        ({"train": "0.6", "validation": 0.2, "test": 0.2}, "takes a number between 0 and 1"),
        ({"train": float("nan"), "validation": 0.2, "test": 0.2}, "takes a number between 0 and 1"),
        ({"train": 0.6, "validation": 0.2, "test": 0.1}, "p: 'split': the fractions add up to 0.9; their sum must"),
    ],
)
def test_wrong_fractions_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fractions_in(values, "p: 'split'")
