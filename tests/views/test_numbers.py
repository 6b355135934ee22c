"""Numbers as a person reads them."""

import math
from decimal import Decimal

import pytest
from hepfaas.views.numbers import measured, number, percent
from hypothesis import given
from hypothesis import strategies as st


def plain(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


@given(st.floats(-1e3, 1e9), st.floats(1e-2, 1e8))
def test_a_measured_value_has_the_digits_of_its_uncertainty(value: float, uncertainty: float) -> None:
    left, right = measured(value, uncertainty).split(" ± ")
    digits = right.replace(",", "").replace(".", "").lstrip("0")
    assert 2 <= len(digits) <= 10
    step = 10.0 ** (math.floor(math.log10(uncertainty)) - 1)
    assert abs(float(plain(left)) - value) <= 0.51 * step + 1e-9 * abs(value)
    assert abs(float(plain(right)) - uncertainty) <= 0.51 * step
    assert len(left.partition(".")[2]) == len(right.partition(".")[2])


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (0.79582, 0.01741, "0.796 ± 0.017"),
        (5700.0, 87.46, "5,700 ± 87"),
        (123456.7, 2345.0, "123,500 ± 2,300"),
        (0.5, None, "0.5000"),
        (0.5, 0.0, "0.5000"),
        (1.0, 5e-17, "1"),
        (None, 0.1, "–"),
        (1e-30, 1e-31, "1e-30 ± 1e-31"),
    ],
)
def test_values_with_uncertainties(value: float | None, uncertainty: float | None, text: str) -> None:
    assert measured(value, uncertainty) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"), (2.0, "2"), (0.55338, "0.5534"), (45.1836, "45.18"), (1962.25, "1,962"),
        (1.5e-7, "1.500e-07"), (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "–"), (None, "–"), (0.0, "0"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits_and_whole_ones_all(value: float | None, text: str) -> None:
    assert number(value) == text


def test_shares_are_in_percent() -> None:
    assert (percent(1799, 5000), percent(0.001), percent(1.0), percent(1, 0)) == ("36.0 %", "0.1 %", "100.0 %", "–")
