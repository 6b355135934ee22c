"""From the values of one branch to features and back, and the numbers that the training events give for it. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange
from hepfaas.features.spec import FeatureBranch
from hepfaas.runs.feature_rules import BranchRules, Scaling

_NO_SIGN = 0.0
"""-0.0 plus this is 0.0: of the two zeros NumPy takes either as the larger one, depending on the place in the array."""


class Scaled(NamedTuple):
    """Features, (values,), and which of the values are NaN or infinite, None if none is."""

    features: NDArray[np.float32]
    missing: NDArray[np.bool_] | None


def scaled(values: NDArray[Any], branch: FeatureBranch) -> Scaled:
    """Return the features of values. A value that is not finite, also after scaling, becomes the branch's `nan`."""
    if branch.low is None or branch.high is None:
        return Scaled(np.full(len(values), branch.nan, dtype=np.float32), np.ones(len(values), dtype=bool))
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = _without_limits(values, branch, branch.low, branch.high)
        if branch.clip is not None:
            numbers = np.where(np.isfinite(numbers), np.clip(numbers, *branch.clip), np.nan) + _NO_SIGN
        features = numbers.astype(np.float32, copy=False)
        if np.isfinite(features.sum()):  # then all values are finite
            return Scaled(features, None)
    missing = ~np.isfinite(features)
    return Scaled(np.where(missing, np.float32(branch.nan), features), missing)


def unscaled(features: NDArray[np.float64], branch: FeatureBranch) -> NDArray[np.float64]:
    """Return the values of features in the branch's own unit, any shape."""
    if branch.low is None or branch.high is None:
        return features
    if branch.scaling == "minmax":
        if branch.high == branch.low:
            return features
        values: NDArray[np.float64] = features * (branch.high - branch.low) + branch.low
        return values
    values = features * branch.scale
    return (np.expm1(values) if branch.scaling == "log" else values) + branch.offset


def feature_branch(name: str, survey: BranchRange, rules: BranchRules) -> FeatureBranch:
    """Return the columns of a branch, fitted to the survey of all training events.

    Raises: RequestError if padding or a mask of a flat branch was asked for by its name.
    """
    for key, pattern in (("pad", rules.pad.pattern), ("mask", rules.mask)):
        if pattern == name and not survey.jagged:
            raise RequestError(f"'{key}': branch '{name}' is flat: each event has one value, and no slot is empty")
    low, high = survey.low, survey.high
    offset, scale = (0.0, 1.0) if low is None or high is None else _fitted(survey, rules.scaling.kind, low, high)
    return FeatureBranch(
        name,
        jagged=survey.jagged,
        low=low,
        high=high,
        width=survey.multiplicity if survey.jagged else 1,
        type=survey.type,
        scaling=rules.scaling.kind,
        offset=offset,
        scale=scale,
        clip=rules.scaling.clip,
        nan=rules.nan.value + _NO_SIGN,
        indicator=rules.nan.indicator,
        pad=rules.pad.value + _NO_SIGN if survey.jagged else 0.0,
        mask=bool(rules.mask) and survey.jagged,
    )


def mean_and_deviation(survey: BranchRange) -> tuple[float, float]:
    """Return mean and standard deviation of the finite values of a survey that has moments."""
    assert survey.moments is not None
    mean = _mean(survey)
    return _nearest(mean), _root(survey.moments.squares.fraction / survey.n_finite - mean**2)


def _mean(survey: BranchRange) -> Fraction:
    assert survey.moments is not None
    return survey.moments.values.fraction / survey.n_finite


def _without_limits(values: NDArray[Any], branch: FeatureBranch, low: float, high: float) -> NDArray[Any]:
    if branch.scaling == "minmax":  # in the precision of the values: the arithmetic of the original
        if values.dtype.kind in "iu" and (isinstance(low, int) or isinstance(high, int)):
            return _distances(values, int(low)) / float(int(high) - int(low)) if high != low else values
        return (values - low) / (high - low) if high != low else values
    if branch.scaling == "none":
        return values.astype(np.float64)
    if values.dtype.kind in "iu" and isinstance(branch.offset, int):
        numbers = _distances(values, branch.offset)
    else:
        numbers = values.astype(np.float64) - branch.offset
    if branch.scaling == "log":
        finite = numbers > -np.inf  # minus infinity is missing, and not a value below low
        numbers = np.log1p(np.where(finite, np.maximum(numbers, 0), np.nan) + _NO_SIGN)
    return numbers / branch.scale


def _distances(values: NDArray[Any], low: int) -> NDArray[np.float64]:
    """Return values - low of integers of up to 64 bits, exact before the result becomes float64."""
    unsigned, start = values.astype(np.uint64), np.uint64(low % 2**64)
    above: NDArray[np.float64] = (unsigned - start).astype(np.float64)  # modulo 2**64
    return np.where(values >= low, above, -(start - unsigned).astype(np.float64))


def _fitted(survey: BranchRange, kind: Scaling, low: float, high: float) -> tuple[float, float]:
    """Return offset and scale; the scale is 1 where it would be 0. The offset is an integer if the branch has integers
    that float64 does not represent."""
    is_large = isinstance(low, int) or isinstance(high, int)
    if kind == "log":
        return int(low) if is_large else low, math.log1p(high - low) or 1.0
    if kind == "standard":
        mean, deviation = mean_and_deviation(survey)
        return round(_mean(survey)) if is_large else mean, deviation or 1.0
    if kind == "robust":
        assert survey.histogram is not None
        first, median, third = (survey.histogram.quantile(quarters, 4) for quarters in (1, 2, 3))
        return int(median) if is_large else median, (third - first) or (high - low) or 1.0
    return 0.0, 1.0


def _nearest(value: Fraction) -> float:
    return value.numerator / value.denominator


def _root(value: Fraction) -> float:
    """Return the square root of a fraction; of one beyond the range of float64, too."""
    if not value:
        return 0.0
    shift = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(_nearest(value / Fraction(4) ** shift)), shift)
