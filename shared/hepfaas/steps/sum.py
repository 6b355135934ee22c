"""sum: up to 16 results of one kind of step, or such sums -> their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import reduce
from operator import or_
from typing import Any

from hepfaas.exact import ExactSum
from hepfaas.platform.storage import Store
from hepfaas.runs.opened import joined
from hepfaas.runs.steps import Sum
from hepfaas.steps.objects import encoded, result_of


def perform(step: Sum, store: Store) -> None:
    """Raises: MissingError naming the missing member."""
    results = [result_of(member, store) for member in step.members]
    store.create(step.key, encoded(added(step.of, results)))


def added(kind: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of results of a kind of step, or of such sums."""
    return _ADDED[kind](results)


def _surveys(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from hepfaas.features.branches import BranchSurvey, total

    survey = total([BranchSurvey.from_json(result) for result in results]).to_json()
    if "inputs" in results[0]:
        survey["inputs"] = reduce(_inputs, (result["inputs"] for result in results))
    if "weights" in results[0]:
        from hepfaas.training.weights import WeightSurvey

        survey["weights"] = reduce(or_, (WeightSurvey.from_json(result["weights"]) for result in results)).to_json()
    if "targets" in results[0]:
        survey["targets"] = _targets([result["targets"] for result in results])
    return survey


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


def _prepared(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return all parts. The first part of a file gets the sums of weights of all of them: a run has thousands of parts,
    and many sums in each."""
    parts: list[dict[str, Any]] = []
    first: dict[str, dict[str, Any]] = {}
    for part in _parts(results)["parts"]:
        parts.append(dict(part))
        if not part.get("flow"):
            continue
        known = first.setdefault(part["file"], parts[-1])
        if known is not parts[-1]:
            known["flow"] = list(map(_added_sums, known["flow"], parts[-1].pop("flow")))
    return {"parts": parts}


def _added_sums(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    """Return the sums of weights and of squared weights of two sets of events."""
    pairs = zip(one, other, strict=True)
    return [(ExactSum.from_json(first) | ExactSum.from_json(second)).to_json() for first, second in pairs]


_ADDED = {"open": joined, "survey": _surveys, "prepare": _prepared, "score": _scores, "predict": _parts}
