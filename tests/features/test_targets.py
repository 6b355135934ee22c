"""Targets are standardised for the network and come back in their own units."""

from functools import reduce
from operator import or_

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.branches import range_of
from hepfaas.features.targets import difference_in_units, in_units, standardised, target_of
from hepfaas.runs.targets import Target, output_names
from hypothesis import given
from hypothesis import strategies as st

VALUES = np.random.default_rng(5).exponential(40.0, 500) - 10


def scale_of(*parts: np.ndarray) -> Target:
    return target_of("pt", reduce(or_, (range_of(part, moments=True) for part in parts)))


def test_mean_and_deviation_are_those_of_numpy_in_float32() -> None:
    target = scale_of(VALUES)
    assert target == Target(
        "pt", float(np.float32(VALUES.mean())), float(np.float32(VALUES.std())), VALUES.min(), VALUES.max()
    )


@given(st.lists(st.integers(0, 500), max_size=5))
def test_the_scale_does_not_depend_on_the_chunks(cuts: list[int]) -> None:
    parts = np.split(VALUES, sorted(cuts))
    assert scale_of(*parts) == scale_of(VALUES)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_standardised_values_come_back(values: list[float], mean: float, deviation: float) -> None:
    target = Target("x", float(np.float32(mean)), float(np.float32(deviation)), min(values), max(values))
    numbers = np.array(values)[:, np.newaxis]
    again = in_units(standardised(numbers, target), [target.row])
    assert again == pytest.approx(numbers, rel=1e-6, abs=1e-6 * (abs(mean) + deviation))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(7, 91.2), "the target 'pt' is 91.2 in all 7 selected events, so there is nothing to learn"),
        (np.zeros(0), "no event is selected, so the target 'pt' has no value"),
        (
            np.array([0.0, 1e60]),
            r"the target 'pt' runs from 0 to 1e\+60, and networks compute in float32; scale it",
        ),
        (np.array([0.0, 1e-60]), "the target 'pt' runs from 0 to 1e-60, and networks compute in float32"),
    ],
)
def test_a_target_without_a_scale_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        scale_of(values)


@pytest.mark.parametrize("mean", [0.0, 125.0, 1e6])
def test_rounding_of_the_units_is_no_difference_and_another_value_is(mean: float) -> None:
    target = Target("m", mean, 0.5, mean - 3, mean + 3)
    standard = np.random.default_rng(1).normal(size=(1000, 1)).astype(np.float32)
    served = standard * np.float32(target.deviation) + np.float32(target.mean)
    assert difference_in_units(served, standard, [target.row]) < 1e-7
    served[3] += 1.0
    assert difference_in_units(served, standard, [target.row]) == pytest.approx(
        2 / max(1, abs(standard[3, 0])), rel=0.3
    )
    served[4] = np.nan
    assert np.isnan(difference_in_units(served, standard, [target.row]))


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["gen_pt / 2"], ["prediction"]),
        (["gen_px", "gen_py"], ["prediction_gen_px", "prediction_gen_py"]),
        (["log(gen_pt)", "log gen_pt", "'"], ["prediction_log_gen_pt", "prediction_log_gen_pt_1", "prediction_2"]),
    ],
)
def test_columns_of_predictions_are_named_after_their_targets(targets: list[str], names: list[str]) -> None:
    assert output_names(targets) == names
