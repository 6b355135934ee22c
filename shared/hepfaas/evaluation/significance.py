"""Expected significance of a signal above each threshold of a score. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hepfaas.evaluation.counts import thresholds_of_bins
from hepfaas.evaluation.metrics import above_thresholds, thinned
from hepfaas.evaluation.tally import Floats, Tally

LEAST_EVENTS = 10
"""Fewest background events above a threshold that is considered: with fewer the background is not known well enough,
and a threshold above all of them would always be the best one."""

AMS_REGULARISATION = 10.0
"""b_reg of the approximate median significance."""


def simple(signal: Floats, background: Floats) -> Floats:
    """Return S/√B."""
    return signal / np.sqrt(background)


def with_signal(signal: Floats, background: Floats) -> Floats:
    """Return S/√(S + B)."""
    return signal / np.sqrt(signal + background)


def asimov(signal: Floats, background: Floats) -> Floats:
    """Return the median significance of a discovery, √(2 ((S + B) ln(1 + S/B) - S)): Cowan, Cranmer, Gross and Vitells,
    Eur. Phys. J. C 71 (2011) 1554, equation 97."""
    squared = 2 * ((signal + background) * np.log1p(signal / background) - signal)
    significance: Floats = np.sqrt(np.maximum(squared, 0))  # below 0 by rounding if the signal is tiny
    return significance


def ams(signal: Floats, background: Floats) -> Floats:
    """Return the approximate median significance of the Higgs challenge, the same with B + 10 for B: Adam-Bourdarios et
    al., JMLR Workshop and Conference Proceedings 42 (2015) 19, equation 7."""
    return asimov(signal, background + AMS_REGULARISATION)


MEASURES: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "s_over_sqrt_b": simple,
    "s_over_sqrt_s_plus_b": with_signal,
    "asimov": asimov,
    "ams": ams,
}


def scan(signal: Tally, background: Tally, scale: float = 1.0) -> dict[str, Any]:
    """Return the significances above each threshold as JSON values, of two histograms of scores, (bins,).

    scale: number by which the sums of weights are multiplied, since a split is a part of all events. `yields` says
    whether they are sums of weights or numbers of events. `best` has the highest value of each measure, its threshold,
    and the signal and background above it; None if no threshold has a positive signal and LEAST_EVENTS events of
    background with a positive sum. `points` has at most 200 thresholds, evenly spaced along the ROC curve.
    """
    in_signal = scale * above_thresholds(signal.yields)
    in_background = scale * above_thresholds(background.yields)
    events = above_thresholds(background.events)
    usable = np.flatnonzero((events >= LEAST_EVENTS) & (in_background > 0) & (in_signal > 0))
    kept_signal, kept_background = in_signal[usable], in_background[usable]
    thresholds = thresholds_of_bins()[usable]
    values = {name: measure(kept_signal, kept_background) for name, measure in MEASURES.items()}
    shown = _shown(kept_signal, kept_background)
    return {
        "yields": "sums of weights" if signal.is_weighted else "numbers of events",
        "best": {name: _best(each, thresholds, kept_signal, kept_background) for name, each in values.items()},
        "points": {
            "threshold": thresholds[shown].tolist(),
            "signal": kept_signal[shown].tolist(),
            "background": kept_background[shown].tolist(),
            **{name: each[shown].tolist() for name, each in values.items()},
        },
    }


def _best(values: Floats, thresholds: Floats, signal: Floats, background: Floats) -> dict[str, float] | None:
    if not len(values):
        return None
    place = int(values.argmax())
    return {
        "value": float(values[place]),
        "threshold": float(thresholds[place]),
        "signal": float(signal[place]),
        "background": float(background[place]),
    }


def _shown(signal: Floats, background: Floats) -> Any:
    if len(signal) < 2:
        return slice(None)
    return thinned(signal / max(signal[-1], 1e-300), background / max(background[-1], 1e-300))
