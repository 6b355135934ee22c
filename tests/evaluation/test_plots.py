"""Plots exist for any metrics, and equal values give equal bytes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hepfaas.evaluation import plots
from hepfaas.evaluation.counts import ScoreCounts, counts_of
from hepfaas.evaluation.metrics import curves_of as curves_of_split
from hepfaas.evaluation.metrics import quality, rejections_of
from hepfaas.runs.splits import HELD_BACK, Split

RNG = np.random.default_rng(3)


def measured(classes: int, events: int = 600) -> tuple[ScoreCounts, dict[str, dict[str, object]]]:
    labels, splits = RNG.integers(0, classes, events), RNG.choice(HELD_BACK, events)
    scores = RNG.dirichlet(np.ones(classes), events).astype(np.float32)
    scores = scores[:, 1:] if classes == 2 else scores
    counts = counts_of(scores, labels, splits, logits=False)
    return counts, {split.label: quality(counts, split) for split in HELD_BACK}


def curves_of(metrics: dict[str, dict[str, object]]) -> dict[str, object]:
    return {split: values["curves"] for split, values in metrics.items()}


def drawn(classes: int, names: list[str]) -> plots.Pictures:
    counts, metrics = measured(classes)
    history = [{"loss": 1 / n, "val_loss": 1.1 / n, "auc": 1 - 1 / n, "val_auc": 1 - 1.1 / n} for n in range(1, 5)]
    return {
        **plots.roc(curves_of(metrics), names),
        **plots.scores(counts, names),
        **plots.history(history, 3),
        **plots.confusion(metrics["test"]["confusion"], names),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize(
    ("classes", "scores"), [(2, {"scores"}), (3, {"scores_0", "scores_1", "scores_2"})], ids=["two", "three"]
)
def test_every_picture_is_a_png_and_a_pdf(classes: int, scores: set[str]) -> None:
    pictures = drawn(classes, [f"class_{number}" for number in range(classes)])
    figures = {"roc", "roc_efficiencies", "loss", "confusion"} | scores
    assert set(pictures) == {f"{figure}.{kind}" for figure in figures for kind in ("png", "pdf")}
    for name, data in pictures.items():
        assert data.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
        assert len(data) > 5_000


def weighted(classes: int, share: float, events: int = 600) -> ScoreCounts:
    """Return counts of events of which a share has negative weights."""
    labels, splits = RNG.integers(0, classes, events), RNG.choice(HELD_BACK, events)
    scores = RNG.dirichlet(np.ones(classes), events).astype(np.float32)
    weights = np.where(RNG.random(events) < share, -1.0, 1.0)
    return counts_of(scores, labels, splits, logits=False, weights=weights, unit=2.0**-30)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_negative_weights_are_drawn_whatever_cancels(share: float) -> None:
    counts = weighted(3, share)
    metrics = {split.label: quality(counts, split) for split in HELD_BACK}
    pictures = plots.roc(curves_of(metrics), ["a", "b", "c"]) | plots.scores(counts, ["a", "b", "c"])
    assert len(pictures) == 10


def test_background_efficiencies_below_one_effective_event_have_no_rejection() -> None:
    counts, _ = measured(2)
    (curve,) = curves_of_split(counts, Split.TEST)
    signal, rejection = rejections_of(vars(curve))
    n_background = int(counts.histograms[1, 0, 0].events.sum())
    assert curve.resolution == pytest.approx(1 / n_background)
    assert len(signal) == len(rejection) == sum(value > 0 for value in curve.background)  # all, without weights
    cancelled = {"signal": [0.1, 0.3, 1.0], "background": [1e-7, 0.02, 1.0], "resolution": 0.01}
    assert [values.tolist() for values in rejections_of(cancelled)] == [[0.3, 1.0], [50.0, 1.0]]


def test_equal_values_give_equal_bytes_in_another_process() -> None:
    """With two hash seeds: a plot must not depend on the order of a set."""
    code = (
        "import hashlib, numpy as np; from hepfaas.evaluation import plots; "
        "data = plots.confusion([[5, 1], [2, 7]], ['gg→H→ττ', 'VBF']) | plots.history([{'loss': 1, 'val_loss': 2}], 0);"
        "print({name: hashlib.sha256(data[name]).hexdigest() for name in sorted(data)})"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert b"loss.pdf" in outputs[0]


def test_a_pdf_does_not_say_when_it_was_made() -> None:
    for name, data in plots.confusion([[5, 1], [2, 7]], ["a", "b"]).items():
        assert b"CreationDate" not in data, name


@pytest.mark.parametrize(
    "name", ["$5", "$\\nosuchsymbol$", "a_b^c{", "gg→H→ττ", "GluGluHToTauTau_M125_13TeV_powheg_pythia8"]
)
def test_a_class_may_have_any_name(name: str) -> None:
    assert drawn(2, [name, "background"])


def test_accuracy_and_auc_have_a_panel_of_their_own() -> None:
    loss = [{"loss": 1.0, "val_loss": 1.1}, {"loss": 0.5, "val_loss": 0.6}]
    both = [epoch | {"auc": 0.7, "val_auc": 0.6} for epoch in loss]
    low, high = (int.from_bytes(plots.history(epochs, 1)["loss.png"][20:24]) for epochs in (loss, both))  # PNG's height
    assert high > low


def test_one_epoch_and_one_class_are_drawn_too() -> None:
    plots.history([{"loss": 0.5, "val_loss": 0.6}], 0)
    counts = counts_of(np.array([[0.3]], dtype=np.float32), np.array([0]), np.array([Split.TEST]), logits=False)
    metrics = {split.label: quality(counts, split) for split in HELD_BACK}
    plots.roc(curves_of(metrics), ["a", "b"])
    plots.scores(counts, ["a", "b"])
