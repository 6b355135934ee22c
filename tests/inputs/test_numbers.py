"""Numbers from outside: they keep their value, or are refused by their place."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.inputs.numbers import cast, from_json, place_in_events
from hypothesis import given
from hypothesis import strategies as st

TYPES = ["bool", "int8", "int32", "int64", "uint8", "uint64", "float16", "float32", "float64"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-3, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, 1.0, 1.5, 255.0, 256.0, 2.0**53, 2.0**63, 65504, 65520, 70000.0, 1e39, "0.5", ["x"], {}])
)


def fits(leaf: Any, type_: str, null: bool) -> bool:
    """The same in another way: one after the other, and through Python's own numbers."""
    wanted = np.dtype(type_)
    if leaf is None:
        return null and wanted.kind == "f"
    if wanted.kind == "b":
        return any(leaf is one for one in (True, False)) or (type(leaf) in (int, float) and leaf in (0, 1))
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        return False
    if wanted.kind == "f":
        return math.isfinite(np.float64(leaf).astype(wanted))
    return leaf == int(leaf) and np.iinfo(wanted).min <= int(leaf) <= np.iinfo(wanted).max


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@given(st.lists(LEAVES, max_size=5), st.sampled_from(TYPES), st.booleans())
def test_numbers_keep_their_value_or_are_refused(leaves: list[Any], type_: str, null: bool) -> None:
    if all(fits(leaf, type_, null) for leaf in leaves):
        numbers = from_json(leaves, type_, "x", null=null)
        assert (numbers.dtype.name, numbers.shape) == (type_, (len(leaves),))
        for leaf, number in zip(leaves, numbers.tolist(), strict=True):
            if leaf is None:
                assert math.isnan(number)
            elif type_.startswith("float"):
                assert number == float(np.float64(leaf).astype(type_))
            else:
                assert number == leaf
    else:
        with pytest.raises(RequestError, match="^x"):
            from_json(leaves, type_, "x", null=null)


@pytest.mark.parametrize(
    ("leaves", "type_", "finding"),
    [
        ([1, 1.7], "int32", "x: value 1 is 1.7; it takes whole numbers from -2147483648 to 2147483647 (int32)"),
        ([1, None], "int8", "x: value 1 is null; it takes whole numbers from -128 to 127 (int8)"),
        ([300], "uint8", "x: value 0 is 300; it takes whole numbers from 0 to 255 (uint8)"),
        ([2.0**63], "int64", "x: value 0 is 9.223372036854776e+18; it takes whole numbers from -9223372036854775808"),
        ([0.5, "0.5"], "float32", 'x: value 1 is "0.5"; it takes numbers up to 3.4e+38 (float32)'),
        ([0.5, True], "float32", "x: value 1 is true; it takes numbers"),
        ([0.5, None], "float32", "x: value 1 is null; it takes numbers"),
        ([0.5, 1e39], "float32", "x: value 1 is 1e+39; it takes numbers"),
        ([True, 2], "bool", "x: value 1 is 2; it takes true and false (bool)"),
        ([0.5, [1]], "float32", "x: value 1 is a list; it takes numbers"),
        ([{"a": 1}], "float32", "x: value 0 is an object; it takes numbers"),
        ([[1, 2], [3, 4.5]], "int32", "x: value 3 is 4.5"),
        ([[1, 2], [3]], "float32", "x are not lists of equal length"),
    ],
)
def test_the_first_that_does_not_fit_is_told(leaves: list[Any], type_: str, finding: str) -> None:
    with pytest.raises(RequestError) as error:
        from_json(leaves, type_, "x")
    assert finding in str(error.value)


def test_lists_in_lists_keep_their_shape() -> None:
    for leaves in ([[1.5, 2], [3, 4]], [[[]]], [[[1], [2]]]):
        numbers = from_json(leaves, "float32", "x")
        assert numbers.dtype == np.float32
        assert json.dumps(numbers.tolist()) == json.dumps(np.array(leaves, "f4").tolist())
    assert from_json([[1.0, 2], [3, 4]], "int32", "x").tolist() == [[1, 2], [3, 4]]


def test_arrays_keep_their_values_in_another_type() -> None:
    assert cast(np.array([1.0, 255.0]), "uint8", "x").tolist() == [1, 255]
    assert cast(np.array([0, 1]), "bool", "x").tolist() == [False, True]
    assert cast(np.array([2**63], "u8"), "uint64", "x").tolist() == [2**63]
    assert np.isnan(cast(np.array([np.nan]), "float16", "x")[0])
    assert np.isinf(cast(np.array([np.inf]), "float32", "x")[0])
    for values, type_, finding in (
        ([1, 1.7], "int32", "x: value 1 is 1.7"),
        ([2.0**63], "int64", "x: value 0 is 9.2"),
        ([-np.inf], "int64", "x: value 0 is -inf"),
        ([np.nan], "int64", "x: value 0 is missing (null or NaN)"),
        ([-1], "uint8", "x: value 0 is -1"),
        ([1e300], "float32", "x: value 0 is 1e+300"),
        ([2], "bool", "x: value 0 is 2"),
        ([True], "float32", "x: its values are of type bool"),
    ):
        with pytest.raises(RequestError) as error:
            cast(np.array(values), type_, "x")
        assert finding in str(error.value)


def test_a_value_of_a_jagged_branch_is_named_by_its_event() -> None:
    place = place_in_events(np.array([0, 2, 0, 1]))
    assert [place(at) for at in range(3)] == ["value 0 of event 1", "value 1 of event 1", "value 0 of event 3"]
