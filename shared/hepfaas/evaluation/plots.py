"""Plots of scores and of the training. Pure: equal values give equal bytes. Each function returns files by name and is
independent of the others, so that they can be drawn at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hepfaas.evaluation.counts import distribution
from hepfaas.evaluation.drawings import History, Pictures
from hepfaas.evaluation.metrics import rejections_of
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.style import COLOURS, colour, pictures, readable
from hepfaas.evaluation.tally import Tally
from hepfaas.runs.plot_labels import PlotLabels
from hepfaas.runs.splits import HELD_BACK, Split

BINS = 25
MOST_ERROR = 0.3
"""Largest standard error of a fraction that is drawn."""

USUAL = PlotLabels()
MEASURES = {
    "s_over_sqrt_b": "S/√B",
    "s_over_sqrt_s_plus_b": "S/√(S+B)",
    "asimov": "Asimov",
    "ams": "AMS",
}


def roc(curves: Mapping[str, Any], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot signal efficiency against background rejection, and against background efficiency, of each class and split.

    curves: values of `Curve`, by split.
    """

    def rejection(figure: Figure) -> None:
        axes = figure.add_subplot()
        lowest = 1.0
        for curve, style in _curves(curves, names):
            signal, rejection = rejections_of(curve)
            lowest = min(lowest, 1 / rejection.max(initial=1.0))
            axes.plot(signal, rejection, **style)
        chance = np.linspace(lowest, 1, 200)
        axes.plot(chance, 1 / chance, ":", color="black", label="no separation")
        axes.set(xlim=(0, 1), xlabel="Signal efficiency", ylabel="Background rejection, 1 / efficiency", yscale="log")
        axes.set_ylim(1, 2 / lowest)
        _legend(axes, names, "upper right")

    def classical(figure: Figure) -> None:
        axes = figure.add_subplot()
        for curve, style in _curves(curves, names):
            axes.plot(curve["background"], curve["signal"], **style)
        axes.plot([0, 1], [0, 1], ":", color="black", label="no separation")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Background efficiency", ylabel="Signal efficiency")
        _legend(axes, names, "lower right")

    return pictures("roc", rejection, labels) | pictures("roc_efficiencies", classical, labels)


def scores(
    counts: PartCounts, overtraining: Sequence[Any], curve: int, names: Sequence[str], labels: PlotLabels = USUAL
) -> Pictures:
    """Plot the score of one curve by true class: test events as histograms, training events as points with errors.

    overtraining: of `overtraining`, for each curve and class.
    """
    test, training = counts.scores.histograms[HELD_BACK.index(Split.TEST)], counts.training
    several = len(test.events) > 1

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            compared = overtraining[curve][number]
            _draw_class(
                axes,
                test=test[curve, number],
                training=training[curve, number],
                name=readable(name) + (f"  (KS p = {compared['probability']:.2g})" if compared else ""),
                colour=colour(number),
                filled=not several or number == curve,
            )
        score_of = readable(names[curve] if several else names[-1])
        axes.set(xlim=(0, 1), xlabel=f"Score of {score_of}", ylabel="Events, normalised")
        axes.set_ylim(0, axes.get_ylim()[1] * (1.2 + 0.075 * len(names)))
        axes.legend(loc="upper center", title="test (points: training)", title_fontsize=16)

    return pictures(f"scores_{curve}" if several else "scores", draw, labels)


def history(trainings: Sequence[tuple[History, int]], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the loss by epoch in training and validation, and below it accuracies and AUC if the model has them.

    trainings: of each fold, or the only one: metrics by epoch, and the number of the published epoch, from 0.
    """
    first = trainings[0][0][0]
    further = [name for name in first if ("acc" in name or "auc" in name) and not name.startswith("val_")]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2 if further else 1, 1, sharex=True, squeeze=False)[:, 0]
        _draw_epochs(panels[0], trainings, {"loss": ""})
        panels[0].set(ylabel="Loss")
        if further:
            _draw_epochs(panels[1], trainings, {name: f"{name}, " for name in further})
            panels[1].set(ylabel="Metric")
        for axes in panels:
            if len(trainings) == 1:
                best = trainings[0][1] + 1
                axes.axvline(best, color="black", linestyle=":", label=f"published: epoch {best}")
            axes.legend(loc="best")
        panels[-1].set(xlabel="Epoch", xlim=(0.5, max(len(epochs) for epochs, _ in trainings) + 0.5))
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

    return pictures("loss", draw, labels, height=11 if further else 8)


def confusion(metrics: Mapping[str, Any], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot true class against predicted class, as shares of the true class, with the numbers of events; with weights
    the shares are those of the sums of weights. metrics: of `quality`."""
    shown = [readable(name) for name in names]
    side = max(9.0, 1.2 * len(names) + 2)
    events = np.array(metrics["confusion"])
    matrix = np.array(metrics.get("weighted_confusion", events), dtype=float)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(matrix.shape):
            text = f"{shares[row, column]:.1%}\n{events[row, column]:,}"
            dark = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=dark)
        crowded = len(names) * max(map(len, shown)) > 7 * side
        axes.set_xticks(range(len(names)), shown, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.set_yticks(range(len(names)), shown, rotation=0 if crowded else 90, va="center")
        weighted = ", shares by weight" if "weighted_confusion" in metrics else ""
        axes.set(xlabel=f"Model says{weighted}", ylabel="Truth")
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()

    return pictures("confusion", draw, labels, width=side, height=side - 1)


def significance(scans: Mapping[str, Any], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the significances of the test sample against the threshold. scans: of `scan`, by split."""
    scan = scans.get("test")
    if not scan or not scan["points"]["threshold"]:
        return {}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        thresholds = scan["points"]["threshold"]
        for number, (name, text) in enumerate(MEASURES.items()):
            best = scan["best"][name]
            label = f"{text}: {best['value']:.3g} at {best['threshold']:.3g}"
            axes.plot(thresholds, scan["points"][name], color=colour(number), label=label)
            axes.plot([best["threshold"]], [best["value"]], "o", color=colour(number))
        axes.set(xlim=(0, 1), xlabel="Threshold on the score", ylabel="Significance")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
        axes.legend(loc="upper left", title=f"from {scan['yields']}", title_fontsize=16)

    return pictures("significance", draw, labels)


def calibration(values: Mapping[str, Any], names: Sequence[str], labels: PlotLabels = USUAL) -> Pictures:
    """Plot the fraction of signal events against the mean score, of the test sample. values: of `calibration_of` for
    each curve, by split."""
    curves = values["test"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, curve in enumerate(curves):
            if not curve["bins"]:
                continue
            error = f"calibration error {curve['error']:.3f}"
            name = f"{readable(names[number])}: {error}" if len(curves) > 1 else error
            known = [each for each in curve["bins"] if each["uncertainty"] < MOST_ERROR]
            x, y, spread = ([each[key] for each in known] for key in ("score", "fraction", "uncertainty"))
            axes.errorbar(x, y, yerr=spread, fmt="o-", markersize=6, linewidth=1, color=colour(number), label=name)
        axes.plot([0, 1], [0, 1], ":", color="black", label="calibrated")
        axes.set(xlim=(0, 1), ylim=(0, 1.1 + 0.11 * len(curves)))
        axes.set(xlabel="Mean score", ylabel="Fraction of signal events")
        axes.legend(loc="upper left")

    return pictures("calibration", draw, labels)


def _curves(curves: Mapping[str, Any], names: Sequence[str]) -> Iterable[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Yield the non-empty curves with their line styles. With several classes only those of test events have a label,
    since `_legend` explains the others."""
    for split, line in (("test", "-"), ("validation", "--")):
        for number, curve in enumerate(curves[split]):
            if curve["auc"] is None:
                continue
            auc = f"AUC {curve['auc']:.3f} ± {curve['uncertainty']:.3f}"
            if len(curves[split]) == 1:
                yield curve, {"linestyle": line, "color": COLOURS[int(line == "--")], "label": f"{split}: {auc}"}
            else:
                label = f"{readable(names[number])}: {auc}" if split == "test" else None
                yield curve, {"linestyle": line, "color": colour(number), "label": label}


def _legend(axes: Axes, names: Sequence[str], loc: Literal["upper right", "lower right"]) -> None:
    axes.legend(loc=loc, title="test (dashed: validation)" if len(names) > 2 else None, title_fontsize=16)


def _draw_class(axes: Axes, *, test: Tally, training: Tally, name: str, colour: str, filled: bool) -> None:
    edges = np.linspace(0, 1, BINS + 1)
    heights, _ = _density(test)
    if filled:
        axes.stairs(heights, edges, fill=True, alpha=0.35, color=colour)
    axes.stairs(heights, edges, color=colour, linewidth=2, label=name)
    points, errors = _density(training)
    axes.errorbar((edges[1:] + edges[:-1]) / 2, points, yerr=errors, fmt="o", markersize=5, color=colour)


def _density(tally: Tally) -> tuple[Any, Any]:
    """Return the density of the scores and its standard error, (bins,) each."""
    yields = distribution(tally.yields, BINS)
    scale = BINS / yields.sum() if yields.sum() > 0 else 0.0
    return yields * scale, np.sqrt(distribution(tally.variances, BINS)) * scale


def _draw_epochs(axes: Axes, trainings: Sequence[tuple[History, int]], names: Mapping[str, str]) -> None:
    """Draw a line for each metric and fold; with folds, a marker shows the published epoch of each.

    names: by key, the text before 'training' or 'validation' in the legend.
    """
    n_folds = len(trainings)
    of = f", {n_folds} folds" if n_folds > 1 else ""
    for number, (key, text) in enumerate(names.items()):
        for name, prefix, style in (("training", "", "-"), ("validation", "val_", "--")):
            for fold, (epochs, best) in enumerate(trainings):
                axes.plot(
                    np.arange(1, len(epochs) + 1),
                    [epoch[prefix + key] for epoch in epochs],
                    style,
                    marker="o" if n_folds > 1 or len(epochs) < 40 else "",
                    markevery=[best] if n_folds > 1 else None,
                    linewidth=1 if n_folds > 1 else None,
                    color=colour(2 * number + bool(prefix)),
                    label="" if fold else f"{readable(text)}{name}{of}",
                )
    axes.minorticks_off()
