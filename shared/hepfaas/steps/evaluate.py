"""evaluate: the scores, the examined sample and the history of the training -> metrics, curves and plots. With folds
the scores of all networks add up: each event has one score, of the network that has not learned it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import Any

from hepfaas.evaluation.drawings import (
    Drawing,
    History,
    Pictures,
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
from hepfaas.runs.plot_labels import PlotLabels
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.splits import Split
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
    histories = [[result_of(epoch, store)["metrics"] for epoch in epochs] for _, epochs, _ in step.trainings]
    trainings = [(history, best) for history, (_, _, best) in zip(histories, step.trainings, strict=True)]
    report, metrics, drawings = (_predicted if step.targets else _classified)(step, store, trainings)
    pictures = {name: data for files in spread(drawn, drawings) for name, data in files.items()}
    flow = cut_flow(step.cuts, prepared_parts(result_of(step.data, store)), dict(step.samples))
    result = {
        **report,
        "cut_flow": flow.to_json(),
        **_course(trainings, metrics),
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))


def _course(trainings: Sequence[tuple[History, int]], metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics by epoch and the number of the published one; with folds those of each, and the metrics of its
    test events that are single numbers, or those of each target."""
    (history, best), *others = trainings
    if not others:
        return {"history": history, "best_epoch": best + 1}
    folds = [
        {"metrics": _main(each[Split.TEST.label]), "history": history, "best_epoch": best + 1}
        for each, (history, best) in zip(metrics, trainings, strict=True)
    ]
    return {"best_epoch": None, "folds": folds}


def _main(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) or name == "targets"}


def _classified(
    step: Evaluate, store: Store, trainings: Sequence[tuple[History, int]]
) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]], list[Drawing]]:
    """Return metrics and curves of a classifier as JSON values, the metrics of each training, and what is to be
    drawn."""
    of_folds = [PartCounts.from_json(result_of(score, store)) for score, _, _ in step.trainings]
    counts = replace(reduce(or_, of_folds), n_folds=len(of_folds))
    counts.scores.check()
    examined = result_of(step.examine, store)
    report = report_of(counts, step.classes)
    drawings = drawings_of(
        report, counts, examined, trainings, names=step.classes, labels=PlotLabels.from_text(step.labels)
    )
    metrics = [report_of(each, step.classes)["metrics"] for each in of_folds] if len(of_folds) > 1 else []
    return {**report, "sample": _kept(examined)}, metrics, drawings


def _predicted(
    step: Evaluate, store: Store, trainings: Sequence[tuple[History, int]]
) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]], list[Drawing]]:
    """Return metrics and profiles of a regression as JSON values, the metrics of each training, and what is to be
    drawn."""
    targets = targets_in(step.targets)
    of_folds = [PredictionCounts.from_json(result_of(score, store)) for score, _, _ in step.trainings]
    counts = reduce(or_, of_folds)
    counts.check(targets)
    profiles = result_of(step.examine, store)["profiles"]
    names = [target.name for target in targets]
    drawings = regression_drawings(counts, profiles, trainings, names=names, labels=PlotLabels.from_text(step.labels))
    metrics = [metrics_of(each, targets) for each in of_folds]
    return {"metrics": metrics_of(counts, targets), "profiles": profiles}, metrics, drawings


def _kept(examined: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers about branches that the result keeps."""
    return {
        "events": examined["events"],
        "importance": examined["importance"],
        "correlations": examined["correlations"],
        "sculpting": [{name: each[name] for name in SCULPTING} for each in examined["sculpting"]],
    }
