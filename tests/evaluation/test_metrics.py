"""Metrics of binned scores equal those of the scores themselves, however the events are divided into parts."""

import json
from functools import reduce
from itertools import pairwise
from operator import or_

import numpy as np
import pytest
from hepfaas.evaluation.counts import BINS, LOSS_LIMIT, LOSS_UNIT, ScoreCounts, counts_of, distribution
from hepfaas.evaluation.metrics import curve_of, quality
from hepfaas.evaluation.tally import Tally
from hepfaas.runs.splits import HELD_BACK, Split
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

RNG = np.random.default_rng(11)
TESTS = np.full(3_000, int(Split.TEST))


def sample(events: int, classes: int = 2) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    labels = RNG.integers(0, classes, events)
    splits = RNG.choice(HELD_BACK, events)
    if classes == 2:
        chances = 1 / (1 + np.exp(-(RNG.normal(size=events) + 1.5 * labels - 0.7)))
        return chances[:, None].astype(np.float32), labels, splits
    powers = np.exp(RNG.normal(size=(events, classes)) + 1.5 * np.eye(classes)[labels])
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels, splits


def by_pairs(signal: NDArray[np.float32], background: NDArray[np.float32]) -> tuple[float, float]:
    """Return the AUC by counting all pairs, and DeLong's error from each event's placement."""
    wins = (signal[:, None] > background) + 0.5 * (signal[:, None] == background)
    auc = float(wins.mean())
    variance = wins.mean(axis=1).var(ddof=1) / len(signal) + wins.mean(axis=0).var(ddof=1) / len(background)
    return auc, float(np.sqrt(variance))


@pytest.mark.parametrize("events", [40, 400, 3_000])
def test_auc_and_its_error_are_those_of_all_pairs(events: int) -> None:
    scores, labels, splits = sample(events)
    metrics = quality(counts_of(scores, labels, splits, logits=False), Split.TEST)
    test = splits == Split.TEST
    auc, error = by_pairs(scores[test & (labels == 1), 0], scores[test & (labels == 0), 0])
    assert metrics["auc"] == pytest.approx(auc, abs=2e-3)
    assert metrics["auc_uncertainty"] == pytest.approx(error, rel=0.01)


def test_loss_accuracy_and_confusion_are_those_of_the_events() -> None:
    scores, labels, splits = sample(5_000)
    metrics = quality(counts_of(scores, labels, splits, logits=False, threshold=0.6), Split.VALIDATION)
    mine = splits == Split.VALIDATION
    chance = np.where(labels == 1, scores[:, 0], 1 - scores[:, 0].astype(float))[mine]
    predicted = scores[mine, 0] > 0.6
    assert metrics["events"] == mine.sum()
    assert metrics["loss"] == pytest.approx(-np.log(chance).mean(), rel=1e-6)
    assert metrics["accuracy"] == pytest.approx((predicted == labels[mine]).mean())
    assert metrics["confusion"][1][0] == (~predicted & (labels[mine] == 1)).sum()


def test_logits_count_as_their_probabilities() -> None:
    scores, labels, splits = sample(2_000)
    logits = np.log(scores / (1 - scores))
    one, other = counts_of(scores, labels, splits, logits=False), counts_of(logits, labels, splits, logits=True)
    assert quality(one, Split.TEST)["auc"] == pytest.approx(quality(other, Split.TEST)["auc"], abs=1e-4)
    assert quality(one, Split.TEST)["loss"] == pytest.approx(quality(other, Split.TEST)["loss"], rel=1e-4)


def test_several_classes_have_a_curve_each() -> None:
    scores, labels, splits = sample(3_000, classes=3)
    metrics = quality(counts_of(scores, labels, splits, logits=False), Split.TEST)
    test = splits == Split.TEST
    aucs = [by_pairs(scores[test & (labels == c), c], scores[test & (labels != c), c])[0] for c in range(3)]
    assert [curve["auc"] for curve in metrics["curves"]] == pytest.approx(aucs, abs=2e-3)
    assert metrics["auc"] == pytest.approx(np.mean(aucs), abs=2e-3)


def test_the_loss_of_a_logit_has_no_end_at_twenty() -> None:
    wrong_by_50 = counts_of(np.array([[50.0], [-50.0]], dtype=np.float32), np.array([0, 0]), TESTS[:2], logits=True)
    assert quality(wrong_by_50, Split.TEST)["loss"] == pytest.approx(25)
    logits = np.array([[0, 60, 0], [0, 60, 0]], dtype=np.float32)
    assert quality(counts_of(logits, np.array([1, 2]), TESTS[:2], logits=True), Split.TEST)["loss"] == pytest.approx(30)


def test_the_loss_of_the_largest_logits_can_still_be_added() -> None:
    huge = np.full((3_000, 1), np.finfo(np.float32).max)
    counts = counts_of(huge, np.zeros(3_000, dtype=np.int64), TESTS, logits=True)
    assert counts.losses[1] == 3_000 * round(LOSS_LIMIT / LOSS_UNIT)


def test_the_error_of_the_mean_over_classes_is_a_bound_on_its_spread() -> None:
    metrics = []
    for _ in range(200):
        scores, labels, _ = sample(300, classes=3)
        metrics.append(quality(counts_of(scores, labels, TESTS[:300], logits=False), Split.TEST))
    spread, told = np.std([each["auc"] for each in metrics]), np.mean([each["auc_uncertainty"] for each in metrics])
    assert spread < told < 2 * spread


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=5), st.randoms(use_true_random=False))
def test_the_sum_does_not_depend_on_the_parts(cuts: list[int], chooser: object) -> None:
    scores, labels, splits = sample(300)
    edges = [0, *sorted(cuts), 300]
    parts = [counts_of(scores[a:b], labels[a:b], splits[a:b], logits=False) for a, b in pairwise(edges)]
    chooser.shuffle(parts)  # type: ignore[attr-defined]
    whole = counts_of(scores, labels, splits, logits=False)
    assert reduce(or_, parts).to_json() == whole.to_json()


def test_counts_survive_json() -> None:
    counts = counts_of(*sample(500), logits=False)
    again = ScoreCounts.from_json(json.loads(json.dumps(counts.to_json())))
    assert np.array_equal(again.histograms.events, counts.histograms.events)
    assert (again.losses, again.n_not_finite, again.n_not_probable) == (counts.losses, 0, 0)


def test_counts_of_many_events_are_small_as_json() -> None:
    assert len(json.dumps(counts_of(*sample(200_000), logits=False).to_json())) < 25_000


@pytest.mark.parametrize("score", [-0.2, 1.2, 30])
def test_scores_that_are_no_probabilities_are_counted_apart_unless_they_are_logits(score: float) -> None:
    scores, labels, splits = np.array([[0.5], [score]], dtype=np.float32), np.array([1, 0]), TESTS[:2]
    counts = counts_of(scores, labels, splits, logits=False)
    assert (counts.n_not_probable, counts.n_not_finite, counts.confusion.events.sum()) == (1, 0, 1)
    assert (counts | counts).n_not_probable == 2
    assert counts_of(scores, labels, splits, logits=True).n_not_probable == 0


def test_a_probability_may_be_off_by_rounding() -> None:
    scores = np.array([[1 + 3e-7], [-3e-7]], dtype=np.float32)
    assert counts_of(scores, np.array([1, 0]), TESTS[:2], logits=False).n_not_probable == 0


def test_scores_that_are_no_numbers_are_counted_apart() -> None:
    scores = np.array([[0.5], [np.nan], [np.inf]], dtype=np.float32)
    counts = counts_of(scores, np.array([1, 1, 0]), TESTS[:3], logits=False)
    assert (counts.n_not_finite, counts.confusion.events.sum()) == (2, 1)


def test_one_class_alone_has_no_curve_but_a_loss() -> None:
    metrics = quality(
        counts_of(np.array([[0.9]], dtype=np.float32), np.array([1]), TESTS[:1], logits=False), Split.TEST
    )
    assert (metrics["auc"], metrics["curves"][0]["signal"]) == (None, ())
    assert metrics["loss"] == pytest.approx(-np.log(0.9), rel=1e-6)
    assert quality(counts_of(*sample(10), logits=False), Split.VALIDATION)["events"] <= 10
    json.dumps(metrics, allow_nan=False)


def test_a_perfect_score_is_one_and_a_useless_one_a_half() -> None:
    low, high = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    low[10], high[4_000] = 50, 50
    perfect, useless = curve_of(Tally(high), Tally(low)), curve_of(Tally(high), Tally(high))
    assert (perfect.auc, perfect.uncertainty) == (1, 0)
    assert perfect.rejection["0.9"] is None
    assert useless.auc == 0.5
    assert useless.rejection["0.5"] == 1


def test_a_distribution_keeps_every_event() -> None:
    counts = counts_of(*sample(1_000), logits=False).histograms[1, 0, 1].yields
    for bins in (10, 25, 40):
        assert distribution(counts, bins).sum() == counts.sum()
