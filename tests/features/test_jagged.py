"""Jagged branches: the lists of events as values end to end, and their messages between processes."""

from typing import Any

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged, Values, empty, events_where, flat_values, packed, type_of, unpacked
from hypothesis import given
from hypothesis import strategies as st

LISTS = st.lists(st.lists(st.integers(-9, 9), max_size=4), max_size=8)


def jagged(lists: list[list[int]], type_: str = "float32") -> Jagged:
    return Jagged(
        np.array([value for values in lists for value in values], dtype=type_),
        np.array(list(map(len, lists)), np.int64),
    )


@given(LISTS, st.integers(-9, 9), st.integers(-9, 9))
def test_a_slice_of_events_is_that_of_their_lists(lists: list[list[int]], start: int, stop: int) -> None:
    assert jagged(lists).tolist() == lists
    assert jagged(lists)[min(start, stop) : max(start, stop)].tolist() == lists[min(start, stop) : max(start, stop)]


@given(LISTS, st.data())
def test_selected_events_keep_their_lists(lists: list[list[int]], data: st.DataObject) -> None:
    selected = np.array(data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists))), dtype=bool)
    expected = [values for values, is_selected in zip(lists, selected, strict=True) if is_selected]
    forms: list[Values] = [jagged(lists), ak.values_astype(ak.from_iter([[0], *lists])[1:], np.float32)]
    for branch in forms:
        kept = events_where(branch, selected)
        assert isinstance(kept, Jagged)
        assert kept.tolist() == expected
    numbers = np.arange(len(lists))
    assert events_where(numbers, selected).tolist() == [number for number in numbers if selected[number]]


@given(LISTS)
def test_a_packed_message_gives_the_branches_back_in_the_byte_order_of_the_machine(lists: list[list[int]]) -> None:
    numbers = np.arange(len(lists))
    branches: dict[str, Values] = {"n": numbers.astype(">i4"), "m": numbers.astype("<i4"), "pt": jagged(lists, ">f4")}
    flags, arrays = packed(branches)
    assert flags == [False, False, True]
    assert all(array.dtype.isnative for array in arrays)
    again = unpacked(list(branches), flags, arrays)
    assert list(again) == ["n", "m", "pt"]
    assert [branch.tolist() for branch in again.values()] == [numbers.tolist(), numbers.tolist(), lists]


ONE, COUNTS = np.ones(3), np.array([1, 0, 2])


@pytest.mark.parametrize(
    ("flags", "arrays", "message"),
    [
        ([False], [ONE, ONE], "2 arrays for 1 branches"),
        ([False, False], [ONE, ONE], "2 arrays for 1 branches"),
        ([True], [ONE], "1 arrays for 1 branches"),
        ([False], [np.ones((3, 1))], r"branch 'b0' is float64 of shape \(3, 1\)"),
        ([False], [np.array(["a"])], "branch 'b0' is <U1 of shape"),
        ([True], [ONE, COUNTS.astype(np.int32)], "counts that are not whole numbers from 0 on"),
        ([True], [ONE, COUNTS.reshape(3, 1)], "counts that are not whole numbers from 0 on"),
        ([True], [ONE, np.array([4, -1])], "counts that are not whole numbers from 0 on"),
        ([True], [ONE, np.array([1, 1])], "counts that do not add up to the number of values"),
        ([True], [ONE, np.array([2**62, 2**62, 2**62, 2**62, 3])], "counts that do not add up"),
    ],
)
def test_a_message_that_holds_no_branches_is_refused(flags: list[bool], arrays: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpacked(["b0"], flags, arrays)


def test_branches_of_different_numbers_of_events_are_refused() -> None:
    with pytest.raises(ValueError, match="branches of different lengths"):
        unpacked(["a", "b"], [False, True], [np.ones(2), ONE, COUNTS])


def test_a_branch_of_no_events_has_the_form_and_the_type_that_were_asked_for() -> None:
    for is_jagged, type_ in ((True, "float32"), (False, "int16")):
        branch = empty(is_jagged, type_)
        assert len(branch) == 0
        assert branch.tolist() == []
        assert type_of(branch) == (is_jagged, type_)


def test_a_jagged_branch_identifies_no_event() -> None:
    assert flat_values(ak.Array(np.array([7, 8])), "run").tolist() == [7, 8]
    with pytest.raises(RequestError, match="branch 'Jet_id' identifies events but is jagged"):
        flat_values(jagged([[1], [2, 3]]), "Jet_id")
