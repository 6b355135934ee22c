"""sum: up to 16 results of one kind of step, or such sums -> their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import reduce
from operator import or_
from typing import Any

from hepfaas.platform.storage import Store
from hepfaas.runs.opened import joined
from hepfaas.runs.steps import Sum
from hepfaas.steps.objects import encoded, result_of


def perform(step: Sum, store: Store) -> None:
    """Raises: MissingError naming the missing member."""
    results = [result_of(member, store) for member in step.members]
    store.create(step.key, encoded(_ADDED[step.of](results)))


def _surveys(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from hepfaas.features.branches import BranchSurvey, total

    added = total([BranchSurvey.from_json(result) for result in results]).to_json()
    if "inputs" in results[0]:
        added["inputs"] = reduce(_inputs, (result["inputs"] for result in results))
    if "weights" in results[0]:
        from hepfaas.training.weights import WeightSurvey

        added["weights"] = reduce(or_, (WeightSurvey.from_json(result["weights"]) for result in results)).to_json()
    if "targets" in results[0]:
        added["targets"] = _targets([result["targets"] for result in results])
    return added


def _targets(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from hepfaas.features.branches import BranchRange

    return {
        name: reduce(or_, (BranchRange.from_json(result[name]) for result in results)).to_json() for name in results[0]
    }


def _inputs(one: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the branches that were read from two sets of files, with types that hold the values of both."""
    from hepfaas.features.spec import InputBranch

    known = {name: InputBranch(name, jagged, type_) for name, jagged, type_ in one}
    for name, jagged, type_ in other:
        branch = InputBranch(name, jagged, type_)
        known[name] = known[name] | branch if name in known else branch
    return [list(astuple(branch)) for branch in known.values()]


def _parts(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"parts": [part for result in results for part in result["parts"]]}


def _scores(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if "targets" in results[0]:
        from hepfaas.evaluation.predictions import PredictionCounts

        return reduce(or_, (PredictionCounts.from_json(result) for result in results)).to_json()
    from hepfaas.evaluation.part import PartCounts

    return reduce(or_, (PartCounts.from_json(result) for result in results)).to_json()


_ADDED = {"open": joined, "survey": _surveys, "prepare": _parts, "score": _scores, "predict": _parts}
