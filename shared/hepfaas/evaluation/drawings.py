"""The list of all files that show a model, and how one of them is made. Pure. Modules that draw are imported by the
drawing itself: matplotlib and uproot take time."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.predictions import PredictionCounts
from hepfaas.runs.plot_labels import PlotLabels

Pictures = dict[str, bytes]
"""Files by name."""

History = Sequence[Mapping[str, float]]
"""Metrics by epoch."""

Drawing = tuple[str, tuple[Any, ...]]
"""A function of this room as '<module>.<function>', and its arguments. It returns `Pictures`."""


def drawings_of(
    report: Mapping[str, Any],
    counts: PartCounts,
    examined: Mapping[str, Any],
    trainings: Sequence[tuple[History, int]],
    *,
    names: Sequence[str],
    labels: PlotLabels,
) -> list[Drawing]:
    """Return the drawings of a model, the longest ones first. report: of `report_of`; examined: of the step `examine`;
    trainings: as of `plots.history`; names: of the classes."""
    test = report["metrics"]["test"]
    compared = test["overtraining"]["curves"]
    return [
        *[("plots.scores", (counts, compared, curve, names, labels)) for curve in range(len(compared))],
        ("plots.roc", (report["curves"], names, labels)),
        ("branch_plots.branches", (examined["branches"], names, labels)),
        ("branch_plots.efficiencies", (examined["branches"], names, labels)),
        ("branch_plots.scaled", (examined["scaled"], names, labels)),
        ("branch_plots.correlations", (examined["correlations"], names, labels)),
        ("branch_plots.sculpting", (examined["sculpting"], names, labels)),
        ("branch_plots.importance", (examined["importance"], labels)),
        ("plots.history", (trainings, labels)),
        ("plots.confusion", (test, names, labels)),
        ("plots.significance", (report["significance"], labels)),
        ("plots.calibration", (report["calibration"], names, labels)),
        ("root_file.histograms", (counts, examined["branches"], names)),
        ("classification.texts", (test["classification"],)),
    ]


def regression_drawings(
    counts: PredictionCounts,
    profiles: Sequence[Mapping[str, Any]],
    trainings: Sequence[tuple[History, int]],
    *,
    names: Sequence[str],
    labels: PlotLabels,
) -> list[Drawing]:
    """Return the drawings of a regression. profiles: of the step `examine`, for each target; names: of the targets."""
    drawings: list[Drawing] = [("plots.history", (trainings, labels))]
    for number, (name, profile) in enumerate(zip(names, profiles, strict=True)):
        ending = f"_{number}" if len(names) > 1 else ""
        drawings += [
            ("regression_plots.residuals", (counts, number, name, ending, labels)),
            ("regression_plots.predictions", (profile["plane"], name, ending, labels)),
            ("regression_plots.profiles", (profile["branches"], name, ending, labels)),
        ]
    return drawings


def drawn(drawing: Drawing) -> Pictures:
    """Return the files of a drawing."""
    place, arguments = drawing
    module, _, function = place.partition(".")
    files: Pictures = getattr(importlib.import_module(f"hepfaas.evaluation.{module}"), function)(*arguments)
    return files


def warm() -> None:
    """Import what drawing needs."""
    for module in ("plots", "branch_plots", "root_file"):
        importlib.import_module(f"hepfaas.evaluation.{module}")
