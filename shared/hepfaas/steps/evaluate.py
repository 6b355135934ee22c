"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

from hepfaas.evaluation import plots
from hepfaas.evaluation.counts import ScoreCounts
from hepfaas.evaluation.metrics import quality
from hepfaas.platform.storage import Store
from hepfaas.runs.splits import HELD_BACK
from hepfaas.runs.steps import Evaluate
from hepfaas.steps.objects import encoded, put_blob, result_of


def perform(step: Evaluate, store: Store) -> None:
    """Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError."""
    counts = ScoreCounts.from_json(result_of(step.score, store))
    counts.check()
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    metrics = {split.label: quality(counts, split) for split in HELD_BACK}
    pictures = {
        **plots.roc(metrics, step.classes),
        **plots.scores(counts, step.classes),
        **plots.history(history, step.best_epoch),
        **plots.confusion(metrics["test"]["confusion"], step.classes),
    }
    curves = {split: values.pop("curves") for split, values in metrics.items()}
    result = {
        "metrics": metrics,
        "curves": curves,
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))
