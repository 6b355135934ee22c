"""evaluate: the sum of all scores and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

from hepfaas.errors import RequestError
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Evaluate
from hepfaas.steps.objects import encoded, put_blob, result_of
from hepfaas.training import plots
from hepfaas.training.metrics import SPLITS, ScoreCounts, quality


def perform(step: Evaluate, store: Store) -> None:
    """Raises: RequestError if the model gives scores that are no numbers or no probabilities; MissingError."""
    counts = ScoreCounts.from_json(result_of(step.score, store))
    if counts.n_not_finite:
        raise RequestError(f"the model's score of {counts.n_not_finite} held-back events is no number")
    if counts.n_not_probable:
        raise RequestError(
            f"the model's score of {counts.n_not_probable} held-back events is below 0 or above 1, so it is no "
            "probability: end the network in a sigmoid or softmax, or compile it with a loss that has from_logits=True"
        )
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    metrics = {name: quality(counts, number) for number, name in enumerate(SPLITS)}
    pictures = {
        **plots.roc(metrics, step.classes),
        **plots.scores(counts, step.classes),
        **plots.history(history, step.best_epoch),
        **plots.confusion(metrics["test"]["confusion"], step.classes),
    }
    curves = {split: found.pop("curves") for split, found in metrics.items()}
    result = {
        "metrics": metrics,
        "curves": curves,
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))
