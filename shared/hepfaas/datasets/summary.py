"""A summary of the trees in a file of events."""

from __future__ import annotations

from dataclasses import dataclass

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.errors import translated_errors
from hepfaas.datasets.event_file import branch_of, open_file
from hepfaas.datasets.formats import USUAL_FORM, Form
from hepfaas.datasets.reading import Endpoint


@dataclass(frozen=True)
class TreeSummary:
    """One TTree or RNTuple, or a table, which has no name.

    kind: which of them. clusters: number of entry ranges at whose ends all branches end a basket. compressed_bytes: of
    all branches on disk. uncompressed_bytes: of the branches of numbers. left_out: other branches with their types.
    """

    name: str
    kind: str
    title: str
    entries: int
    clusters: int
    compressed_bytes: int
    uncompressed_bytes: int
    compression: str
    branches: tuple[Branch, ...]
    left_out: tuple[tuple[str, str], ...]


def trees_of(url: str, form: Form = USUAL_FORM) -> list[TreeSummary]:
    """Return all TTrees and RNTuples of a file, including those in folders, or the table.

    Raises: RequestError; UnavailableError.
    """
    with translated_errors(url), open_file(Endpoint(url), form=form) as file:
        return [
            TreeSummary(
                **{
                    **tree,
                    "branches": tuple(map(branch_of, tree["branches"])),
                    "left_out": tuple((name, type_) for name, type_ in tree["left_out"]),
                }
            )
            for tree in file.trees()
        ]
