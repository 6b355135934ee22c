"""Plots of a training in the field's style, as PNG and PDF. Pure: equal values give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hepfaas.training.metrics import ScoreCounts, distribution

COLOURS = ("#3f90da", "#e76300", "#94a4a2", "#832db6", "#a96b59", "#717581")
"""Told apart by everybody: Petroff, arXiv:2107.02270, as CMS uses them."""

BINS = 25
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}

Pictures = dict[str, bytes]


def roc(metrics: Mapping[str, Any], names: Sequence[str]) -> Pictures:
    """Signal efficiency against background rejection of each class and split; `metrics` as quality() gives them."""

    def draw(axes: Axes) -> None:
        lowest = 1.0
        for split, style in (("test", "-"), ("validation", "--")):
            for number, curve in enumerate(metrics[split]["curves"]):
                if curve["auc"] is None:
                    continue
                signal, background = np.array(curve["signal"]), np.array(curve["background"])
                shown = background > 0
                lowest = min(lowest, background[shown].min())
                axes.plot(
                    signal[shown],
                    1 / background[shown],
                    style,
                    color=COLOURS[(number + (split == "validation" and len(names) == 2)) % len(COLOURS)],
                    label=_curve_name(split, curve, names, number, len(metrics[split]["curves"])),
                )
        chance = np.linspace(lowest, 1, 200)
        axes.plot(chance, 1 / chance, ":", color="black", label="no separation")
        axes.set(xlim=(0, 1), xlabel="Signal efficiency", ylabel="Background rejection, 1 / efficiency", yscale="log")
        axes.set_ylim(1, 2 / lowest)
        axes.legend(loc="upper right")

    return _pictures("roc", draw)


def scores(counts: ScoreCounts, names: Sequence[str]) -> Pictures:
    """Distribution of the score by true class: test events filled, validation events as points with errors."""
    several = counts.histograms.shape[1] > 1
    pictures: Pictures = {}
    for curve in range(counts.histograms.shape[1]):

        def draw(axes: Axes, curve: int = curve) -> None:
            edges = np.linspace(0, 1, BINS + 1)
            for number, name in enumerate(names):
                validation, test = (distribution(counts.histograms[split, curve, number], BINS) for split in (0, 1))
                colour = COLOURS[number % len(COLOURS)]
                axes.stairs(_density(test), edges, fill=True, alpha=0.35, color=colour)
                axes.stairs(_density(test), edges, color=colour, linewidth=2, label=f"{name}, test")
                axes.errorbar(
                    (edges[1:] + edges[:-1]) / 2,
                    _density(validation),
                    yerr=_density(validation) / np.sqrt(np.maximum(validation, 1)),
                    fmt="o",
                    markersize=5,
                    color=colour,
                    label=f"{name}, validation",
                )
            axes.set(
                xlim=(0, 1), xlabel=f"Score of {names[curve] if several else names[-1]}", ylabel="Events, normalised"
            )
            axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
            axes.legend(loc="upper center", ncols=2)

        pictures |= _pictures(f"scores_{curve}" if several else "scores", draw)
    return pictures


def history(epochs: Sequence[Mapping[str, float]], best: int) -> Pictures:
    """Loss by epoch in training and validation; `best` (from 0) is the epoch that is published."""

    def draw(axes: Axes) -> None:
        numbers = np.arange(1, len(epochs) + 1)
        marker = "o" if len(epochs) < 40 else ""
        for name, key, style in (("training", "loss", "-"), ("validation", "val_loss", "--")):
            losses = [epoch[key] for epoch in epochs]
            axes.plot(numbers, losses, style, marker=marker, color=COLOURS[key != "loss"], label=name)
        axes.axvline(best + 1, color=COLOURS[2], linestyle=":", label=f"published: epoch {best + 1}")
        axes.set(xlabel="Epoch", ylabel="Loss", xlim=(0.5, len(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.minorticks_off()
        axes.legend(loc="upper right")

    return _pictures("loss", draw)


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Pictures:
    """True class against the class that the model says, as a share of the true class, with the counts of events."""

    def draw(axes: Axes) -> None:
        matrix = np.array(counts, dtype=float)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(matrix.shape):
            dark = shares[row, column] > 0.5
            text = f"{shares[row, column]:.1%}\n{int(matrix[row, column]):,}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.set(xlabel="Model says", ylabel="Truth")
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()

    return _pictures("confusion", draw)


def _pictures(name: str, draw: Callable[[Axes], None]) -> Pictures:
    with matplotlib.rc_context({**mplhep.style.CMS, "pdf.fonttype": 42, "font.size": 20, "legend.fontsize": 16}):
        figure = Figure(figsize=(9, 8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title("hepfaas", loc="left", fontweight="bold", fontsize=22)
        return {f"{name}.{kind}": _saved(figure, kind) for kind in FORMATS}


def _saved(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, **FORMATS[kind])
    return out.getvalue()


def _density(counts: Any) -> Any:
    return counts * (BINS / max(1, counts.sum()))


def _curve_name(split: str, curve: Mapping[str, Any], names: Sequence[str], number: int, curves: int) -> str:
    who = f"{names[number]}, {split}" if curves > 1 else split
    return f"{who}: AUC {curve['auc']:.3f} ± {curve['uncertainty']:.3f}"
