"""All metrics and curves of a model from the counts of its scores, as JSON values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hepfaas.evaluation.calibration import calibration_of
from hepfaas.evaluation.classification import classification_report
from hepfaas.evaluation.metrics import quality, signal_and_background
from hepfaas.evaluation.overtraining import overtraining
from hepfaas.evaluation.pairwise import pairwise_auc
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.significance import scan
from hepfaas.evaluation.tally import Tally
from hepfaas.runs.splits import HELD_BACK, Split


def report_of(counts: PartCounts, names: Sequence[str]) -> dict[str, Any]:
    """Return `metrics`, a few numbers for each held-back split, and what pictures are drawn of, for the same splits:
    `curves` (one for each output), `calibration` (one for each output), and for two classes `significance`.

    names: of the classes. Yields are scaled to all events. `auc` of several classes is a mean; `classes` has that
    and the working points of each class against the others.
    """
    report: dict[str, Any] = {"metrics": {}, "curves": {}, "calibration": {}, "significance": {}}
    for split in HELD_BACK:
        metrics, histograms = quality(counts.scores, split, counts.scale(split)), _of(counts, split)
        curves = report["curves"][split.label] = metrics.pop("curves")
        calibration = [calibration_of(*pair) for pair in signal_and_background(histograms)]
        report["calibration"][split.label] = calibration
        metrics["brier"] = _total([one["brier"] for one in calibration])
        metrics["calibration_error"] = _mean([one["error"] for one in calibration])
        metrics["classification"] = classification_report(counts.scores.confusion[HELD_BACK.index(split)], names)
        if len(names) == 2:
            significance = scan(histograms[0, 1], histograms[0, 0], counts.scale(split))
            report["significance"][split.label] = significance
            metrics["significance"] = {**significance["best"], "yields": significance["yields"]}
            metrics["threshold"] = curves[0]["threshold"]
            metrics["working_points"] = curves[0]["working_points"]
        else:
            known = ("auc", "uncertainty", "threshold", "working_points")
            metrics["classes"] = [
                {"name": name, **{key: curve[key] for key in known}} for name, curve in zip(names, curves, strict=True)
            ]
        report["metrics"][split.label] = metrics
    test = report["metrics"][Split.TEST.label]
    test["overtraining"] = {
        "training_events": int(counts.training.events[0].sum()),
        "curves": overtraining(counts.training, _of(counts, Split.TEST)),
    }
    if counts.pairs is not None:
        test["pairwise_auc"] = pairwise_auc(counts.pairs, len(names))
    return report


def _of(counts: PartCounts, split: Split) -> Tally:
    """Return the histograms of a split, (curves, classes, bins)."""
    return counts.scores.histograms[HELD_BACK.index(split)]


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    total = _total(values)
    return None if total is None else total / len(values)
