"""Metrics and profiles of a regression are those of plain NumPy, however the events are divided."""

import json
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.evaluation import regression_plots
from hepfaas.evaluation.predictions import PredictionCounts, metrics_of, prediction_counts
from hepfaas.evaluation.profiles import edges_of, profile, profiles
from hepfaas.evaluation.regression import distribution, regression_of, residuals_of
from hepfaas.runs.splits import Split
from hepfaas.runs.targets import Target
from hypothesis import given, settings
from hypothesis import strategies as st

N = 4_000
RNG = np.random.default_rng(8)
TRUE = np.stack([RNG.exponential(50, N), RNG.normal(0, 1, N)], axis=1)
PREDICTED = TRUE + RNG.normal([2, 0], [8, 0.3], (N, 2))
WEIGHTS = RNG.uniform(0.2, 2, N)
SPLITS = RNG.integers(0, 3, N)
TARGETS = (Target("pt", 50, 50, 0, 500), Target("y", 0, 1, -4, 4))
UNIT = 2.0**-34


def counts_of(rows: Any = slice(None), weights: np.ndarray | None = WEIGHTS) -> PredictionCounts:
    used = None if weights is None else weights[rows]
    return prediction_counts(PREDICTED[rows], TRUE[rows], SPLITS[rows], TARGETS, weights=used, unit=UNIT)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["raw", "weighted"])
def test_each_split_and_target_has_the_metrics_of_its_events(weights: np.ndarray | None) -> None:
    report = metrics_of(counts_of(weights=weights), TARGETS)
    assert list(report) == ["validation", "test"]
    for split in (Split.VALIDATION, Split.TEST):
        mine = split == SPLITS
        used = np.ones(N) if weights is None else weights
        assert report[split.label]["events"] == mine.sum()
        for number, target in enumerate(TARGETS):
            found = report[split.label]["targets"][number]
            residuals = (PREDICTED - TRUE)[mine, number]
            assert found["name"] == target.name
            assert found["bias"] == pytest.approx(np.average(residuals, weights=used[mine]))
            assert found["rmse"] == pytest.approx(np.sqrt(np.average(residuals**2, weights=used[mine])))


def test_uncertainties_are_the_spread_of_repeated_samples() -> None:
    found = [regression_of(residuals_of(RNG.normal(1, 3, 1000), np.zeros(1000), unit=0.03)) for _ in range(300)]
    for name in ("bias", "rmse", "resolution"):
        spread = np.std([one[name] for one in found])
        assert np.mean([one[f"{name}_uncertainty"] for one in found]) == pytest.approx(spread, rel=0.15)


def test_perfect_predictions_have_no_error() -> None:
    found = regression_of(residuals_of(TRUE[:, 0], TRUE[:, 0], unit=0.5))
    assert (found["rmse"], found["rmse_uncertainty"], found["bias"], found["r2"]) == (0, 0, 0, 1)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=3), st.booleans())
def test_counts_do_not_depend_on_the_parts(cuts: list[int], weighted: bool) -> None:
    weights = WEIGHTS if weighted else None
    parts = [counts_of(rows, weights) for rows in np.split(np.arange(300)[::-1], sorted(cuts))]
    total, whole = reduce(or_, parts), counts_of(slice(0, 300), weights)
    assert total.to_json() == whole.to_json()
    again = PredictionCounts.from_json(json.loads(json.dumps(whole.to_json())))
    assert again.to_json() == whole.to_json()


def test_a_prediction_that_is_no_number_is_an_error_with_its_target() -> None:
    predicted = PREDICTED.copy()
    predicted[np.flatnonzero(SPLITS == Split.TEST)[:2], 1] = np.inf
    with pytest.raises(RequestError, match="the model's prediction of 'y' is NaN or infinite for 2 held-back events"):
        prediction_counts(predicted, TRUE, SPLITS, TARGETS).check(TARGETS)
    counts_of().check(TARGETS)


def test_a_profile_has_the_metrics_of_the_events_in_each_bin() -> None:
    branch = RNG.normal(0, 10, N)
    branch[:100] = np.nan
    bins = profile(PREDICTED[:, 0], TRUE[:, 0], branch, WEIGHTS, TARGETS[0])
    assert len(bins) == 20
    assert sum(each["events"] for each in bins) == pytest.approx(0.99 * (N - 100), abs=3)  # type: ignore[misc]
    for each in bins:
        mine = (branch >= each["low"]) & (branch < each["high"])
        mine |= (branch == each["high"]) & (each is bins[-1])
        residuals, weights = (PREDICTED - TRUE)[mine, 0], WEIGHTS[mine]
        assert each["events"] == mine.sum()
        assert each["bias"] == pytest.approx(np.average(residuals, weights=weights))
        low, high = np.quantile(residuals, [0.16, 0.84], weights=weights, method="inverted_cdf")
        assert each["resolution"] == pytest.approx((high - low) / 2, rel=0.02)


@pytest.mark.parametrize(
    ("branch", "edges"),
    [
        (np.full(300, 4.0), [4]),
        (np.full(300, np.nan), [0]),
        (np.repeat([0.0, 1.0, 2.0], 100), [0, 1, 2]),
        (np.arange(60.0), [0, 59]),
    ],
    ids=["constant", "empty", "whole numbers", "few"],
)
def test_edges_of_odd_branches(branch: np.ndarray, edges: list[float]) -> None:
    assert edges_of(branch).tolist() == edges


def test_targets_are_compared_with_themselves_and_at_most_20_branches() -> None:
    branches = {"constant": np.ones(N), "pt": TRUE[:, 0]} | {f"b{number}": RNG.normal(size=N) for number in range(30)}
    found = profiles(PREDICTED, TRUE, branches, WEIGHTS, TARGETS)
    names = [[each["branch"] for each in one["branches"]] for one in found]
    assert names[0] == ["pt", *(f"b{number}" for number in range(18))]  # the constant branch has no bins
    assert names[1] == ["y", "pt", *(f"b{number}" for number in range(18))]
    plane = found[0]["plane"]
    assert np.shape(plane["yields"]) == (50, 50)
    inside = np.all(
        [(plane["edges"][0] <= x) & (x <= plane["edges"][-1]) for x in (TRUE[:, 0], PREDICTED[:, 0])], axis=0
    )
    assert np.sum(plane["yields"]) == pytest.approx(WEIGHTS[inside].sum())


def test_the_distribution_of_residuals_has_all_events_within_its_edges() -> None:
    counts = counts_of().of(Split.TEST)[0]
    edges = np.linspace(-200, 200, 11)
    residuals = (PREDICTED - TRUE)[SPLITS == Split.TEST, 0]
    expected, _ = np.histogram(residuals, edges, weights=WEIGHTS[SPLITS == Split.TEST])
    assert distribution(counts, edges) == pytest.approx(expected, rel=0.02, abs=2)


def test_plots_are_one_of_the_target_and_pages_of_four_branches() -> None:
    found = profiles(PREDICTED, TRUE, {f"b${number}": TRUE[:, 1] for number in range(5)}, WEIGHTS, TARGETS)[0]
    pictures = {
        **regression_plots.residuals(counts_of(), 0, "pt", ""),
        **regression_plots.predictions(found["plane"], "pt", ""),
        **regression_plots.profiles(found["branches"], "pt", ""),
    }
    kinds = ("residuals", "predictions", "profile", "profile_1", "profile_2")
    assert set(pictures) == {f"{kind}.{ending}" for kind in kinds for ending in ("png", "pdf")}
    again = regression_plots.predictions(found["plane"], "pt", "")
    assert again.items() <= pictures.items()  # equal values give equal bytes
