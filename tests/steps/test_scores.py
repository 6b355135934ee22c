"""score counts held-back and training rows of a part by their weights; examine looks at a sample of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.evaluation import branches
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.report import report_of
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.results import Exported
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Examine, Score, Sum
from hepfaas.steps import examine, score
from hepfaas.steps import sum as adding
from hepfaas.steps.objects import encoded, put_blob, result_of
from hepfaas.training.prepared import SPECTATOR, WEIGHT, PreparedRows, part_of
from hepfaas.training.weights import Factors
from sklearn.metrics import roc_auc_score
from support.graphs import doubling

N = 3_000
UNIT = 2.0**-33
SPEC = FeatureSpec(
    (
        FeatureBranch("Jet_a", jagged=False, low=0.0, high=10.0, width=1),
        FeatureBranch("Jet_b", jagged=False, low=0.0, high=2.0, width=1),
    )
)


class Run:
    """Two prepared parts, one for each class, and a network whose logits are twice the features."""

    def __init__(self, store: Store, *, weighted: bool, n_files: int = 2, invalid: bool = False) -> None:
        self.store = store
        self.weighted = weighted
        rng = np.random.default_rng(3)
        self.labels = np.repeat(np.arange(n_files) % 2, N)
        self.features = np.clip(rng.normal(0.4, 0.2, (n_files * N, 2)) + 0.2 * np.eye(2)[self.labels], 0.001, 1).astype(
            np.float32
        )
        self.weights = np.minimum(rng.exponential(0.5, n_files * N) * (1 + 4 * self.labels), 8)
        self.weights *= np.where(rng.random(n_files * N) < 0.1, -1, 1)
        self.splits = rng.choice(3, n_files * N, p=[0.64, 0.16, 0.2]).astype(np.uint8)
        if invalid:
            self.features[self.splits == Split.TEST] = np.nan
        self.parts = [self._stored(number) for number in range(n_files)]
        store.create("steps/weigh/1", encoded(Factors({}, UNIT, (), ()).to_json()))
        self.export = Exported(
            graph=put_blob(store, doubling(2)),
            keras="",
            outputs=2,
            n_classes=2,
            logits=True,
            labels=[0, 1],
            parameters=0,
            weights="",
            check={},
            versions={},
            processor="",
        )
        store.create("steps/export/1", encoded(self.export.to_json()))

    def _stored(self, number: int) -> str:
        mine = slice(number * N, (number + 1) * N)
        features, weights = self.features[mine], self.weights[mine]

        def events(rows: slice) -> PreparedRows:
            columns: dict[str, Any] = {SPECTATOR + "mass": 100 * features[rows, 1] + 50}
            if self.weighted:
                columns[WEIGHT] = weights[rows]
            return PreparedRows(features[rows], np.arange(rows.start, rows.stop), columns)

        data = part_of(
            file=f"file {number}",
            entries=(0, N),
            label=number % 2,
            selected=np.arange(N),
            split=self.splits[mine],
            events=events,
        )
        key = f"steps/prepare/{number}"
        self.store.create(key, data.to_pybytes())
        return key

    def scored(self) -> str:
        """Do the score steps and return the key of their sum."""
        weigh = "steps/weigh/1" if self.weighted else ""
        steps = [
            Score(export="steps/export/1", part=part, n_classes=2, threshold=0.5, weigh=weigh) for part in self.parts
        ]
        for step in steps:
            score.perform(step, self.store)
        total = Sum(of="score", members=tuple(step.key for step in steps))
        adding.perform(total, self.store)
        return total.key

    def examined(self) -> dict[str, Any]:
        """Do the examine step and return its result."""
        data = Sum(of="prepare", members=tuple(self.parts))
        adding.perform(data, self.store)
        step = Examine(
            data=data.key,
            spec=put_blob(self.store, json.dumps(SPEC.to_json()).encode()),
            export="steps/export/1",
            score=self.scored(),
            classes=("background", "signal"),
        )
        examine.perform(step, self.store)
        return result_of(step.key, self.store)

    @property
    def probabilities(self) -> Any:
        return 1 / (1 + np.exp(2.0 * (self.features[:, 0].astype(float) - self.features[:, 1])))


def auc(scores: Any, labels: Any, weights: Any) -> float:
    """Return the AUC as the sum over all pairs; the weights may be negative, which scikit-learn refuses."""
    order = np.argsort(scores)
    labels, weights = labels[order], weights[order]
    below = np.cumsum(weights * (labels == 0))
    return float((weights * (labels == 1) * below).sum() / (weights * (labels == 1)).sum() / below[-1])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.mark.parametrize("weighted", [True, False])
def test_scores_of_a_run_give_the_metrics_of_its_events(store: Store, weighted: bool) -> None:
    run = Run(store, weighted=weighted)
    counts = PartCounts.from_json(result_of(run.scored(), store))
    test, training = run.splits == Split.TEST, run.splits == Split.TRAINING
    weights = run.weights if weighted else np.ones(2 * N)
    metrics = report_of(counts, ["background", "signal"])["metrics"]["test"]
    assert metrics["events"] == test.sum()
    assert metrics["auc"] == pytest.approx(auc(run.probabilities[test], run.labels[test], weights[test]), abs=1e-3)
    assert ("yields" in metrics) == weighted
    if weighted:
        total = weights[test & (run.labels == 1)].sum()
        assert metrics["yields"][1]["sum"] == pytest.approx(counts.scale(Split.TEST) * total)
    assert counts.rows == tuple(np.bincount(run.splits))
    for label in (0, 1):  # training events: the first ones of each part, as many as test events
        mine = np.flatnonzero(training & (run.labels == label))[: (test & (run.labels == label)).sum()]
        assert counts.training.events[0, label].sum() == len(mine)
        assert counts.training.yields[0, label].sum() == pytest.approx(weights[mine].sum())


def test_a_sample_of_a_run_shows_its_branches_in_their_units(store: Store) -> None:
    run = Run(store, weighted=True)
    result = run.examined()
    test = run.splits == Split.TEST
    assert result["events"] == test.sum()  # few events: all are in the sample
    histograms = {each.name: each for each in branches.from_json(result["branches"])}
    jet = histograms["Jet_b"]
    signal = test & (run.labels == 1)
    values = 2.0 * run.features[:, 1]
    inside = signal & (values >= jet.edges[0]) & (values <= jet.edges[-1])
    assert jet.yields[1].sum() == pytest.approx(run.weights[inside].sum())
    passed = inside & (run.probabilities > result["thresholds"][0])
    assert jet.passing[1].sum() == pytest.approx(run.weights[passed].sum(), rel=1e-3)
    scaled = {each.name: each for each in branches.from_json(result["scaled"])}
    assert scaled["Jet_b"].edges * 2 == pytest.approx(jet.edges)
    (mass,) = result["sculpting"]
    assert mass["divergence"] > 2 * mass["chance"]
    assert result["correlations"]["names"] == ["score of signal", "mass", "Jet_a", "Jet_b"]


def test_importances_are_the_falls_of_the_auc_without_a_branch(store: Store) -> None:
    run = Run(store, weighted=False)
    found = run.examined()["importance"]
    test = run.splits == Split.TEST
    assert found["events"] == test.sum()
    assert found["auc"] == pytest.approx(roc_auc_score(run.labels[test], run.probabilities[test]), abs=1e-4)
    falls = {(each["kind"], each["name"]): each for each in found["groups"]}
    assert set(falls) == {("collection", "Jet"), ("branch", "Jet_a"), ("branch", "Jet_b")}
    everything = falls["collection", "Jet"]
    assert found["auc"] - everything["fall"] == pytest.approx(0.5, abs=5 * everything["spread"] + 0.01)
    rng = np.random.default_rng(1)
    features = run.features[test].astype(float)
    expected = []
    for _ in range(20):
        changed = rng.permutation(features[:, 0])
        expected.append(found["auc"] - roc_auc_score(run.labels[test], features[:, 1] - changed))
    assert falls["branch", "Jet_a"]["fall"] == pytest.approx(np.mean(expected), abs=0.03)


def test_invalid_scores_end_the_run_before_anything_is_drawn(store: Store) -> None:
    run = Run(store, weighted=False, invalid=True)
    with pytest.raises(RequestError, match=r"the model's score of \d+ held-back events is NaN or infinite"):
        run.examined()


def test_equal_inputs_give_equal_bytes(store: Store, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    assert encoded(Run(store, weighted=True).examined()) == encoded(Run(other, weighted=True).examined())
