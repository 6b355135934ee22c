"""Ranges from files of MLaaS4HEP in place of those of the events, and specs in the form of these files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange, End
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.runs.old_specs import MOST_NAMED, NOTHING_SEEN, OldRange, OldSpecs

ROUNDING = 1e-6
"""Share of the largest number of a range by which values may lie outside: files of ranges were written from float32."""


def with_old_ranges(surveys: Mapping[str, BranchRange], specs: OldSpecs) -> dict[str, BranchRange]:
    """Return the ranges of branches with the limits and widths of a file of ranges, where it has any.

    Raises: RequestError naming the branches with values or list lengths that are outside these ranges.
    """
    known = {branch.name: branch for branch in specs.branches}
    given = {name: known[name] for name in surveys if name in known}
    if differences := [text for name, old in given.items() for text in _differences(surveys[name], old)]:
        more = f"; and {len(differences) - MOST_NAMED:,} more" if len(differences) > MOST_NAMED else ""
        raise RequestError(
            f"{specs.place} is not about these events: {'; '.join(differences[:MOST_NAMED])}{more}. Leave out 'specs' "
            "to take the ranges from the files"
        )
    return {name: _with(survey, given[name]) if name in given else survey for name, survey in surveys.items()}


def old_specs(spec: FeatureSpec, events: Mapping[str, int]) -> dict[str, Any]:
    """Return a spec in the form of global-specs.json; without `events`, in that of specs-<file>.json.

    events: number of events of each file, by its name. The order of the branches is lost in this form, and so is all
    scaling but by the range.
    """
    ranges = {branch.name: _limits(branch) for branch in spec.branches}
    values = {
        "jdim": {branch.name: branch.width for branch in spec.branches if branch.jagged},
        "minv": {name: low for name, (low, _) in ranges.items()},
        "maxv": {name: high for name, (_, high) in ranges.items()},
        "fkeys": sorted(branch.name for branch in spec.branches if not branch.jagged),
        "jkeys": sorted(branch.name for branch in spec.branches if branch.jagged),
        "nans": {name: _feature_of_zero(low, high) for name, (low, high) in ranges.items()},
    }
    return {**values, "events": {**events, "total": sum(events.values())}} if events else values


def _differences(survey: BranchRange, old: OldRange) -> list[str]:
    texts = []
    if survey.jagged and survey.multiplicity > old.width:
        texts.append(
            f"'{old.name}' has up to {old.width:,} values in an event there, and {survey.multiplicity:,} in the files"
        )
    if old.low is None or old.high is None or survey.low is None or survey.high is None:
        return texts
    margin = ROUNDING * max(abs(old.low), abs(old.high))
    if survey.low < old.low - margin or survey.high > old.high + margin:
        there, here = (f"{low:.9g} to {high:.9g}" for low, high in ((old.low, old.high), (survey.low, survey.high)))
        texts.append(f"'{old.name}' is {there} there, and {here} in the files")
    return texts


def _with(survey: BranchRange, old: OldRange) -> BranchRange:
    width = old.width if survey.jagged else survey.multiplicity
    if old.low is None or old.high is None:
        return replace(survey, multiplicity=width)
    return replace(survey, multiplicity=width, bottom=End(old.low, 1, None), top=End(old.high, 1, None))


def _limits(branch: FeatureBranch) -> tuple[float, float]:
    if branch.low is None or branch.high is None:
        return NOTHING_SEEN, -NOTHING_SEEN
    return branch.low, branch.high


def _feature_of_zero(low: float, high: float) -> float:
    return -low / (high - low) if high != low else 0.0
