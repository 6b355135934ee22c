"""Calibration, classification, pairs of classes and overtraining, against scikit-learn, SciPy and plain NumPy."""

import json
from functools import reduce
from operator import or_

import numpy as np
import pytest
from hepfaas.evaluation.calibration import calibration_of
from hepfaas.evaluation.classification import as_text, classification_report
from hepfaas.evaluation.overtraining import kolmogorov_smirnov, survival
from hepfaas.evaluation.part import PartCounts, part_counts
from hepfaas.evaluation.report import report_of
from hepfaas.evaluation.tally import tally
from hepfaas.local.tables import metrics_text
from hepfaas.runs.splits import Split
from numpy.typing import NDArray
from scipy.special import kolmogorov
from scipy.stats import ks_2samp
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, precision_recall_fscore_support, roc_auc_score

UNIT = 2.0**-33


class Events:
    """Events of a seed with scores, labels, splits and weights."""

    def __init__(self, events: int, classes: int = 2, seed: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, classes, events)
        self.splits = rng.choice(3, events, p=[0.64, 0.16, 0.2])
        powers = np.exp(rng.normal(size=(events, classes)) + 1.2 * np.eye(classes)[self.labels])
        chances = powers / powers.sum(axis=1, keepdims=True)
        self.scores = (chances[:, 1:] if classes == 2 else chances).astype(np.float32)
        self.weights = np.minimum(rng.exponential(0.5, events), 8)
        self.test = self.splits == Split.TEST

    def counts(self, rows: NDArray[np.int64] | slice = slice(None), *, weighted: bool = True) -> PartCounts:
        return part_counts(
            self.scores[rows],
            self.labels[rows],
            self.splits[rows],
            rows=tuple(np.bincount(self.splits[rows], minlength=3).tolist()),
            logits=False,
            weights=self.weights[rows] if weighted else None,
            unit=UNIT,
        )


def test_the_brier_score_and_the_calibration_are_those_of_scikit_learn() -> None:
    events = Events(30_000)
    labels, scores = events.labels[events.test], events.scores[events.test, 0].astype(float)
    weights = events.weights[events.test]
    histograms = events.counts().scores.histograms[1, 0]
    found = calibration_of(histograms[1], histograms[0])
    assert found["brier"] == pytest.approx(brier_score_loss(labels, scores, sample_weight=weights), rel=1e-4)
    raw = events.counts(weighted=False).scores.histograms[1, 0]
    bins = calibration_of(raw[1], raw[0])["bins"]
    fractions, means = calibration_curve(labels, scores, n_bins=20)
    assert [each["score"] for each in bins] == pytest.approx(means, abs=2e-3)
    assert [each["fraction"] for each in bins] == pytest.approx(fractions, abs=0.02)
    place = np.minimum((20 * scores).astype(int), 19)
    gaps = [abs((weights * (labels - scores))[place == k].sum()) for k in range(20)]
    assert found["error"] == pytest.approx(sum(gaps) / weights.sum(), abs=3e-3)


def test_the_error_of_a_signal_fraction_is_binomial_without_weights() -> None:
    histograms = Events(10_000).counts(weighted=False).scores.histograms[1, 0]
    for each in calibration_of(histograms[1], histograms[0])["bins"]:
        binomial = np.sqrt(each["fraction"] * (1 - each["fraction"]) / each["events"])
        assert each["uncertainty"] == pytest.approx(binomial)


@pytest.mark.parametrize("classes", [2, 4])
def test_precision_recall_and_f1_are_those_of_scikit_learn(classes: int) -> None:
    events = Events(20_000, classes)
    report = classification_report(events.counts().scores.confusion[1], [f"class {k}" for k in range(classes)])
    scores = events.scores[events.test]
    predicted = scores[:, 0] > 0.5 if classes == 2 else scores.argmax(axis=1)
    for values, weights in ((report, events.weights[events.test]), (report["events"], None)):
        expected = precision_recall_fscore_support(events.labels[events.test], predicted, sample_weight=weights)
        for number, column in enumerate(("precision", "recall", "f1", "support")):
            assert [each[column] for each in values["classes"]] == pytest.approx(expected[number])
        for name, average in (("macro", "macro"), ("mean", "weighted")):
            means = precision_recall_fscore_support(
                events.labels[events.test], predicted, average=average, sample_weight=weights
            )
            assert [values[name][column] for column in ("precision", "recall", "f1")] == pytest.approx(means[:3])


def test_the_report_as_text_is_a_table_with_a_dash_where_nothing_is_known() -> None:
    confusion = tally(np.array([0, 0, 0, 0]), (2, 2)).apply(lambda values: values.reshape(2, 2))
    text = as_text(classification_report(confusion, ["W", "Z"]))
    assert text.splitlines() == [
        "                 precision     recall         f1    support",
        "W                   1.0000     1.0000     1.0000          4",
        "Z                        -          -          -          0",
        "mean of classes          -          -          -          4",
        "mean by support          -          -          -          4",
    ]


def test_the_auc_of_a_class_is_that_of_its_score_against_all_others() -> None:
    events = Events(20_000, 4)
    metrics = report_of(events.counts(), list("abcd"))["metrics"]["test"]
    for number, each in enumerate(metrics["classes"]):
        expected = roc_auc_score(
            events.labels[events.test] == number,
            events.scores[events.test, number],
            sample_weight=events.weights[events.test],
        )
        assert (each["name"], each["auc"]) == ("abcd"[number], pytest.approx(expected, abs=1e-4))
    assert metrics["auc"] == pytest.approx(np.mean([each["auc"] for each in metrics["classes"]]))
    columns = metrics_text({"metrics": {"test": metrics}, "model": "m/1", "best_epoch": 1}).splitlines()[0].split()
    assert columns == [
        "sample",
        "events",
        "loss",
        "accuracy",
        *(word for name in "abcd" for word in ("AUC", "of", name)),
    ]


@pytest.mark.parametrize("classes", [3, 5])
def test_the_auc_of_pairs_is_that_of_the_ratio_of_scores(classes: int) -> None:
    events = Events(20_000, classes)
    matrix = report_of(events.counts(), list("abcde")[:classes])["metrics"]["test"]["pairwise_auc"]
    for one in range(classes):
        assert matrix[one][one] is None
        for other in range(one):
            mine = events.test & ((events.labels == one) | (events.labels == other))
            ratio = np.log(events.scores[mine, one] / events.scores[mine, other])
            expected = roc_auc_score(events.labels[mine] == one, ratio, sample_weight=events.weights[mine])
            assert matrix[one][other] == matrix[other][one] == pytest.approx(expected, abs=1e-3)


def test_kolmogorov_and_smirnov_agree_with_scipy() -> None:
    for value in (0.05, 0.3, 0.8, 1.3, 3, 30):
        assert survival(value) == pytest.approx(kolmogorov(value), abs=1e-12)
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 500, 3_000), (rng.integers(0, 500, 2_000) * 1.02).astype(int)
    found = kolmogorov_smirnov(tally(one, (600,)), tally(other, (600,)))
    expected = ks_2samp(one, other, method="asymp")
    assert found is not None
    assert found["distance"] == pytest.approx(expected.statistic)
    assert found["probability"] == pytest.approx(expected.pvalue, rel=0.1)


def test_of_equal_distributions_the_probability_is_spread_evenly_with_weights_too() -> None:
    rng = np.random.default_rng(7)
    chances = []
    for _ in range(300):
        pair = [
            tally(rng.integers(0, 2_000, 500), (2_000,), np.minimum(rng.exponential(1, 500), 8), UNIT) for _ in range(2)
        ]
        found = kolmogorov_smirnov(*pair)
        assert found is not None
        chances.append(found["probability"])
    assert 0.4 < np.mean(chances) < 0.62
    assert 0.01 < np.mean(np.array(chances) < 0.1) < 0.17


def test_overtraining_shows_where_training_scores_differ() -> None:
    events = Events(6_000)
    same = report_of(events.counts(), ["b", "s"])["metrics"]["test"]["overtraining"]
    training = events.splits == Split.TRAINING
    assert same["training_events"] == training.sum()
    assert same["curves"][0][1]["probability"] > 1e-3
    events.scores[training & (events.labels == 1)] **= 0.3
    different = report_of(events.counts(), ["b", "s"])["metrics"]["test"]["overtraining"]["curves"][0]
    assert different[1]["probability"] < 1e-6
    assert different[0] == same["curves"][0][0]


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("weighted", [True, False])
def test_counts_of_parts_add_up_and_survive_json(classes: int, weighted: bool) -> None:
    events = Events(900, classes)
    parts = [
        events.counts(rows, weighted=weighted)
        for rows in np.split(np.random.default_rng(1).permutation(900), [5, 300, 310])
    ]
    stored = [PartCounts.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
    total, whole = reduce(or_, reversed(stored)), events.counts(weighted=weighted)
    assert total.to_json() == whole.to_json()
    report = report_of(total, [f"class {k}" for k in range(classes)])
    assert report == report_of(whole, [f"class {k}" for k in range(classes)])
    json.dumps(report, allow_nan=False)
    assert ("pairwise_auc" in report["metrics"]["test"]) == (classes == 3)
    assert total.scale(Split.TEST) == 900 / events.test.sum()


def test_a_part_without_events_adds_nothing() -> None:
    events = Events(300, 3)
    empty = events.counts(np.zeros(0, dtype=np.int64))
    assert (empty | events.counts()).to_json() == events.counts().to_json()


def test_a_report_without_any_event_has_no_metric_and_no_error() -> None:
    for classes in (2, 3):
        report = report_of(Events(300, classes).counts(np.zeros(0, dtype=np.int64)), list("abc")[:classes])
        json.dumps(report, allow_nan=False)
        assert report["metrics"]["test"]["auc"] is None
        assert report["metrics"]["test"]["brier"] is None


def test_yields_of_a_split_are_scaled_to_all_events() -> None:
    events = Events(50_000)
    yields = report_of(events.counts(), ["b", "s"])["metrics"]["test"]["yields"]
    for number, found in enumerate(yields):
        assert found["sum"] == pytest.approx(events.weights[events.labels == number].sum(), rel=0.05)
