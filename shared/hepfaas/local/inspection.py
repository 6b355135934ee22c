"""A look at the values of a file: ranges, missing values and findings of the first entries of its trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.summary import TreeSummary
from hepfaas.features.branches import BranchRange, survey_of
from hepfaas.features.findings import findings
from hepfaas.runs.steps import IDENTIFIERS

SAMPLE_ENTRIES = 10_000
LEAST_ENTRIES = 10
"""Fewest entries whose values tell something about a branch. A tree like `Runs` of NanoAOD has fewer."""


@dataclass(frozen=True)
class Sample:
    """The ranges of the branches of a tree over its first entries."""

    entries: int
    branches: dict[str, BranchRange]

    @property
    def notes(self) -> list[str]:
        """Notes on these branches for the user; empty for a tree with few entries."""
        if self.entries < LEAST_ENTRIES:
            return []
        features = {name: branch for name, branch in self.branches.items() if name not in IDENTIFIERS}
        return [f"in the first {self.entries:,} entries, {note}" for note in findings(features)]

    def values(self, name: str) -> dict[str, Any]:
        """Return what is shown of a branch: low and high, the share of its values that are NaN or infinite."""
        branch = self.branches[name]
        total = branch.n_finite + branch.n_missing
        return {"low": branch.low, "high": branch.high, "missing": branch.n_missing / total if total else None}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        branches = {name: self.values(name) for name in self.branches}
        return {"entries": self.entries, "branches": branches, "notes": self.notes}


def samples(url: str, trees: Sequence[TreeSummary]) -> list[Sample]:
    """Return the first entries of each tree. Raises: RequestError; UnavailableError."""
    return [_sample(url, tree) for tree in trees]


def _sample(url: str, tree: TreeSummary) -> Sample:
    names, entries = [branch.name for branch in tree.branches], min(tree.entries, SAMPLE_ENTRIES)
    if not names:
        return Sample(entries, {})
    identity = opened(url, tree.name).identity
    arrays = read(url, identity, tree.name, branches=names, entries=EntryRange(0, entries))
    return Sample(entries, dict(survey_of(identity, arrays, entries).branches))
