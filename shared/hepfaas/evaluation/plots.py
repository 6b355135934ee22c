"""Plots of a training in the field's style, as PNG and PDF. Pure: equal values give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from hepfaas.evaluation.counts import ScoreCounts, distribution
from hepfaas.evaluation.metrics import rejections_of
from hepfaas.evaluation.predictions import PredictionCounts
from hepfaas.evaluation.regression import distribution as residual_yields
from hepfaas.evaluation.regression import distribution_variances as residual_variances
from hepfaas.evaluation.regression import regression_of
from hepfaas.evaluation.tally import Tally
from hepfaas.runs.splits import Split

COLOURS = (
    "#3f90da", "#e76300", "#832db6", "#94a4a2", "#bd1f01", "#a96b59", "#ffa90e", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that colour-blind readers can distinguish too: Petroff, arXiv:2107.02270, as used by CMS."""

BINS = 25
LONGEST_NAME = 26
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}

Pictures = dict[str, bytes]
Yields = tuple[Any, Any]
"""Sums of weights and their variances, (bins,) each."""

SCORE_EDGES = np.linspace(0, 1, BINS + 1)


def roc(curves: Mapping[str, Any], names: Sequence[str]) -> Pictures:
    """Plot signal efficiency against background rejection, and against background efficiency, of each class and split.

    curves: values of `Curve`, by split.
    """

    def rejections(figure: Figure) -> None:
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

    return _pictures("roc", rejections) | _pictures("roc_efficiencies", classical)


def scores(counts: ScoreCounts, names: Sequence[str]) -> Pictures:
    """Plot the score by true class: test events as histograms, validation events as points with errors."""
    several = counts.histograms.events.shape[1] > 1
    pictures: Pictures = {}
    for curve in range(counts.histograms.events.shape[1]):

        def draw(figure: Figure, curve: int = curve) -> None:
            axes = figure.add_subplot()
            for number, name in enumerate(names):
                filled = not several or number == curve
                _draw_class(
                    axes,
                    validation=_in_bins(counts.histograms[0, curve, number]),
                    test=_in_bins(counts.histograms[1, curve, number]),
                    name=_readable(name),
                    colour=COLOURS[number % len(COLOURS)],
                    filled=filled,
                )
            score_of = _readable(names[curve] if several else names[-1])
            axes.set(xlim=(0, 1), xlabel=f"Score of {score_of}", ylabel="Events, normalised")
            columns = 1 if max(map(len, names)) > 20 else 2
            axes.set_ylim(0, axes.get_ylim()[1] * (1.2 + 0.1 * len(names) / columns))
            axes.legend(loc="upper center", ncols=columns, title="test (points: validation)", title_fontsize=16)

        pictures |= _pictures(f"scores_{curve}" if several else "scores", draw)
    return pictures


def history(epochs: Sequence[Mapping[str, float]], best: int) -> Pictures:
    """Plot the loss by epoch in training and validation, and below it accuracies and AUC if the model has them.

    best: number of the published epoch, from 0.
    """
    further = [name for name in epochs[0] if ("acc" in name or "auc" in name) and not name.startswith("val_")]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2 if further else 1, 1, sharex=True, squeeze=False)[:, 0]
        _draw_epochs(panels[0], epochs, {"loss": ""})
        panels[0].set(ylabel="Loss")
        if further:
            _draw_epochs(panels[1], epochs, {name: f"{name}, " for name in further})
            panels[1].set(ylabel="Metric")
        for axes in panels:
            axes.axvline(best + 1, color="black", linestyle=":", label=f"published: epoch {best + 1}")
            axes.legend(loc="best")
        panels[-1].set(xlabel="Epoch", xlim=(0.5, len(epochs) + 0.5))
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

    return _pictures("loss", draw, height=11 if further else 8)


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Pictures:
    """Plot true class against predicted class, as shares of the true class, with the numbers of events."""
    readable = [_readable(name) for name in names]
    side = max(9.0, 1.2 * len(names) + 2)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        matrix = np.array(counts, dtype=float)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(matrix.shape):
            text = f"{shares[row, column]:.1%}\n{int(matrix[row, column]):,}"
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour)
        crowded = len(names) * max(map(len, readable)) > 7 * side
        axes.set_xticks(range(len(names)), readable, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.set_yticks(range(len(names)), readable, rotation=0 if crowded else 90, va="center")
        axes.set(xlabel="Model says", ylabel="Truth")
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()

    return _pictures("confusion", draw, width=side, height=side - 1)


def residuals(counts: PredictionCounts, number: int, name: str, ending: str) -> Pictures:
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
        _draw_class(axes, validation=shown[0], test=shown[1], name=label, colour=COLOURS[0], filled=True, edges=edges)
        axes.axvline(0, ymax=1 / 1.3, color="black", linestyle=":")
        axes.set(xlim=(edges[0], edges[-1]), xlabel=f"Prediction $-$ {_readable(name)}", ylabel="Events, normalised")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
        axes.legend(loc="upper center", title="points: validation", title_fontsize=16)

    return _pictures(f"residuals{ending}", draw)


def _around(metrics: Mapping[str, Any], unit: float) -> Any:
    """Return the edges of bins that show most residuals."""
    middle, width = (metrics["median"], metrics["resolution"]) if metrics["median"] is not None else (0.0, 0.0)
    half = 4 * width or 100 * unit
    return np.linspace(middle - half, middle + half, 2 * BINS + 1)


def predictions(plane: Mapping[str, Any], name: str, ending: str) -> Pictures:
    """Plot predicted against true values. plane: `edges` and `yields`, (true, predicted)."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        edges, yields = np.array(plane["edges"]), np.array(plane["yields"])
        shown = np.where(yields > 0, yields, np.nan)
        colours = axes.pcolormesh(edges, edges, shown.T, cmap="viridis", rasterized=True)
        axes.plot(edges[[0, -1]], edges[[0, -1]], ":", color="black")
        axes.set(xlabel=_readable(name), ylabel=f"Predicted {_readable(name)}")
        figure.colorbar(colours, ax=axes, label="Events", use_gridspec=False)  # the layout of `_pictures` moves both

    return _pictures(f"predictions{ending}", draw, width=10)


def profiles(branches: Sequence[Mapping[str, Any]], name: str, ending: str) -> Pictures:
    """Plot bias and resolution against the target itself, and, four to a page, against the other branches."""
    pages = [branches[:1], *(branches[start : start + 4] for start in range(1, len(branches), 4))]
    pictures: Pictures = {}
    for number, page in enumerate(pages):

        def draw(figure: Figure, page: Sequence[Mapping[str, Any]] = page) -> None:
            side = 1 if len(page) == 1 else 2
            panels = figure.subplots(side, side, squeeze=False).ravel()
            for axes, branch in zip(panels, page, strict=False):
                _draw_profile(axes, branch, name)
            for axes in panels[len(page) :]:
                axes.set_axis_off()

        wide = len(page) > 1
        if page:
            pictures |= _pictures(
                f"profile{ending}_{number}" if number else f"profile{ending}",
                draw,
                width=16 if wide else 9,
                height=13 if wide else 8,
            )
    return pictures


def _draw_profile(axes: Axes, branch: Mapping[str, Any], name: str) -> None:
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
    axes.set(xlabel=_readable(branch["branch"]), ylabel=f"{_readable(name)}: prediction $-$ truth")
    axes.legend(loc="best")


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
                label = f"{_readable(names[number])}: {auc}" if split == "test" else None
                yield curve, {"linestyle": line, "color": COLOURS[number % len(COLOURS)], "label": label}


def _legend(axes: Axes, names: Sequence[str], loc: Literal["upper right", "lower right"]) -> None:
    axes.legend(loc=loc, title="test (dashed: validation)" if len(names) > 2 else None, title_fontsize=16)


def _draw_class(
    axes: Axes, *, validation: Yields, test: Yields, name: str, colour: str, filled: bool, edges: Any = SCORE_EDGES
) -> None:
    heights, _ = _density(*test)
    if filled:
        axes.stairs(heights, edges, fill=True, alpha=0.35, color=colour)
    axes.stairs(heights, edges, color=colour, linewidth=2, label=name)
    points, errors = _density(*validation)
    axes.errorbar((edges[1:] + edges[:-1]) / 2, points, yerr=errors, fmt="o", markersize=5, color=colour)


def _density(yields: Any, variances: Any) -> Yields:
    """Return the density in bins and its standard error, (bins,) each. Yields may be negative."""
    scale = BINS / yields.sum() if yields.sum() > 0 else 0.0
    return yields * scale, np.sqrt(variances) * scale


def _in_bins(tally: Tally) -> Yields:
    return distribution(tally.yields, BINS), distribution(tally.variances, BINS)


def _draw_epochs(axes: Axes, epochs: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> None:
    """Draw a line for each metric. names: by key, the text before 'training' or 'validation' in the legend."""
    numbers = np.arange(1, len(epochs) + 1)
    marker = "o" if len(epochs) < 40 else ""
    for number, (key, text) in enumerate(names.items()):
        for name, prefix, style in (("training", "", "-"), ("validation", "val_", "--")):
            values = [epoch[prefix + key] for epoch in epochs]
            colour = COLOURS[(2 * number + bool(prefix)) % len(COLOURS)]
            axes.plot(numbers, values, style, marker=marker, color=colour, label=f"{_readable(text)}{name}")
    axes.minorticks_off()


def _pictures(name: str, draw: Callable[[Figure], None], width: float = 9, height: float = 8) -> Pictures:
    with matplotlib.rc_context({**mplhep.style.CMS, "pdf.fonttype": 42, "font.size": 20, "legend.fontsize": 16}):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        draw(figure)
        figure.axes[0].set_title("hepfaas", loc="left", fontweight="bold", fontsize=22)
        ConstrainedLayoutEngine().execute(figure)  # once; as the figure's own layout, each format would compute it
        return {f"{name}.{kind}": _saved(figure, kind) for kind in FORMATS}


def _saved(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, **FORMATS[kind])
    return out.getvalue()


def _readable(name: str) -> str:
    """Return the name without its middle if it is long; '$' is escaped, so that it does not start a formula."""
    half = LONGEST_NAME // 2
    short = name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half + 1 :]}"
    return short.replace("$", r"\$")
