"""The analysis in the documentation runs as it is written; its numbers are those of plain NumPy and scikit-learn."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score
from support import documents

pytestmark = pytest.mark.slow

PAGE = "how-to/analysis.md"
EXAMPLE = documents.TOP / "examples" / "dimuon"
EVENTS = 4_000
SAMPLES = json.loads((EXAMPLE / "samples.json").read_text())["samples"]
CLASSES = ["signal", "Z", "top"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """The events of one sample, computed without hepfaas. weights: physical. passed: the three cuts, (cuts, events)."""

    weights: Floats
    passed: NDArray[np.bool_]
    branches: Mapping[str, Floats]

    @property
    def selected(self) -> NDArray[np.bool_]:
        return self.passed.all(axis=0)


def truth_of(folder: Path, sample: str) -> Truth:
    files = sorted((folder / "data").glob(f"{sample}*.root"))
    events = ak.concatenate([uproot.open(file)["Events"].arrays() for file in files])
    generated = sum(uproot.open(file)["Runs"]["genEventSumw"].array().to_numpy().sum() for file in files)
    two = ak.num(events.Muon_pt) == 2
    pt, eta, phi, mass = (
        ak.to_numpy(ak.fill_none(ak.pad_none(events[f"Muon_{name}"], 2, clip=True), np.nan)).astype(float)
        for name in ("pt", "eta", "phi", "mass")
    )
    vectors = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
    energies = np.sqrt((vectors**2).sum(axis=0) + mass**2)
    pair = vectors.sum(axis=2)
    turn = (phi[:, 0] - phi[:, 1] + np.pi) % (2 * np.pi) - np.pi
    m_mumu = np.sqrt(energies.sum(axis=1) ** 2 - (pair**2).sum(axis=0))
    is_jet = (events.Jet_pt > 25) & (abs(events.Jet_eta) < 4.7)
    btag = events.Jet_btag[is_jet & (events.Jet_btag != -999)]
    branches = {
        "m_mumu": m_mumu,
        "pt_mumu": np.hypot(pair[0], pair[1]),
        "dR_mumu": np.hypot(eta[:, 0] - eta[:, 1], turn),
        "nJet": ak.to_numpy(ak.sum(is_jet, axis=1)).astype(float),
        "max_btag": ak.to_numpy(ak.fill_none(ak.max(btag, axis=1), np.nan)).astype(float),
    }
    cuts = [ak.to_numpy(two), (pt[:, 0] > 26) & (pt[:, 1] > 20), (m_mumu > 110) & (m_mumu < 150)]
    per_event = 140_000 * SAMPLES[sample]["cross_section"] / generated  # 140/fb, in 1/pb
    return Truth(per_event * ak.to_numpy(events.genWeight).astype(float), np.array(cuts), branches)


class Analysis:
    """The page, run in a folder: the output of each command and each piece of Python, in their order."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        for file in ("generate.py", "samples.json", "params.json", "with_mass.json", "model.py"):
            shutil.copy(EXAMPLE / file, folder)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.variables = {"HEPFAAS_STORE": str(store), "PATH": path}
        self.outputs: dict[str, str] = {}
        for language, text in documents.blocks(PAGE, "sh", "python"):
            if language == "sh":
                for command in text.splitlines():
                    self.run(command, f"python generate.py data {EVENTS}" if "generate" in command else command)
            elif "def model" not in text:
                (folder / "piece.py").write_text(text)
                self.run(text, "python piece.py")
        self.truths = {sample: truth_of(folder, sample) for sample in SAMPLES}
        self.evaluation = json.loads((store / "local/models/dimuon/1/evaluation.json").read_text())

    def run(self, name: str, command: str) -> None:
        (self.outputs[name],) = documents.run([command], self.folder, **self.variables)

    def output(self, part: str) -> str:
        """Return the output of the only command or piece that has this part."""
        (name,) = [name for name in self.outputs if part in name]
        return self.outputs[name]

    def scores(self, sample: str) -> dict[str, NDArray[Any]]:
        """Return the friend trees of a sample, in the order of its files."""
        files = sorted((self.folder / "scores").glob(f"{sample}*.root"))
        return dict(uproot.concatenate([f"{file}:scores" for file in files], library="np"))


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return Analysis(tmp_path_factory.mktemp("dimuon"), tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("name", ["samples.json", "params.json", "model.py"])
def test_the_page_shows_the_files_of_the_example(name: str) -> None:
    shown = [text.rstrip() for _, text in documents.blocks(PAGE, "json", "python")]
    assert (EXAMPLE / name).read_text().rstrip() in shown


def test_inspect_finds_the_value_that_the_example_declares(analysis: Analysis) -> None:
    assert 'declare it: "missing": {"Jet_btag": -999}' in analysis.output("inspect")


def test_the_cut_flow_has_the_events_and_yields_of_plain_numpy(analysis: Analysis) -> None:
    flows = {flow["sample"]: flow for flow in analysis.evaluation["cut_flow"]["samples"]}
    assert list(flows) == list(SAMPLES)
    for sample, truth in analysis.truths.items():
        left = [np.ones(len(truth.weights), bool), *np.logical_and.accumulate(truth.passed)]
        flow = flows[sample]
        assert flow["events"] == [mask.sum() for mask in left]
        assert flow["weights"] == pytest.approx([truth.weights[mask].sum() for mask in left], rel=1e-6)
        spread = [np.sqrt((truth.weights[mask] ** 2).sum()) for mask in left]
        assert flow["uncertainties"] == pytest.approx(spread, rel=1e-6)
        assert flow["weights"][0] == pytest.approx(140_000 * SAMPLES[sample]["cross_section"])


def test_scores_are_a_friend_of_the_original_tree(analysis: Analysis) -> None:
    for sample, truth in analysis.truths.items():
        scores = analysis.scores(sample)
        assert np.array_equal(np.isfinite(scores["score_0"]), truth.selected)
        assert scores["m_mumu"] == pytest.approx(truth.branches["m_mumu"], rel=1e-5, nan_ok=True)
        total = sum(scores[f"score_{number}"][truth.selected] for number in range(3))
        assert total == pytest.approx(np.ones(truth.selected.sum()), abs=1e-5)
        window = (scores["score_0"] > 0.7) & (abs(scores["m_mumu"] - 125) < 3)
        assert f"{sample}: {truth.weights[window].sum():.0f} ± " in analysis.output("uproot.concatenate")


def test_the_auc_is_the_weighted_one_of_the_true_mix_of_the_test_events(analysis: Analysis) -> None:
    labels, weights, scores, selected = [], [], [], []
    for number, (sample, truth) in enumerate(analysis.truths.items()):
        friends = analysis.scores(sample)
        selected.append(truth.selected)  # with folds all of them are test events
        scores.append(np.stack([friends[f"score_{place}"] for place in range(3)], axis=1))
        labels.append(np.full(len(truth.weights), number))
        weights.append(truth.weights)
    tested = np.concatenate(selected)
    label, weight, score = (np.concatenate(parts)[tested] for parts in (labels, weights, scores))
    metrics = analysis.evaluation["metrics"]["test"]
    assert metrics["events"] == len(label)
    unweighted = roc_auc_score(label == 0, score[:, 0])
    for number, found in enumerate(metrics["classes"]):
        assert found["name"] == CLASSES[number]
        assert found["auc"] == pytest.approx(weighted_auc(score[:, number], label == number, weight), abs=2e-3)
    assert abs(metrics["classes"][0]["auc"] - unweighted) > 0.005
    assert metrics["accuracy"] == pytest.approx(accuracy_score(label, score.argmax(axis=1), sample_weight=weight))


def weighted_auc(score: NDArray[Any], is_signal: NDArray[np.bool_], weight: Floats) -> float:
    """Return the AUC of scikit-learn; with negative weights, which it refuses, its definition over all pairs."""
    signal, background = score[is_signal], score[~is_signal]
    pairs = (signal[:, None] > background) + 0.5 * (signal[:, None] == background)
    of_signal, of_background = weight[is_signal], weight[~is_signal]
    ours = float(of_signal @ pairs @ of_background / of_signal.sum() / of_background.sum())
    sizes = abs(weight)
    assert roc_auc_score(is_signal, score, sample_weight=sizes) == pytest.approx(
        abs(of_signal) @ pairs @ abs(of_background) / abs(of_signal).sum() / abs(of_background).sum()
    )
    return ours


def test_the_second_network_makes_a_peak_out_of_background(analysis: Analysis) -> None:
    """The score of a network that has the mass is high in a narrow window, in background too; the other's is not."""
    shares = []
    for version in (1, 2):
        file = analysis.folder / f"drell_yan_{version}.root"
        analysis.run(f"version {version}", f"hepfaas predict dimuon/{version} data/drell_yan_0.root --out {file}")
        scores = uproot.open(file)["scores"].arrays(library="np")
        known = np.isfinite(scores["score_0"])
        mass, score = scores["m_mumu" if version == 1 else "+m_mumu"][known], scores["score_0"][known]
        inside = abs(mass - 125) < 5
        shares.append(inside[score > np.quantile(score, 0.9)].mean() / inside.mean())
    assert 0.5 < shares[0] < 1.7
    assert shares[1] > 2.5


def test_report_and_comparison_are_pages_with_the_names_of_the_classes(analysis: Analysis) -> None:
    report = (analysis.folder / "report.html").read_text()
    for text in ("Cut flow", "drell_yan", "110 &lt; m &lt; 150 GeV", "Working points of the score of signal"):
        assert text in report
    assert "AUC of signal" in analysis.output("hepfaas compare")
    assert "+m_mumu" in (analysis.folder / "compare.html").read_text()
