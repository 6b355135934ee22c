"""Metrics of predicted numbers are those of plain NumPy and scikit-learn, however the events are divided."""

import json
from functools import reduce
from operator import or_

import numpy as np
import pytest
from hepfaas.evaluation.regression import ResidualCounts, profile_of, regression_of, residuals_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score, root_mean_squared_error

RNG = np.random.default_rng(12)
TRUE = RNG.exponential(50, 20_000)
PREDICTED = TRUE * 0.95 + RNG.normal(1, 8, 20_000)
WEIGHTS = np.minimum(RNG.exponential(1, 20_000), 8)
UNIT = 2.0**-33


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["raw", "weighted"])
def test_metrics_are_those_of_the_residuals(weights: np.ndarray | None) -> None:
    found = regression_of(residuals_of(PREDICTED, TRUE, unit=0.5, weights=weights, weight_unit=UNIT))
    residuals, used = PREDICTED - TRUE, np.ones(20_000) if weights is None else weights
    assert found["events"] == 20_000
    assert found["bias"] == pytest.approx(np.average(residuals, weights=used), rel=1e-12)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(TRUE, PREDICTED, sample_weight=weights), rel=1e-12)
    assert found["r2"] == pytest.approx(r2_score(TRUE, PREDICTED, sample_weight=weights), rel=1e-9)
    error = np.sqrt((used**2 * (residuals - found["bias"]) ** 2).sum()) / used.sum()
    assert found["bias_uncertainty"] == pytest.approx(error, rel=0.01)
    low, middle, high = np.quantile(residuals, [0.16, 0.5, 0.84], weights=used, method="inverted_cdf")
    assert found["median"] == pytest.approx(middle, abs=0.02)
    assert found["resolution"] == pytest.approx((high - low) / 2, rel=0.01)


def test_the_resolution_of_normal_residuals_is_their_standard_deviation() -> None:
    true = np.zeros(100_000)
    found = regression_of(residuals_of(RNG.normal(3, 2, 100_000), true, unit=0.1))
    assert found["resolution"] == pytest.approx(2, rel=0.02)
    assert found["median"] == pytest.approx(3, rel=0.02)
    assert found["r2"] is None  # the true values do not vary


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=4), st.booleans())
def test_counts_do_not_depend_on_the_parts(cuts: list[int], weighted: bool) -> None:
    def of(rows: np.ndarray | slice) -> ResidualCounts:
        weights = WEIGHTS[:500][rows] if weighted else None
        return residuals_of(PREDICTED[:500][rows], TRUE[:500][rows], unit=1.0, weights=weights, weight_unit=UNIT)

    parts = [of(rows) for rows in np.split(np.random.default_rng(len(cuts)).permutation(500), sorted(cuts))]
    total, whole = reduce(or_, parts), of(slice(None))
    assert total.to_json() == whole.to_json()
    again = ResidualCounts.from_json(json.loads(json.dumps(whole.to_json())))
    assert regression_of(again) == regression_of(total)


def test_predictions_that_are_no_numbers_are_counted_apart() -> None:
    counts = residuals_of(np.array([1.0, np.nan, np.inf]), np.array([2.0, 0, 0]), unit=1.0)
    assert (counts.n_not_finite, counts.histogram.events.sum()) == (2, 1)
    assert regression_of(counts)["bias"] == -1


def test_no_event_and_negative_yields_have_no_metrics() -> None:
    none = np.zeros(0)
    assert regression_of(residuals_of(none, none, unit=1.0))["rmse"] is None
    negative = residuals_of(np.ones(3), np.zeros(3), unit=1.0, weights=-np.ones(3), weight_unit=UNIT)
    assert regression_of(negative)["bias"] is None


def test_a_profile_has_the_bias_and_spread_of_each_bin() -> None:
    edges = np.array([0.0, 20, 50, 200])
    order = RNG.permutation(20_000)
    parts = [profile_of(PREDICTED[rows], TRUE[rows], TRUE[rows], edges, WEIGHTS[rows]) for rows in np.split(order, 4)]
    whole = profile_of(PREDICTED, TRUE, TRUE, edges, WEIGHTS)
    assert reduce(or_, parts) == whole
    for row in whole.to_json():
        mine = (row["low"] <= TRUE) & (row["high"] > TRUE)
        residuals, weights = (PREDICTED - TRUE)[mine], WEIGHTS[mine]
        assert row["events"] == mine.sum()
        bias = np.average(residuals, weights=weights)
        assert row["bias"] == pytest.approx(bias)
        assert row["spread"] == pytest.approx(np.sqrt(np.average((residuals - bias) ** 2, weights=weights)))


def test_residuals_and_profiles_with_other_bins_cannot_be_added() -> None:
    one, other = (residuals_of(np.ones(1), np.zeros(1), unit=unit) for unit in (1.0, 2.0))
    with pytest.raises(ValueError, match="cannot be added"):
        one | other
    first, second = (profile_of(np.ones(1), np.ones(1), np.ones(1), np.array([0.0, end])) for end in (2, 3))
    with pytest.raises(ValueError, match="cannot be added"):
        first | second
