"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

from hepfaas.evaluation import plots
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.report import report_of
from hepfaas.platform.storage import Store
from hepfaas.runs.cut_flow import cut_flow
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.steps import Evaluate
from hepfaas.steps.objects import encoded, put_blob, result_of


def perform(step: Evaluate, store: Store) -> None:
    """Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError."""
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    report = report_of(counts, step.classes)
    pictures = {
        **plots.roc(report["curves"], step.classes),
        **plots.scores(counts.scores, step.classes),
        **plots.history(history, step.best_epoch),
        **plots.confusion(report["metrics"]["test"]["confusion"], step.classes),
    }
    flow = cut_flow(step.cuts, prepared_parts(result_of(step.data, store)), dict(step.samples))
    result = {
        **report,
        "cut_flow": flow.to_json(),
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))
