"""evaluate: the sum of all scores, the examined sample and the history of the training -> metrics, curves and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hepfaas.evaluation.drawings import Drawing, Pictures, PlotLabels, drawings_of, drawn, warm
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.report import report_of
from hepfaas.platform.storage import Store
from hepfaas.runs.cut_flow import cut_flow
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.steps import Evaluate
from hepfaas.steps.objects import encoded, put_blob, result_of

__all__ = ["perform", "warm"]

Drawer = Callable[[Callable[[Drawing], Pictures], Sequence[Drawing]], Iterable[Pictures]]
"""A function like `map`."""

SCULPTING = ("name", "curve", "threshold", "divergence", "chance")
"""What the result keeps of the distributions of spectators, which are in the pictures."""


def perform(step: Evaluate, store: Store, spread: Drawer = map) -> None:
    """spread: calls a function for each item of a list, perhaps in other processes.

    Raises: RequestError if the model gives scores that are not finite or not probabilities; MissingError.
    """
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    examined = result_of(step.examine, store)
    history = [result_of(epoch, store)["metrics"] for epoch in step.epochs]
    report = report_of(counts, step.classes)
    drawings = drawings_of(
        report,
        counts,
        examined,
        history,
        best_epoch=step.best_epoch,
        names=step.classes,
        labels=PlotLabels(),
    )
    pictures = {name: data for files in spread(drawn, drawings) for name, data in files.items()}
    flow = cut_flow(step.cuts, prepared_parts(result_of(step.data, store)), dict(step.samples))
    result = {
        **report,
        "sample": _kept(examined),
        "cut_flow": flow.to_json(),
        "history": history,
        "best_epoch": step.best_epoch + 1,
        "plots": {name: put_blob(store, data) for name, data in pictures.items()},
    }
    store.create(step.key, encoded(result))


def _kept(examined: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers about branches that the result keeps."""
    return {
        "events": examined["events"],
        "importance": examined["importance"],
        "correlations": examined["correlations"],
        "sculpting": [{name: each[name] for name in SCULPTING} for each in examined["sculpting"]],
    }
