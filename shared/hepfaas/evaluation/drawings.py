"""The list of all files that show a model, and how one of them is made. Pure. Modules that draw are imported by the
drawing itself: matplotlib and uproot take time."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.predictions import PredictionCounts

Pictures = dict[str, bytes]
"""Files by name."""

Drawing = tuple[str, tuple[Any, ...]]
"""A function of this room as '<module>.<function>', and its arguments. It returns `Pictures`."""


@dataclass(frozen=True)
class PlotLabels:
    """Texts above a picture. label: of the experiment. luminosity: integrated, in 1/fb. energy: of the collisions in
    TeV."""

    label: str = "hepfaas"
    luminosity: float | None = None
    energy: float | None = None

    @property
    def right(self) -> str:
        """Luminosity and energy as text, '' without both."""
        luminosity = "" if self.luminosity is None else f"{self.luminosity:.4g} fb$^{{-1}}$"
        energy = "" if self.energy is None else f"({self.energy:.4g} TeV)"
        return f"{luminosity} {energy}".strip()


def drawings_of(
    report: Mapping[str, Any],
    counts: PartCounts,
    examined: Mapping[str, Any],
    epochs: Sequence[Mapping[str, float]],
    *,
    best_epoch: int,
    names: Sequence[str],
    labels: PlotLabels,
) -> list[Drawing]:
    """Return the drawings of a model, the longest ones first. report: of `report_of`; examined: of the step `examine`;
    names: of the classes."""
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
        ("plots.history", (epochs, best_epoch, labels)),
        ("plots.confusion", (test, names, labels)),
        ("plots.significance", (report["significance"], labels)),
        ("plots.calibration", (report["calibration"], names, labels)),
        ("root_file.histograms", (counts, examined["branches"], names)),
        ("classification.texts", (test["classification"],)),
    ]


def regression_drawings(
    counts: PredictionCounts,
    profiles: Sequence[Mapping[str, Any]],
    epochs: Sequence[Mapping[str, float]],
    *,
    best_epoch: int,
    names: Sequence[str],
    labels: PlotLabels,
) -> list[Drawing]:
    """Return the drawings of a regression. profiles: of the step `examine`, for each target; names: of the targets."""
    drawings: list[Drawing] = [("plots.history", (epochs, best_epoch, labels))]
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
