"""What is in a ROOT file, for a person who has just got it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hepfaas.datasets.chosen import Branch
from hepfaas.datasets.doors import Door
from hepfaas.datasets.faults import explained
from hepfaas.datasets.root import branches_of, open_root, tree_names


@dataclass(frozen=True)
class TreeSummary:
    """One TTree. clusters: entry ranges at whose ends all branches end a basket. compressed_bytes: on disk, of all
    branches; uncompressed_bytes: of the branches of numbers.

    left_out: branches that are no numbers, and what they are.
    """

    name: str
    title: str
    entries: int
    clusters: int
    compressed_bytes: int
    uncompressed_bytes: int
    compression: str
    branches: tuple[Branch, ...]
    left_out: tuple[tuple[str, str], ...]


def trees_of(url: str) -> list[TreeSummary]:
    """All TTrees of a file, those in folders too. Raises: RequestError; UnavailableError."""
    with explained(url), open_root(Door(url)) as file:
        return [_summary(name, file[name], str(file.file.compression or "none")) for name in tree_names(file)]


def _summary(name: str, tree: Any, usual: str) -> TreeSummary:
    branches, left_out, edges = branches_of(tree)
    shared = set.intersection(*map(set, edges.values())) if edges else {0, int(tree.num_entries)}
    return TreeSummary(
        name,
        tree.title,
        int(tree.num_entries),
        max(0, len(shared | {0, int(tree.num_entries)}) - 1),
        int(tree.compressed_bytes),
        sum(branch.size_bytes for branch in branches),
        _compression(tree) or usual,
        branches,
        left_out,
    )


def _compression(tree: Any) -> str:
    found = {str(branch.compression) for branch in tree.values() if branch.compression is not None}
    return ", ".join(sorted(found))
