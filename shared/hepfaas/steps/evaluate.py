"""evaluate: the sum of all scores, the examined sample and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hepfaas.evaluation.drawings import (
    Drawing,
    Pictures,
    PlotLabels,
    drawings_of,
    drawn,
    regression_drawings,
    warm,
)
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.predictions import PredictionCounts, metrics_of
from hepfaas.evaluation.report import report_of
from hepfaas.platform.storage import Store
from hepfaas.runs.cut_flow import cut_flow
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.steps import Evaluate
from hepfaas.runs.targets import targets_in
from hepfaas.steps.objects import encoded, put_blob, result_of

__all__ = ["perform", "warm"]

Drawer = Callable[[Callable[[Drawing], Pictures], Sequence[Drawing]], Iterable[Pictures]]
"""A function like `map`."""

SCULPTING = ("name", "curve", "threshold", "divergence", "chance")
"""Fields of the sculpting results that are stored; the distributions are in the pictures."""


def perform(step: Evaluate, store: Store, spread: Drawer = map) -> None:
    """spread: calls a function for each item of a list, perhaps in other processes.

    Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError.
    """
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    report, drawings = (_predicted if step.targets else _classified)(step, store, history)
    pictures = {name: data for files in spread(drawn, drawings) for name, data in files.items()}
    flow = cut_flow(step.cuts, prepared_parts(result_of(step.data, store)), dict(step.samples))
    result = {
        **report,
        "cut_flow": flow.to_json(),
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))


def _classified(
    step: Evaluate, store: Store, history: Sequence[Mapping[str, float]]
) -> tuple[dict[str, Any], list[Drawing]]:
    """Return metrics and curves of a classifier as JSON values, and what is to be drawn."""
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    examined = result_of(step.examine, store)
    report = report_of(counts, step.classes)
    drawings = drawings_of(
        report, counts, examined, history, best_epoch=step.best_epoch, names=step.classes, labels=PlotLabels()
    )
    return {**report, "sample": _kept(examined)}, drawings


def _predicted(
    step: Evaluate, store: Store, history: Sequence[Mapping[str, float]]
) -> tuple[dict[str, Any], list[Drawing]]:
    """Return metrics and profiles of a regression as JSON values, and what is to be drawn."""
    targets = targets_in(step.targets)
    counts = PredictionCounts.from_json(result_of(step.score, store))
    counts.check(targets)
    profiles = result_of(step.examine, store)["profiles"]
    names = [target.name for target in targets]
    drawings = regression_drawings(
        counts, profiles, history, best_epoch=step.best_epoch, names=names, labels=PlotLabels()
    )
    return {"metrics": metrics_of(counts, targets), "profiles": profiles}, drawings


def _kept(examined: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers about branches that the result keeps."""
    return {
        "events": examined["events"],
        "importance": examined["importance"],
        "correlations": examined["correlations"],
        "sculpting": [{name: each[name] for name in SCULPTING} for each in examined["sculpting"]],
    }
