"""Weights of events: the sums that the factors are made of do not depend on how the events are cut into parts."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.exact import ExactSum
from hepfaas.runs.weighting import Balance, NegativeWeights
from hepfaas.training.weights import (
    Factors,
    FileWeights,
    WeightSurvey,
    bins_of,
    factors_of,
    training_weights,
    weights_of,
)
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

SAMPLES = (("signal", 2.0, ()), ("background", 30.0, ()))
FILES = (("a", 1, "signal"), ("b", 0, "background"))


def weights(
    values: list[float],
    labels: list[int] | None = None,
    *,
    selected: NDArray[np.bool_] | None = None,
    negative: NegativeWeights = "keep",
    bins: list[int] | None = None,
    n_bins: int = 1,
) -> FileWeights:
    chosen = np.ones(len(values), dtype=bool) if selected is None else selected
    n = int(chosen.sum())
    return weights_of(
        np.array(values, dtype=float),
        selected=chosen,
        labels=np.array(labels if labels is not None else [0] * n, dtype=np.int64),
        bins=np.array(bins if bins is not None else [0] * n, dtype=np.int64),
        n_bins=n_bins,
        negative=negative,
    )


def factors(a: FileWeights, b: FileWeights, samples: Any = SAMPLES, balance: Balance | None = None) -> Factors:
    return factors_of(WeightSurvey({"a": a, "b": b}), FILES, samples, balance)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(1, 7))
def test_the_survey_does_not_depend_on_the_parts(values: list[float], size: int) -> None:
    whole = weights(values, [int(value) % 3 for value in values])
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    surveys = [WeightSurvey({"a": weights(part, [int(value) % 3 for value in part])}) for part in parts]
    joined = surveys[0]
    for survey in surveys[1:]:
        joined = joined | survey
    assert joined.to_json() == WeightSurvey({"a": whole}).to_json()
    assert WeightSurvey.from_json(json.loads(json.dumps(joined.to_json()))) == joined


def test_events_are_normalised_to_the_cross_section() -> None:
    # Half of the weight of signal is rejected by cuts; the normalisation counts all of it.
    signal = weights([1.0, 1.0, 2.0], selected=np.array([True, True, False]))
    background = weights([3.0] * 10)
    scales = factors(signal, background).scales
    assert scales == {"a": 2.0 / 4.0, "b": 30.0 / 30.0}


def test_a_sum_of_weights_that_is_given_replaces_that_of_the_events() -> None:
    added = [json.dumps(ExactSum.of(np.array([value])).to_json()) for value in (50.0, 150.0)]
    scales = factors(weights([1.0]), weights([1.0]), (("signal", 2.0, tuple(added)), ("background", 30.0, ("60.0",))))
    assert scales.scales == {"a": 2.0 / 200.0, "b": 30.0 / 60.0}


def test_training_weights_have_the_mean_one_and_keep_the_proportions() -> None:
    made = factors(weights([1.0, 3.0]), weights([2.0] * 8))
    physical = np.array([1.0 * made.scales["a"], 3.0 * made.scales["a"], *[2.0 * made.scales["b"]] * 8])
    trained = training_weights(
        physical, np.array([1, 1, *[0] * 8]), np.zeros(10, dtype=np.int64), factors=made, negative="keep"
    )
    assert trained.mean() == pytest.approx(1)
    assert trained[:2].sum() / trained[2:].sum() == pytest.approx(2 / 30)


@pytest.mark.parametrize("negative", ["keep", "abs", "drop"])
def test_balanced_classes_have_equal_sums_whatever_becomes_of_negative_weights(negative: NegativeWeights) -> None:
    signal, background = [1.0, 3.0, -1.0], [2.0] * 8
    made = factors(weights(signal, negative=negative), weights(background, negative=negative), balance=Balance())
    classes = np.array([1] * 3 + [0] * 8)
    physical = np.array([*signal, *background]) * np.array([made.scales["a"]] * 3 + [made.scales["b"]] * 8)
    trained = training_weights(physical, classes, np.zeros(11, dtype=np.int64), factors=made, negative=negative)
    assert trained[:3].sum() == pytest.approx(trained[3:].sum())
    assert {"keep": trained[2] < 0, "abs": trained[2] > 0, "drop": trained[2] == 0}[negative]


def test_a_balanced_spectrum_is_flat_in_each_class() -> None:
    balance = Balance("pt", (0.0, 10.0, 20.0))
    pt = np.array([1.0, 2.0, 3.0, 15.0])
    bins = bins_of(pt, balance)
    assert bins.tolist() == [0, 0, 0, 1]
    signal = weights([1.0] * 4, bins=bins.tolist(), n_bins=2)
    background = weights([1.0] * 4, bins=[0, 1, 1, 1], n_bins=2)
    made = factors(signal, background, balance=balance)
    trained = training_weights(
        np.ones(4) * made.scales["a"], np.ones(4, dtype=np.int64), bins, factors=made, negative="keep"
    )
    assert trained[:3].sum() == pytest.approx(trained[3])


def test_values_outside_the_edges_fall_into_the_outer_bins() -> None:
    edges = Balance("pt", (0.0, 10.0, 20.0))
    assert bins_of(np.array([-1.0, 0.0, 9.9, 10.0, 20.0, 1e9, np.nan]), edges).tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_the_unit_holds_the_largest_weight() -> None:
    made = factors(weights([1.0, -7.5]), weights([5.0, 5.0]), samples=())
    assert 2**35 < 7.5 / made.unit <= 2**36
    assert np.log2(made.unit) == round(np.log2(made.unit))


def test_labels_of_single_events_are_numbered_in_order() -> None:
    files = (("a", -1, ""), ("b", -1, ""))
    survey = WeightSurvey({"a": weights([1.0, 1.0], [15, -11]), "b": weights([1.0], [15])})
    assert factors_of(survey, files, (), None).labels == (-11, 15)


def test_what_cannot_be_weighted_is_refused() -> None:
    with pytest.raises(RequestError, match="1 of 2 events have a negative weight; 'negative_weights' in params.json"):
        weights([1.0, -1.0], negative="error")
    with pytest.raises(RequestError, match="sample 'signal': the sum of weights is 0, so its events cannot be"):
        factors(weights([1.0, -1.0]), weights([1.0]))
    with pytest.raises(RequestError, match="the weights of class 1 add up to -1, so they cannot be used in training"):
        factors(weights([1.0, -2.0]), weights([1.0]), samples=(), balance=Balance())
    with pytest.raises(RequestError, match="the weights of all selected events are 0"):
        factors(weights([0.0]), weights([0.0]), samples=())
    with pytest.raises(RequestError, match="more than 1,000 different values, such as 0, 1, 2; a label names a class"):
        weights([1.0] * 1001, list(range(1001)))
    with pytest.raises(RequestError, match="all selected events have label 3; a classifier needs events of two labels"):
        factors_of(WeightSurvey({"a": weights([1.0], [3])}), (("a", -1, ""),), (), None)


def test_factors_are_the_same_after_a_round_trip() -> None:
    made = factors(weights([1.0, 3.0]), weights([2.0] * 8), balance=Balance())
    assert Factors.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_label_with_a_million_values_is_refused_at_once() -> None:
    labels = list(range(200_000))
    with pytest.raises(RequestError, match="the label of events has more than 1,000 different values|at most 10,000"):
        weights([1.0] * len(labels), labels)


def test_many_classes_and_bins_are_summed_in_one_pass() -> None:
    random = np.random.default_rng(5)
    values, labels, bins = random.normal(size=50_000), random.integers(0, 100, 50_000), random.integers(0, 100, 50_000)
    start = time.process_time()
    survey = weights(values.tolist(), labels.tolist(), bins=bins.tolist(), n_bins=100, negative="drop")
    assert time.process_time() - start < 10
    for label, number in ((0, 0), (7, 99), (99, 3)):
        own = values[(labels == label) & (bins == number)]
        one = survey.classes[label][number]
        assert one.events == (own >= 0).sum()
        assert float(one.weight) == math.fsum(own[own >= 0])
    with pytest.raises(RequestError, match="101 classes in 100 bins of 'balance' have 10,100 sums"):
        survey | weights([1.0], [200], bins=[0], n_bins=100)


def test_the_sums_of_all_files_have_a_limit() -> None:
    one = weights([1.0], [0], bins=[0], n_bins=900)
    files = WeightSurvey({str(number): one for number in range(300)})
    with pytest.raises(RequestError, match="the weights have 540,000 sums, one for each file, class and bin"):
        files | WeightSurvey({f"other {number}": one for number in range(300)})


@pytest.mark.parametrize("weight", [5e-324, 1e-200, 1e250])
def test_weights_without_a_usable_size_are_refused(weight: float) -> None:
    plain = (("signal", None, ()), ("background", None, ()))
    with pytest.raises(RequestError, match="the largest weight of a selected event is"):
        factors(weights([weight]), weights([weight]), plain)
    with pytest.raises(RequestError, match="luminosity × cross section / sum of weights|the largest weight"):
        factors(weights([weight]), weights([weight]))
