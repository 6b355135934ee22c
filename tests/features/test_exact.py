"""Sums of floats are exact: those of fractions."""

import json
import math
from fractions import Fraction
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pytest
from hepfaas.exact import ExactSum
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40)


def sum_of(values: list[float]) -> Fraction:
    return sum(map(Fraction, values), Fraction())


@given(numbers)
def test_the_sum_is_that_of_fractions(values: list[float]) -> None:
    assert ExactSum.of(np.array(values)).fraction == sum_of(values)


@given(numbers)
def test_the_sum_of_squares_is_that_of_fractions(values: list[float]) -> None:
    squares = sum((Fraction(value) ** 2 for value in values), Fraction())
    assert ExactSum.of_squares(np.array(values)).fraction == squares


@given(numbers, st.integers(1, 7), st.randoms())
def test_the_sum_depends_neither_on_the_cut_nor_on_the_order(values: list[float], size: int, random: object) -> None:
    whole = ExactSum.of(np.array(values))
    shuffled = sorted(values, key=lambda _: random.random())  # type: ignore[attr-defined]
    parts = [ExactSum.of(np.array(shuffled[start : start + size])) for start in range(0, len(values), size)]
    assert reduce(or_, parts, ExactSum()) == whole
    assert hash(reduce(or_, reversed(parts), ExactSum())) == hash(whole)


@given(numbers)
def test_the_float_is_the_nearest(values: list[float]) -> None:
    try:
        expected = math.fsum(values)
    except OverflowError:  # of the sum, or of one on the way to it
        total = sum_of(values)
        limit = Fraction(2) ** 1024 - Fraction(2) ** 970
        expected = float(total) if abs(total) < limit else math.inf * (1 if total > 0 else -1)
    assert float(ExactSum.of(np.array(values))) == expected


@given(numbers)
def test_a_sum_survives_json(values: list[float]) -> None:
    total = ExactSum.of(np.array(values))
    assert ExactSum.from_json(json.loads(json.dumps(total.to_json()))) == total


@pytest.mark.parametrize("type_", ["float32", "int32", "uint8", "bool"])
def test_other_types_are_added_as_float64(type_: str) -> None:
    values = np.array([0, 1, 1, 3]).astype(type_)
    assert float(ExactSum.of(values)) == float(values.sum())


@given(
    st.sampled_from(["int64", "uint64"]).flatmap(
        lambda type_: st.lists(
            st.integers(int(np.iinfo(type_).min), int(np.iinfo(type_).max)), min_size=1, max_size=20
        ).map(lambda values: np.array(values, dtype=type_))
    ),
    st.integers(1, 7),
)
def test_integers_of_64_bits_are_not_rounded(values: NDArray[Any], size: int) -> None:
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    assert reduce(or_, map(ExactSum.of, parts)).fraction == sum(values.tolist())
    assert reduce(or_, map(ExactSum.of_squares, parts)).fraction == sum(value**2 for value in values.tolist())


def test_millions_of_values_are_exact() -> None:
    values = np.random.default_rng(1).normal(size=(1000, 2000)) * 1e30
    total = ExactSum.of(values) | ExactSum.of(np.full(1, 1e-30)) | ExactSum.of(-values)
    assert float(total) == 1e-30


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_has_no_sum(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        ExactSum.of(np.array([1.0, value]))
