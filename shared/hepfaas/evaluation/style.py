"""Style, labels and colours of all pictures; PNG and PDF output. Pure: equal values give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hepfaas.evaluation.drawings import Pictures
from hepfaas.evaluation.tally import Floats
from hepfaas.runs.plot_labels import PlotLabels

COLOURS = (
    "#3f90da", "#e76300", "#832db6", "#94a4a2", "#bd1f01", "#a96b59", "#ffa90e", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that colour-blind readers can distinguish too: Petroff, arXiv:2107.02270, as used by CMS."""

LONGEST_NAME = 26
PAGE = (13.33, 7.5)
"""Width and height of a slide in inches."""

ROWS, COLUMNS = 3, 4
"""Panels of a page."""

PANEL = (2.75, 1.35)
"""Width and height of the frame of a panel in inches."""

LEGEND_COLUMNS = 5
"""Names side by side above the panels of a page."""

LONGEST_TITLE = 32
"""Characters above a panel."""

PNG: Mapping[str, Any] = {"dpi": 150, "metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
"""Options of PNG files. Compression of level 6, the usual one, takes longer by a half, for files a seventh smaller."""

PDF: Mapping[str, Any] = {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}}
RULES = {**mplhep.style.CMS, "pdf.fonttype": 3, "font.size": 20, "legend.fontsize": 16}
"""Fonts are of type 3: those of the style have outlines that a TrueType font (type 42) in a PDF file must not have, and
their subsets take long."""

SMALL = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 11,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "xtick.major.size": 4,
    "ytick.major.size": 4,
    "axes.linewidth": 1,
}
"""Matplotlib settings for pages with several panels."""


def pictures(
    name: str, draw: Callable[[Figure], None], labels: PlotLabels, width: float = 9, height: float = 8
) -> Pictures:
    """Return what `draw` draws on a figure as PNG and PDF, with the labels above its first axes."""
    with matplotlib.rc_context(RULES):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        draw(figure)
        figure.axes[0].set_title(readable(labels.label), loc="left", fontweight="bold", fontsize=22)
        if labels.right:
            figure.axes[0].set_title(labels.right, loc="right", fontsize=18)
        ConstrainedLayoutEngine().execute(figure)  # once; as the figure's own layout, each format would compute it
        return {f"{name}.png": _saved(figure, "png", PNG), f"{name}.pdf": _saved(figure, "pdf", PDF)}


def pages(
    name: str,
    panels: Sequence[Callable[[Axes], None]],
    legend: Sequence[tuple[Any, str]],
    labels: PlotLabels,
    grid: tuple[int, int],
    left: float = 0.06,
    bottom: float = 0.07,
) -> Pictures:
    """Return a PDF with all panels on pages of a slide's size, and a PNG of the first page. Each function draws one
    panel. legend: of all panels, above them."""
    if not panels:
        return {}
    per_page = grid[0] * grid[1]
    out, png = io.BytesIO(), b""
    with matplotlib.rc_context(RULES | SMALL), PdfPages(out, metadata=dict(PDF["metadata"])) as file:
        for first in range(0, len(panels), per_page):
            figure = _blank_page(legend, labels)
            figure.subplots_adjust(left=left, right=0.985, bottom=bottom, top=0.83, wspace=0.15, hspace=0.3)
            for number, draw in enumerate(panels[first : first + per_page]):
                draw(figure.add_subplot(*grid, number + 1))
            png = png or _saved(figure, "png", PNG)
            file.savefig(figure)
    return {f"{name}.png": png, f"{name}.pdf": out.getvalue()}


Shape = tuple[Floats, str]
"""Points on a page in inches, (points, 2), and their colour."""

_KINDS = ("frames", "lines", "bars", "areas", "marks")
"""Shapes of a panel. All of one kind on a page are drawn as one artist."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A small picture of a page.

    title: above it. low, high: range of the x axis. whole: whether its ticks are whole numbers. top: of the y axis,
    which begins at 0; 0 for one without ticks, up to 1. lines: x and y of a line, its colour, and whether the area
    below it is filled. points: x, y, standard error, and their colour.
    """

    title: str
    low: float
    high: float
    whole: bool = False
    top: float = 0.0
    lines: Sequence[tuple[Floats, Floats, str, bool]] = ()
    points: Sequence[tuple[Floats, Floats, Floats, str]] = ()


def panel_pages(
    name: str, panels: Sequence[Panel], legend: Sequence[tuple[str, str]], labels: PlotLabels, note: str = ""
) -> Pictures:
    """Return a PDF with twelve panels on each page, and a PNG of the first page. legend: names and colours. note: below
    the legend.

    The panels of a page share one system of axes: axes for each of them would take ten times as long.
    """
    if not panels:
        return {}
    out, png = io.BytesIO(), b""
    with matplotlib.rc_context(RULES | SMALL), PdfPages(out, metadata=dict(PDF["metadata"])) as file:
        for first in range(0, len(panels), ROWS * COLUMNS):
            handles = [(Line2D([], [], color=colour, linewidth=3), text) for text, colour in legend]
            figure = _blank_page(handles, labels)
            axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE[0]), ylim=(0, PAGE[1]))
            axes.set_axis_off()
            axes.text(0.5, 0.16, note, fontsize=11, va="center")
            places = [(0.5 + 3.2 * column, 4.75 - 2.05 * row) for row, column in np.ndindex(ROWS, COLUMNS)]
            page = panels[first : first + ROWS * COLUMNS]
            _draw_panels(axes, [(panel, *place) for panel, place in zip(page, places, strict=False)])
            png = png or _saved(figure, "png", PNG)
            file.savefig(figure)
    return {f"{name}.png": png, f"{name}.pdf": out.getvalue()}


def _draw_panels(axes: Axes, panels: Sequence[tuple[Panel, float, float]]) -> None:
    """Draw the panels of a page, each with the place of its lower left corner, in inches. Shapes of one kind are one
    artist, which takes about a millisecond."""
    shapes = [_shapes(*each) for each in panels]
    frames, lines, bars, areas, marks = ([one for each in shapes for one in each[kind]] for kind in _KINDS)
    for kind, width in ((frames, 0.8), (lines, 1.3), (bars, 1)):
        axes.add_collection(LineCollection(_points(kind), colors=_colours(kind), linewidths=width), autolim=False)
    axes.add_collection(
        PolyCollection(_points(areas), facecolors=_colours(areas), alpha=0.35, zorder=0.9), autolim=False
    )
    for colour in dict.fromkeys(_colours(marks)):
        places = np.concatenate([points for points, of in marks if of == colour])
        axes.plot(*places.T, ".", markersize=4, color=colour)
    for panel, left, bottom in panels:
        _write(axes, panel, left, bottom)


def _shapes(panel: Panel, left: float, bottom: float) -> Mapping[str, Sequence[Shape]]:
    """Return the shapes of a panel by kind."""
    lines = [(_placed(panel, left, bottom, x, y), colour) for x, y, colour, _ in panel.lines]
    areas = [
        (np.concatenate([line, [[line[-1, 0], bottom], [line[0, 0], bottom]]]), colour)
        for (line, colour), (*_, is_filled) in zip(lines, panel.lines, strict=True)
        if is_filled
    ]
    ends = [
        ([_placed(panel, left, bottom, x, y + sign * error) for sign in (-1, 1)], colour)
        for x, y, error, colour in panel.points
    ]
    return {
        "frames": [(np.array(line), "black") for line in _frame(panel, left, bottom)],
        "lines": lines,
        "bars": [(bar, colour) for low_and_high, colour in ends for bar in np.stack(low_and_high, axis=1)],
        "areas": areas,
        "marks": [(_placed(panel, left, bottom, x, y), colour) for x, y, _, colour in panel.points],
    }


def _placed(panel: Panel, left: float, bottom: float, x: Floats, y: Floats) -> Floats:
    """Return points of a panel as places on the page, (points, 2)."""
    width, height = PANEL
    across = left + (x - panel.low) * (width / (panel.high - panel.low))
    return np.column_stack([across, bottom + np.clip(y * (height / (panel.top or 1.0)), 0, height)])


def _points(shapes: Sequence[Shape]) -> list[Floats]:
    return [points for points, _ in shapes]


def _colours(shapes: Sequence[Shape]) -> list[str]:
    return [colour for _, colour in shapes]


def _write(axes: Axes, panel: Panel, left: float, bottom: float) -> None:
    """Write the title of a panel and the numbers at its ticks."""
    axes.text(left, bottom + PANEL[1] + 0.08, readable(panel.title, LONGEST_TITLE), fontsize=11, va="bottom")
    for value, place in _ticks(panel, left):
        axes.text(place, bottom - 0.07, f"{value:.6g}", fontsize=9, ha="center", va="top")
    for value, level in _levels(panel, bottom):
        axes.text(left - 0.05, level, f"{value:.3g}", fontsize=9, ha="right", va="center")


def _ticks(panel: Panel, left: float) -> list[tuple[float, float]]:
    """Return the values at the ticks of the x axis, and their places on the page."""
    values = MaxNLocator(4, integer=panel.whole).tick_values(panel.low, panel.high)
    scale = PANEL[0] / (panel.high - panel.low)
    return [(value, left + (value - panel.low) * scale) for value in values if panel.low <= value <= panel.high]


def _levels(panel: Panel, bottom: float) -> list[tuple[float, float]]:
    """Return the values at the ticks of the y axis, and their places on the page."""
    return [(value, bottom + value * (PANEL[1] / panel.top)) for value in (panel.top / 2, panel.top) if value]


def _frame(panel: Panel, left: float, bottom: float) -> list[list[tuple[float, float]]]:
    """Return the lines of the frame and its ticks."""
    right, top = left + PANEL[0], bottom + PANEL[1]
    return [
        [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)],
        *[[(place, bottom), (place, bottom + 0.06)] for _, place in _ticks(panel, left)],
        *[[(left, level), (left + 0.06, level)] for _, level in _levels(panel, bottom)],
    ]


def readable(name: str, longest: int = LONGEST_NAME) -> str:
    """Return the name without its middle if it is long; '$' is escaped, so that it does not start a formula."""
    return shortened(name, longest).replace("$", r"\$")


def shortened(name: str, longest: int) -> str:
    """Return the name without its middle if it is long."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half + 1 :]}"


def colour(number: int) -> str:
    """Return the colour of a class."""
    return COLOURS[number % len(COLOURS)]


def _blank_page(legend: Sequence[tuple[Any, str]], labels: PlotLabels) -> Figure:
    figure = Figure(figsize=PAGE)
    FigureCanvasAgg(figure)
    figure.text(0.0375, 0.955, readable(labels.label), fontweight="bold", fontsize=16, va="center")
    if labels.right:
        figure.text(0.985, 0.955, labels.right, fontsize=13, ha="right", va="center")
    if legend:
        handles, names = zip(*legend, strict=True)
        size = 11 if len(names) <= 2 * LEGEND_COLUMNS else 7
        columns = LEGEND_COLUMNS if len(names) <= 2 * LEGEND_COLUMNS else 2 * LEGEND_COLUMNS
        figure.legend(
            handles,
            names,
            loc="upper left",
            bbox_to_anchor=(0.0375, 0.935),
            borderaxespad=0,
            borderpad=0,
            ncols=columns,
            fontsize=size,
        )
    return figure


def _saved(figure: Figure, kind: str, options: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, **options)
    return out.getvalue()
