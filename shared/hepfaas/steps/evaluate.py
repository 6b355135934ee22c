"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.evaluation import plots
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.predictions import PredictionCounts, metrics_of
from hepfaas.evaluation.report import report_of
from hepfaas.platform.storage import Store
from hepfaas.runs.cut_flow import cut_flow
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.steps import Evaluate
from hepfaas.runs.targets import targets_in
from hepfaas.steps.objects import encoded, put_blob, result_of


def perform(step: Evaluate, store: Store) -> None:
    """Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError."""
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    report, pictures = (_predicted if step.targets else _classified)(step, store, history)
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
) -> tuple[dict[str, Any], plots.Pictures]:
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    report = report_of(counts, step.classes)
    pictures = {
        **plots.roc(report["curves"], step.classes),
        **plots.scores(counts.scores, step.classes),
        **plots.history(history, step.best_epoch),
        **plots.confusion(report["metrics"]["test"]["confusion"], step.classes),
    }
    return report, pictures


def _predicted(
    step: Evaluate, store: Store, history: Sequence[Mapping[str, float]]
) -> tuple[dict[str, Any], plots.Pictures]:
    """Return metrics and profiles of a regression as JSON values, and the plots."""
    targets = targets_in(step.targets)
    counts = PredictionCounts.from_json(result_of(step.score, store))
    counts.check(targets)
    found = result_of(step.examine, store)["profiles"]
    report = {"metrics": metrics_of(counts, targets), "profiles": found}
    pictures = plots.history(history, step.best_epoch)
    for number, (target, profile) in enumerate(zip(targets, found, strict=True)):
        ending = f"_{number}" if len(targets) > 1 else ""
        pictures |= plots.residuals(counts, number, target.name, ending)
        pictures |= plots.predictions(profile["plane"], target.name, ending)
        pictures |= plots.profiles(profile["branches"], target.name, ending)
    return report, pictures
