"""Permutation importance of branches and of collections of objects. Pure.

The values of the branch are permuted among the events of a sample, and the AUC falls (Breiman, Machine Learning 45
(2001) 5). This module says which columns are permuted and how; the caller computes the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.branches import collection_of
from hepfaas.evaluation.tally import Floats

REPEATS = 5
MOST_ROWS = 10_000
MOST_GROUPS = 250
MOST_SCORES = 500_000
"""Most rows of all permutations."""

MOST_VALUES = 100_000_000
"""Most features of all permutations."""


@dataclass(frozen=True)
class Group:
    """Columns that are permuted together. kind: "branch" or "collection"."""

    name: str
    kind: str
    columns: tuple[int, ...]


def groups_of(columns: Mapping[str, range]) -> list[Group]:
    """Return a group for each branch and for each collection of several branches, at most 250; columns: of each
    branch."""
    branches = [Group(name, "branch", tuple(places)) for name, places in columns.items()]
    collections: dict[str, list[Group]] = {}
    for group in branches:
        collections.setdefault(collection_of(group.name), []).append(group)
    joined = [
        Group(name, "collection", tuple(column for group in members for column in group.columns))
        for name, members in collections.items()
        if len(members) > 1
    ]
    return [*joined[: MOST_GROUPS // 2], *branches][:MOST_GROUPS]


def n_rows(n_groups: int, n_features: int) -> int:
    """Return how many events are permuted."""
    n_permutations = max(1, n_groups * REPEATS)
    return max(1, min(MOST_ROWS, MOST_SCORES // n_permutations, MOST_VALUES // (n_permutations * max(1, n_features))))


def permuted(features: NDArray[np.float32], group: Group, repeat: int) -> NDArray[np.float32]:
    """Return the features with the columns of a group permuted among the events; the permutation is fixed by the number
    of the repetition."""
    order = np.random.Generator(np.random.PCG64(repeat)).permutation(len(features))
    changed = features.copy()
    places = np.array(group.columns)
    changed[:, places] = features[order[:, None], places]
    return changed


def importance(group: Group, before: float, after: Sequence[float]) -> dict[str, Any]:
    """Return the fall of the AUC and its spread over the permutations as JSON values."""
    falls = before - np.array(after)
    return {
        "name": group.name,
        "kind": group.kind,
        "fall": float(falls.mean()),
        "spread": float(falls.std(ddof=1)) if len(falls) > 1 else 0.0,
    }


def mean_auc(probabilities: Floats, labels: NDArray[np.int64], weights: Floats) -> float | None:
    """Return the AUC of class 1, or of more than two classes the mean over each against the rest; None if no class has
    a positive yield beside another."""
    curves = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    aucs = [_auc(probabilities[:, number], labels == number, weights) for number in curves]
    known = [auc for auc in aucs if auc is not None]
    return sum(known) / len(known) if known else None


def _auc(scores: Floats, is_signal: NDArray[np.bool_], weights: Floats) -> float | None:
    signal, background = np.where(is_signal, weights, 0.0), np.where(is_signal, 0.0, weights)
    if signal.sum() <= 0 or background.sum() <= 0:
        return None
    _, place = np.unique(scores, return_inverse=True)
    in_signal, in_background = np.bincount(place, weights=signal), np.bincount(place, weights=background)
    below = np.cumsum(in_background) - in_background / 2
    return float((in_signal * below).sum() / signal.sum() / background.sum())
