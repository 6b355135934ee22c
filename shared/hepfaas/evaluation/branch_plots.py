"""Plots of branches: their distributions, efficiencies, correlations and importances. Pure, as plots.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hepfaas.evaluation.branches import BranchHistogram, from_json
from hepfaas.evaluation.drawings import Pictures
from hepfaas.evaluation.sculpting import SLICES
from hepfaas.evaluation.style import (
    LONGEST_TITLE,
    PAGE,
    Panel,
    colour,
    pages,
    panel_pages,
    pictures,
    readable,
    shortened,
)
from hepfaas.evaluation.tally import Floats
from hepfaas.runs.plot_labels import PlotLabels

USUAL = PlotLabels()
LEAST_BARS, MOST_BARS = 8, 15
"""Branches and collections in the picture of importances, each; fewer leave room."""

MOST_COLUMNS = 25
"""Columns of a picture of correlations: the scores, and those that are correlated with them most."""

MOST_NUMBERS = 12
"""Columns of a picture of correlations that has the numbers, too."""


def branches(values: Sequence[Mapping[str, Any]], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the distribution of each branch by class, in its own unit. values: of `branches.to_json`."""
    return _histograms("branches", values, names, labels)


def scaled(values: Sequence[Mapping[str, Any]], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the distribution of each branch by class as the network sees it."""
    return _histograms("branches_scaled", values, names, replace(labels, titles=()))  # titles may have units


def efficiencies(values: Sequence[Mapping[str, Any]], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the efficiency of the selection against each branch, by class. values: of `branches.to_json`."""
    panels = [_efficiency(each, len(names), labels) for each in from_json(values)]
    return panel_pages("efficiencies", panels, _classes(names), labels, "Efficiency of the selection on the score")


def sculpting(values: Sequence[Mapping[str, Any]], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the distribution of the background against each spectator in slices of the score. values: of `sculpting`."""

    def panel(each: Mapping[str, Any]) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            edges = np.array(each["edges"])
            for number, (yields, variances) in enumerate(each["slices"]):
                total = sum(yields)
                if total > 0:
                    scale = 1 / (total * np.diff(edges))
                    axes.stairs(np.array(yields) * scale, edges, color=colour(number), linewidth=1.5)
                    axes.errorbar(
                        (edges[1:] + edges[:-1]) / 2,
                        np.array(yields) * scale,
                        yerr=np.sqrt(variances) * scale,
                        fmt="none",
                        elinewidth=1,
                        color=colour(number),
                    )
            axes.set(xlim=(edges[0], edges[-1]), ylabel="Background, normalised")
            axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
            of = f", score of {readable(names[each['curve']], 18)}" if len(names) > 2 else ""
            axes.set_title(f"{readable(labels.title(each['name']), 30)}{of}", loc="left", fontsize=12)
            if each["divergence"] is not None and each["chance"] is not None:
                text = (
                    f"JSD of passing and failing: {each['divergence']:.4f} bit\n"
                    f"expected by chance: {each['chance']:.4f}"
                )
                axes.text(0.97, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize=10)

        return draw

    shares = [f"{low:.0%} to {high:.0%}" for low, high in pairwise(SLICES)]
    legend = [(Line2D([], [], color=colour(number)), f"score {share}") for number, share in enumerate(shares)]
    return pages("sculpting", [panel(each) for each in values], legend, labels, grid=(2, 2))


def correlations(values: Mapping[str, Any], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the correlations of scores, spectators and branches in each class. values: of `correlations`."""
    chosen = _correlated(values, 1 if len(names) == 2 else len(names))
    columns = [readable(values["names"][place], 22) for place in chosen]

    def panel(number: int) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            matrix = np.array(values["classes"][number], dtype=float)[np.ix_(chosen, chosen)]
            image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
            size = 9 if len(columns) > MOST_NUMBERS else 11
            axes.set_xticks(
                range(len(columns)), columns, rotation=60, ha="right", fontsize=size, rotation_mode="anchor"
            )
            axes.set_yticks(range(len(columns)), columns, fontsize=size)
            axes.tick_params(which="both", length=0)
            axes.set_title(readable(names[number]), loc="left", fontsize=13)
            if len(columns) <= MOST_NUMBERS:
                for row, column in np.ndindex(matrix.shape):
                    value = matrix[row, column]
                    if np.isfinite(value):
                        dark = "white" if abs(value) > 0.6 else "black"
                        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=dark, fontsize=10)
            axes.figure.colorbar(image, ax=axes, pad=0.015)

        return draw

    panels = [panel(number) for number in range(len(names))]
    return pages("correlations", panels, [], labels, grid=(1, 1), left=0.17, bottom=0.23)


def importance(values: Mapping[str, Any], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the falls of the AUC without the information of a branch, and of a collection. values: of the step
    `examine`."""
    by_kind = {kind: [each for each in values["groups"] if each["kind"] == kind] for kind in ("branch", "collection")}
    panels = [(kind, sorted(each, key=lambda one: -one["fall"])[:MOST_BARS]) for kind, each in by_kind.items() if each]
    if not panels:
        return {}

    def draw(figure: Figure) -> None:
        for number, (kind, groups) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1)
            places = np.arange(len(groups))[::-1]
            falls, spreads = ([each[key] for each in groups] for key in ("fall", "spread"))
            axes.set_ylim(len(groups) - max(LEAST_BARS, len(groups)) - 0.8, len(groups) - 0.2)
            axes.barh(places, falls, xerr=spreads, color=colour(number), height=0.7)
            axes.set_yticks(places, [readable(each["name"]) for each in groups], fontsize=14)
            axes.axvline(0, color="black", linewidth=1)
            axes.tick_params(axis="y", which="both", length=0)
            axes.tick_params(axis="x", labelsize=14)
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            axes.minorticks_off()
            axes.set_xlabel(f"Fall of the AUC, {kind} permuted", fontsize=16)

    return pictures("importance", draw, labels, width=PAGE[0], height=PAGE[1])


def _histograms(name: str, values: Sequence[Mapping[str, Any]], names: Sequence[str], labels: PlotLabels) -> Pictures:
    panels = [_histogram(each, len(names), labels) for each in from_json(values)]
    return panel_pages(name, panels, _classes(names), labels, "Each class is normalised to the same area")


def _histogram(histogram: BranchHistogram, n_classes: int, labels: PlotLabels) -> Panel:
    edges, totals = histogram.edges, histogram.yields.sum(axis=1)
    densities = {n: histogram.yields[n] / (totals[n] * np.diff(edges)) for n in range(n_classes) if totals[n] > 0}
    highest = max((float(density.max()) for density in densities.values()), default=0.0) or 1.0
    outside = f" ({histogram.outside:.1%} outside)" if histogram.outside >= 0.001 else ""
    return Panel(
        title=shortened(labels.title(histogram.name), LONGEST_TITLE - len(outside)) + outside,
        low=float(edges[0]),
        high=float(edges[-1]),
        whole=_is_whole(edges),
        lines=[
            (np.repeat(edges, 2)[1:-1], np.repeat(density / (1.1 * highest), 2), colour(number), number == 0)
            for number, density in densities.items()
        ],
    )


def _efficiency(histogram: BranchHistogram, n_classes: int, labels: PlotLabels) -> Panel:
    edges = histogram.edges
    efficiency, error = histogram.efficiency()
    known = histogram.is_known
    centres = (edges[1:] + edges[:-1]) / 2
    return Panel(
        title=labels.title(histogram.name),
        low=float(edges[0]),
        high=float(edges[-1]),
        whole=_is_whole(edges),
        top=1.0,
        points=[(centres[known[n]], efficiency[n][known[n]], error[n][known[n]], colour(n)) for n in range(n_classes)],
    )


def _is_whole(edges: Floats) -> bool:
    """Return whether the bins are around whole numbers."""
    return bool((edges % 1 == 0.5).all())


def _classes(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the legend of the classes."""
    return [(readable(name), colour(number)) for number, name in enumerate(names)]


def _correlated(values: Mapping[str, Any], n_scores: int) -> list[int]:
    """Return the columns that are shown, in order."""
    matrices = np.array(values["classes"], dtype=float)  # None becomes NaN
    with_scores = np.nan_to_num(np.abs(matrices[:, :n_scores])).max(axis=(0, 1))
    with_scores[:n_scores] = 2
    return sorted(np.argsort(-with_scores, kind="stable")[:MOST_COLUMNS].tolist())
