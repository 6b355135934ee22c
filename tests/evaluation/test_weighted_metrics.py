"""Weighted metrics equal those of scikit-learn and of plain NumPy, and their errors those of a bootstrap."""

import json
from functools import reduce
from operator import or_

import numpy as np
import pytest
from hepfaas.evaluation.counts import ScoreCounts, counts_of
from hepfaas.evaluation.metrics import quality, working_point
from hepfaas.runs.splits import HELD_BACK, Split
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, roc_auc_score, roc_curve

UNIT = 2.0**-33
"""The largest weight is 8."""


class Sample:
    """Events of a seed: scores, labels, and weights that depend on the label; some are negative."""

    def __init__(self, events: int, *, classes: int = 2, negative: bool = False, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, classes, events)
        logits = rng.normal(size=(events, classes)) + 1.5 * np.eye(classes)[self.labels]
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        self.scores = (chances[:, 1:] if classes == 2 else chances).astype(np.float32)
        self.weights = rng.exponential(0.2, events) * (1 + 3 * (self.labels == 0))
        self.weights = np.minimum(self.weights, 8)
        if negative:
            self.weights *= np.where(rng.random(events) < 0.2, -1, 1)
        self.splits = np.full(events, int(Split.TEST))
        self.classes = classes

    def counts(self, rows: NDArray[np.int64] | slice = slice(None)) -> ScoreCounts:
        return counts_of(
            self.scores[rows],
            self.labels[rows],
            self.splits[rows],
            logits=False,
            weights=self.weights[rows],
            unit=UNIT,
        )

    def auc_by_pairs(self, weights: NDArray[np.float64]) -> float:
        order = np.argsort(self.scores[:, 0], kind="stable")
        labels, weights = self.labels[order], weights[order]
        below = np.cumsum(weights * (labels == 0))
        signal = weights * (labels == 1)
        return float((signal * below).sum() / signal.sum() / below[-1])


def test_weighted_auc_loss_accuracy_and_confusion_are_those_of_scikit_learn() -> None:
    sample = Sample(20_000)
    metrics = quality(sample.counts(), Split.TEST)
    chances, weights = sample.scores[:, 0].astype(float), sample.weights
    predicted = chances > 0.5
    assert metrics["auc"] == pytest.approx(roc_auc_score(sample.labels, chances, sample_weight=weights), abs=1e-4)
    assert metrics["loss"] == pytest.approx(log_loss(sample.labels, chances, sample_weight=weights), rel=1e-6)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(sample.labels, predicted, sample_weight=weights))
    weighted = confusion_matrix(sample.labels, predicted, sample_weight=weights)
    assert np.allclose(metrics["weighted_confusion"], weighted, rtol=1e-9)
    assert metrics["confusion"] == confusion_matrix(sample.labels, predicted).tolist()
    json.dumps(metrics, allow_nan=False)


def test_weighted_auc_of_several_classes_is_that_of_scikit_learn() -> None:
    sample = Sample(20_000, classes=4)
    metrics = quality(sample.counts(), Split.TEST)
    for number, curve in enumerate(metrics["curves"]):
        chances = sample.scores[:, number].astype(float)
        auc = roc_auc_score(sample.labels == number, chances, sample_weight=sample.weights)
        assert curve["auc"] == pytest.approx(auc, abs=1e-4)


def test_the_auc_of_negative_weights_is_the_sum_over_pairs() -> None:
    sample = Sample(5_000, negative=True)
    assert quality(sample.counts(), Split.TEST)["auc"] == pytest.approx(sample.auc_by_pairs(sample.weights), abs=2e-4)


@pytest.mark.parametrize("negative", [False, True])
def test_the_error_of_a_weighted_auc_is_that_of_a_bootstrap(negative: bool) -> None:
    sample = Sample(4_000, negative=negative)
    rng = np.random.default_rng(8)
    by_class = [np.flatnonzero(sample.labels == number) for number in (0, 1)]
    aucs = []
    for _ in range(400):
        drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in by_class])
        aucs.append(sample.auc_by_pairs(sample.weights * np.bincount(drawn, minlength=4_000)))
    told = quality(sample.counts(), Split.TEST)["auc_uncertainty"]
    assert told == pytest.approx(np.std(aucs), rel=0.12)  # three standard errors of 400 replicas
    assert told > 1.1 * quality(unweighted(sample), Split.TEST)["auc_uncertainty"]


def unweighted(sample: Sample) -> ScoreCounts:
    return counts_of(sample.scores, sample.labels, sample.splits, logits=False)


def test_equal_weights_change_no_metric() -> None:
    sample = Sample(2_000)
    sample.weights[:] = 0.3
    weighted, raw = quality(sample.counts(), Split.TEST), quality(unweighted(sample), Split.TEST)
    for key in ("events", "loss", "accuracy", "auc", "auc_uncertainty"):
        assert weighted[key] == pytest.approx(raw[key], rel=1e-6), key
    assert weighted["curves"][0]["signal"] == pytest.approx(raw["curves"][0]["signal"])


def test_yields_are_sums_of_weights_with_their_errors() -> None:
    sample = Sample(3_000, negative=True)
    for number, found in enumerate(quality(sample.counts(), Split.TEST, scale=5.0)["yields"]):
        mine = sample.weights[sample.labels == number]
        assert found["events"] == len(mine)
        assert found["sum"] == pytest.approx(5 * mine.sum())
        assert found["uncertainty"] == pytest.approx(5 * np.sqrt((mine**2).sum()))
        assert found["effective"] == pytest.approx(mine.sum() ** 2 / (mine**2).sum())


@pytest.mark.parametrize("at", [0.1, 0.01])
def test_working_points_are_those_of_scikit_learn(at: float) -> None:
    sample = Sample(20_000)
    point = quality(sample.counts(), Split.TEST)["curves"][0]["working_points"][str(at)]
    background, signal, thresholds = roc_curve(
        sample.labels, sample.scores[:, 0], sample_weight=sample.weights, drop_intermediate=False
    )
    place = int(np.searchsorted(background, at, side="right")) - 1
    assert point["signal"] == pytest.approx(signal[place], abs=0.01)
    assert point["threshold"] == pytest.approx(thresholds[place], abs=0.01)
    assert point["background"] <= at
    kept = (sample.labels == 0) & (sample.scores[:, 0] > point["threshold"])
    assert point["background_events"] == pytest.approx(kept.sum(), abs=1)


@pytest.mark.parametrize("at", [0.1, 0.01])
def test_the_error_of_a_working_point_is_that_of_a_bootstrap(at: float) -> None:
    sample = Sample(6_000)
    rng = np.random.default_rng(9)
    found = []
    for _ in range(150):
        histograms = sample.counts(rng.integers(0, 6_000, 6_000)).histograms[1, 0]
        found.append(working_point(histograms[1], histograms[0], at)["signal"])
    told = quality(sample.counts(), Split.TEST)["curves"][0]["working_points"][str(at)]["uncertainty"]
    assert told == pytest.approx(np.std(found), rel=0.3)


def test_negative_weights_may_leave_no_metric_but_no_error_either() -> None:
    sample = Sample(500)
    sample.weights[sample.labels == 1] *= -1
    metrics = quality(sample.counts(), Split.TEST)
    assert metrics["auc"] is None
    sample.weights = -np.abs(sample.weights)
    metrics = quality(sample.counts(), Split.TEST)
    assert (metrics["auc"], metrics["loss"], metrics["accuracy"]) == (None, None, None)
    sample.weights = np.tile([0.1, -0.1], 250) + 1e-12
    json.dumps(quality(sample.counts(), Split.TEST), allow_nan=False)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=5), st.integers(0, 2**32 - 1))
def test_weighted_counts_do_not_depend_on_the_parts(cuts: list[int], seed: int) -> None:
    sample = Sample(300, classes=3, negative=True, seed=seed)
    sample.splits = np.random.default_rng(seed).choice(HELD_BACK, 300)
    parts = [sample.counts(rows) for rows in np.split(np.random.default_rng(seed).permutation(300), sorted(cuts))]
    total, whole = reduce(or_, parts), sample.counts()
    assert total.to_json() == whole.to_json()
    assert quality(total, Split.TEST) == quality(whole, Split.TEST)
    again = ScoreCounts.from_json(json.loads(json.dumps(total.to_json())))
    assert quality(again, Split.VALIDATION) == quality(whole, Split.VALIDATION)


def test_unweighted_counts_store_no_weights() -> None:
    stored = unweighted(Sample(50)).to_json()
    assert set(stored) == {"shape", "gaps", "counts", "confusion", "losses", "n_not_finite", "n_not_probable"}
