"""What is in a ROOT file, for a person who has just got it."""

from __future__ import annotations

from dataclasses import dataclass

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.errors import translated_errors
from hepfaas.datasets.reading import Endpoint
from hepfaas.datasets.root import branch_of, open_root


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
    with translated_errors(url), open_root(Endpoint(url)) as file:
        return [
            TreeSummary(
                **{
                    **tree,
                    "branches": tuple(map(branch_of, tree["branches"])),
                    "left_out": tuple((name, what) for name, what in tree["left_out"]),
                }
            )
            for tree in file.trees()
        ]
