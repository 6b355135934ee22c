"""Plots of predicted numbers against true ones, as PNG and PDF. Pure: equal values give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hepfaas.evaluation.drawings import Pictures
from hepfaas.evaluation.predictions import PredictionCounts
from hepfaas.evaluation.regression import distribution as residual_yields
from hepfaas.evaluation.regression import distribution_variances as residual_variances
from hepfaas.evaluation.regression import regression_of
from hepfaas.evaluation.style import COLOURS, pictures, readable
from hepfaas.runs.plot_labels import PlotLabels
from hepfaas.runs.splits import Split

BINS = 25
USUAL = PlotLabels()


def residuals(counts: PredictionCounts, number: int, name: str, ending: str, labels: PlotLabels = USUAL) -> Pictures:
    """Plot the residuals of the target of this number: test events as a histogram, validation events as points.

    ending: of the pictures' names.
    """
    test, validation = (counts.of(split)[number] for split in (Split.TEST, Split.VALIDATION))
    metrics = regression_of(test)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        edges = _around(metrics, test.unit)
        shown = [(residual_yields(each, edges), residual_variances(each, edges)) for each in (validation, test)]
        label = "test" if metrics["rmse"] is None else f"test: bias {metrics['bias']:.3g}, RMSE {metrics['rmse']:.3g}"
        (points, errors), (heights, _) = (_density(*each) for each in shown)
        axes.stairs(heights, edges, fill=True, alpha=0.35, color=COLOURS[0])
        axes.stairs(heights, edges, color=COLOURS[0], linewidth=2, label=label)
        axes.errorbar((edges[1:] + edges[:-1]) / 2, points, yerr=errors, fmt="o", markersize=5, color=COLOURS[0])
        axes.axvline(0, ymax=1 / 1.3, color="black", linestyle=":")
        axes.set(
            xlim=(edges[0], edges[-1]),
            xlabel=f"Prediction $-$ {readable(labels.title(name))}",
            ylabel="Events, normalised",
        )
        axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
        axes.legend(loc="upper center", title="points: validation", title_fontsize=16)

    return pictures(f"residuals{ending}", draw, labels)


def _around(metrics: Mapping[str, Any], unit: float) -> Any:
    """Return the edges of bins that show most residuals."""
    middle, width = (metrics["median"], metrics["resolution"]) if metrics["median"] is not None else (0.0, 0.0)
    half = 4 * width or 100 * unit
    return np.linspace(middle - half, middle + half, 2 * BINS + 1)


def predictions(plane: Mapping[str, Any], name: str, ending: str, labels: PlotLabels = USUAL) -> Pictures:
    """Plot predicted against true values. plane: `edges` and `yields`, (true, predicted)."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        edges, yields = np.array(plane["edges"]), np.array(plane["yields"])
        shown = np.where(yields > 0, yields, np.nan)
        colours = axes.pcolormesh(edges, edges, shown.T, cmap="viridis", rasterized=True)
        axes.plot(edges[[0, -1]], edges[[0, -1]], ":", color="black")
        shown_name = readable(labels.title(name))
        axes.set(xlabel=shown_name, ylabel=f"Predicted {shown_name}")
        figure.colorbar(colours, ax=axes, label="Events", use_gridspec=False)  # the layout of `pictures` moves both

    return pictures(f"predictions{ending}", draw, labels, width=10)


def profiles(branches: Sequence[Mapping[str, Any]], name: str, ending: str, labels: PlotLabels = USUAL) -> Pictures:
    """Plot bias and resolution against the target itself, and, four to a page, against the other branches."""
    pages = [branches[:1], *(branches[start : start + 4] for start in range(1, len(branches), 4))]
    files: Pictures = {}
    for number, page in enumerate(pages):

        def draw(figure: Figure, page: Sequence[Mapping[str, Any]] = page) -> None:
            side = 1 if len(page) == 1 else 2
            panels = figure.subplots(side, side, squeeze=False).ravel()
            for axes, branch in zip(panels, page, strict=False):
                _draw_profile(axes, branch, name, labels)
            for axes in panels[len(page) :]:
                axes.set_axis_off()

        wide = len(page) > 1
        if page:
            files |= pictures(
                f"profile{ending}_{number}" if number else f"profile{ending}",
                draw,
                labels,
                width=16 if wide else 9,
                height=13 if wide else 8,
            )
    return files


def _draw_profile(axes: Axes, branch: Mapping[str, Any], name: str, labels: PlotLabels) -> None:
    for key, colour, marker in (("bias", COLOURS[0], "o"), ("resolution", COLOURS[1], "s")):
        bins = [each for each in branch["bins"] if each[key] is not None]
        low, high, values, errors = (
            np.array([each[part] for each in bins], dtype=float) for part in ("low", "high", key, f"{key}_uncertainty")
        )
        axes.errorbar(
            (low + high) / 2,
            values,
            xerr=(high - low) / 2,
            yerr=errors,
            fmt=marker,
            markersize=5,
            color=colour,
            label=key,
        )
    axes.axhline(0, color="black", linestyle=":")
    target, other = (readable(labels.title(each)) for each in (name, branch["branch"]))
    axes.set(xlabel=other, ylabel=f"{target}: prediction $-$ truth")
    axes.legend(loc="best")


def _density(yields: Any, variances: Any) -> tuple[Any, Any]:
    """Return the density in bins and its standard error, (bins,) each. Yields may be negative."""
    scale = BINS / yields.sum() if yields.sum() > 0 else 0.0
    return yields * scale, np.sqrt(variances) * scale
