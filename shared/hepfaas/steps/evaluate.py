"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hepfaas.platform.storage import Store
from hepfaas.runs.splits import HELD_BACK
from hepfaas.runs.steps import Evaluate
from hepfaas.steps.objects import encoded, put_blob, result_of
from hepfaas.training.metrics import ScoreCounts, quality

Drawing = tuple[str, tuple[Any, ...]]
"""The name of a function of training/plots.py, and its arguments."""

Drawer = Callable[[Callable[[Drawing], dict[str, bytes]], Sequence[Drawing]], Iterable[dict[str, bytes]]]
"""A function like `map`."""


def perform(step: Evaluate, store: Store, spread: Drawer = map) -> None:
    """spread: calls a function for each item of a list, perhaps in other processes.

    Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError."""
    counts = ScoreCounts.from_json(result_of(step.score, store))
    counts.check()
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    metrics = {split.label: quality(counts, split) for split in HELD_BACK}
    drawings: list[Drawing] = [
        ("roc", (metrics, step.classes)),
        ("scores", (counts, step.classes)),
        ("history", (history, step.best_epoch)),
        ("confusion", (metrics["test"]["confusion"], step.classes)),
    ]
    pictures = {name: data for drawn in spread(drawn_by_name, drawings) for name, data in drawn.items()}
    curves = {split: values.pop("curves") for split, values in metrics.items()}
    result = {
        "metrics": metrics,
        "curves": curves,
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))


def drawn_by_name(drawing: Drawing) -> dict[str, bytes]:
    """Return the pictures of one function. Its module imports matplotlib, which only the drawing process needs."""
    name, arguments = drawing
    pictures: dict[str, bytes] = getattr(importlib.import_module("hepfaas.training.plots"), name)(*arguments)
    return pictures


def warm() -> None:
    """Import what drawing needs."""
    importlib.import_module("hepfaas.training.plots")
