"""From the values of a target to what a network learns. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange
from hepfaas.features.scaling import mean_and_deviation
from hepfaas.runs.targets import Row, Target, targets_in


def target_of(name: str, survey: BranchRange) -> Target:
    """Return the scale of a target from the survey of the selected events, which has moments.

    Raises: RequestError if all values are equal, or if they do not fit into float32.
    """
    if survey.low is None or survey.high is None:
        raise RequestError(f"no event is selected, so the target '{name}' has no value")
    if survey.low == survey.high:
        raise RequestError(
            f"the target '{name}' is {survey.low:g} in all {survey.n_finite:,} selected events, so there is nothing "
            "to learn"
        )
    with np.errstate(over="ignore", under="ignore"):
        mean, deviation = (float(np.float32(number)) for number in mean_and_deviation(survey))
    if not math.isfinite(mean) or not math.isfinite(deviation) or deviation < np.finfo(np.float32).tiny:
        raise RequestError(
            f"the target '{name}' runs from {survey.low:g} to {survey.high:g}, and networks compute in float32; scale "
            f"it, as in '({name}) * 1e-6'"
        )
    return Target(name, mean, deviation, survey.low, survey.high)


def standardised(values: NDArray[Any], target: Target) -> NDArray[np.float32]:
    """Return the values of a target as a network learns them, any shape."""
    return ((values.astype(np.float64) - target.mean) / target.deviation).astype(np.float32)


def in_units(standard: NDArray[Any], rows: Sequence[Row]) -> NDArray[np.float64]:
    """Return standardised values, (events, targets), in the targets' own units."""
    means, deviations = _scale(rows)
    values: NDArray[np.float64] = standard.astype(np.float64) * deviations + means
    return values


def difference_in_units(served: NDArray[np.float32], standard: NDArray[np.float32], rows: Sequence[Row]) -> float:
    """Return the largest difference between served values, in units, and a network's standardised ones, (events,
    targets) each: in standard deviations, relative for values further than one from the mean.

    The rounding of float32, in which the served values are computed, does not count.
    """
    means, deviations = _scale(rows)
    expected = in_units(standard, rows)
    rounding = np.finfo(np.float32).eps * (np.abs(expected) + np.abs(means))
    excess = np.maximum(np.abs(served - expected) - rounding, 0)
    return float((excess / (deviations * np.maximum(1, np.abs(standard)))).max(initial=0))


def _scale(rows: Sequence[Row]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each target, (targets,) each."""
    targets = targets_in(rows)
    return np.array([target.mean for target in targets]), np.array([target.deviation for target in targets])
