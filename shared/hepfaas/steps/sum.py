"""sum: up to 16 results of one kind of step, or such sums -> their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    return total([BranchSurvey.from_json(result) for result in results]).to_json()


def _parts(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"parts": [part for result in results for part in result["parts"]]}


def _scores(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from hepfaas.evaluation.part import PartCounts

    return reduce(or_, (PartCounts.from_json(result) for result in results)).to_json()


_ADDED = {"open": joined, "survey": _surveys, "prepare": _parts, "score": _scores, "predict": _parts}
