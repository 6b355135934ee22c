"""ROC curves of several trainings in one picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hepfaas.evaluation.drawings import Pictures
from hepfaas.evaluation.metrics import rejections_of
from hepfaas.evaluation.style import COLOURS, pictures, readable
from hepfaas.runs.plot_labels import PlotLabels

LINES = ("-", "--", "-.", ":")


def compared_curves(curves: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Pictures:
    """Plot background rejection against signal efficiency, a colour for each training and a line style for each class.

    curves: `training` (index of its name), `class`, and efficiencies, AUC, uncertainty and resolution as in `Curve`.
    """
    classes = list(dict.fromkeys(str(curve["class"]) for curve in curves))
    is_one = len({(curve["training"], curve["class"]) for curve in curves}) == len({c["training"] for c in curves})

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        lowest = 1.0
        for curve in curves:
            if curve["auc"] is None:
                continue
            signal, rejection = rejections_of(curve)
            lowest = min(lowest, 1 / rejection.max(initial=1.0))
            style = LINES[0 if is_one else classes.index(str(curve["class"])) % len(LINES)]
            name = readable(str(names[curve["training"]]) + ("" if is_one else f", {curve['class']}"))
            axes.plot(
                signal,
                rejection,
                style,
                color=COLOURS[curve["training"] % len(COLOURS)],
                label=f"{name}: AUC {curve['auc']:.3f} ± {curve['uncertainty']:.3f}",
            )
        chance = np.linspace(lowest, 1, 200)
        axes.plot(chance, 1 / chance, ":", color="black", label="no separation")
        axes.set(xlim=(0, 1), xlabel="Signal efficiency", ylabel="Background rejection, 1 / efficiency", yscale="log")
        axes.set_ylim(1, 2 / lowest)
        axes.legend(loc="upper right", title="test", title_fontsize=16)

    return pictures("roc", draw, PlotLabels())
