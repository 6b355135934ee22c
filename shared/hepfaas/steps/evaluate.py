"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.predictions import PredictionCounts, metrics_of
from hepfaas.evaluation.report import report_of
from hepfaas.platform.storage import Store
from hepfaas.runs.cut_flow import cut_flow
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.steps import Evaluate
from hepfaas.runs.targets import targets_in
from hepfaas.steps.objects import encoded, put_blob, result_of

Drawing = tuple[str, tuple[Any, ...]]
"""The name of a function of evaluation/plots.py, and its arguments."""

Drawer = Callable[[Callable[[Drawing], dict[str, bytes]], Sequence[Drawing]], Iterable[dict[str, bytes]]]
"""A function like `map`."""


def perform(step: Evaluate, store: Store, spread: Drawer = map) -> None:
    """spread: calls a function for each item of a list, perhaps in other processes.

    Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError."""
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    report, drawings = (_predicted if step.targets else _classified)(step, store)
    drawings = [("history", (history, step.best_epoch)), *drawings]
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


def _classified(step: Evaluate, store: Store) -> tuple[dict[str, Any], list[Drawing]]:
    """Return metrics and curves of a classifier as JSON values, and what is to be drawn."""
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    report = report_of(counts, step.classes)
    return report, [
        ("roc", (report["curves"], step.classes)),
        ("scores", (counts.scores, step.classes)),
        ("confusion", (report["metrics"]["test"]["confusion"], step.classes)),
    ]


def _predicted(step: Evaluate, store: Store) -> tuple[dict[str, Any], list[Drawing]]:
    """Return metrics and profiles of a regression as JSON values, and what is to be drawn."""
    targets = targets_in(step.targets)
    counts = PredictionCounts.from_json(result_of(step.score, store))
    counts.check(targets)
    profiles = result_of(step.examine, store)["profiles"]
    drawings: list[Drawing] = []
    for number, (target, profile) in enumerate(zip(targets, profiles, strict=True)):
        ending = f"_{number}" if len(targets) > 1 else ""
        drawings += [
            ("residuals", (counts, number, target.name, ending)),
            ("predictions", (profile["plane"], target.name, ending)),
            ("profiles", (profile["branches"], target.name, ending)),
        ]
    return {"metrics": metrics_of(counts, targets), "profiles": profiles}, drawings


def drawn_by_name(drawing: Drawing) -> dict[str, bytes]:
    """Return the pictures of one function. Its module imports matplotlib, which only the drawing process needs."""
    name, arguments = drawing
    pictures: dict[str, bytes] = getattr(importlib.import_module("hepfaas.evaluation.plots"), name)(*arguments)
    return pictures


def warm() -> None:
    """Import what drawing needs."""
    importlib.import_module("hepfaas.evaluation.plots")
