"""Plots are made for whatever was measured, and the same for the same."""

import numpy as np
import pytest
from hepfaas.training import plots
from hepfaas.training.metrics import SPLITS, ScoreCounts, counts_of, quality

RNG = np.random.default_rng(3)


def measured(classes: int, events: int = 600) -> tuple[ScoreCounts, dict[str, dict[str, object]]]:
    labels, splits = RNG.integers(0, classes, events), RNG.integers(0, 2, events)
    scores = RNG.dirichlet(np.ones(classes), events).astype(np.float32)
    scores = scores[:, 1:] if classes == 2 else scores
    counts = counts_of(scores, labels, splits, classes, logits=False)
    return counts, {name: quality(counts, number) for number, name in enumerate(SPLITS)}


@pytest.mark.parametrize("classes", [2, 3])
def test_every_picture_is_a_png_and_a_pdf(classes: int) -> None:
    counts, metrics = measured(classes)
    names = [f"class_{number}" for number in range(classes)]
    history = [{"loss": 1 / n, "val_loss": 1.1 / n} for n in range(1, 5)]
    pictures = {
        **plots.roc(metrics, names),
        **plots.scores(counts, names),
        **plots.history(history, 3),
        **plots.confusion(metrics["test"]["confusion"], names),  # type: ignore[arg-type]
    }
    assert {name for name in pictures if name.endswith(".png")} >= {"roc.png", "loss.png", "confusion.png"}
    for name, data in pictures.items():
        assert data.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
        assert len(data) > 5_000


def test_equal_values_give_equal_bytes() -> None:
    _, metrics = measured(2)
    assert plots.roc(metrics, ["a", "b"]) == plots.roc(metrics, ["a", "b"])


def test_one_epoch_and_one_class_are_drawn_too() -> None:
    plots.history([{"loss": 0.5, "val_loss": 0.6}], 0)
    counts = counts_of(np.array([[0.3]], dtype=np.float32), np.array([0]), np.array([1]), 2, False)
    metrics = {name: quality(counts, number) for number, name in enumerate(SPLITS)}
    plots.roc(metrics, ["a", "b"])
    plots.scores(counts, ["a", "b"])
