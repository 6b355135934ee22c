"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.report import report_of
from hepfaas.platform.storage import Store
from hepfaas.runs.cut_flow import cut_flow
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.steps import Evaluate
from hepfaas.steps.objects import encoded, put_blob, result_of

Drawing = tuple[str, tuple[Any, ...]]
"""The name of a function of evaluation/plots.py, and its arguments."""

Drawer = Callable[[Callable[[Drawing], dict[str, bytes]], Sequence[Drawing]], Iterable[dict[str, bytes]]]
"""A function like `map`."""


def perform(step: Evaluate, store: Store, spread: Drawer = map) -> None:
    """spread: calls a function for each item of a list, perhaps in other processes.

    Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError."""
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    report = report_of(counts, step.classes)
    drawings: list[Drawing] = [
        ("roc", (report["curves"], step.classes)),
        ("scores", (counts.scores, step.classes)),
        ("history", (history, step.best_epoch)),
        ("confusion", (report["metrics"]["test"]["confusion"], step.classes)),
    ]
    pictures = {name: data for drawn in spread(drawn_by_name, drawings) for name, data in drawn.items()}
    flow = cut_flow(step.cuts, prepared_parts(result_of(step.data, store)), dict(step.samples))
    result = {
        **report,
        "cut_flow": flow.to_json(),
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))


def drawn_by_name(drawing: Drawing) -> dict[str, bytes]:
    """Return the pictures of one function. Its module imports matplotlib, which only the drawing process needs."""
    name, arguments = drawing
    pictures: dict[str, bytes] = getattr(importlib.import_module("hepfaas.evaluation.plots"), name)(*arguments)
    return pictures


def warm() -> None:
    """Import what drawing needs."""
    importlib.import_module("hepfaas.evaluation.plots")
