"""Which branches are features and which name an event. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from hepfaas.errors import RequestError

IDENTIFIERS = ("run", "event", "luminosityBlock")
"""What names an event where the user names nothing, as in the original."""


@dataclass(frozen=True)
class Branch:
    """One branch of numbers. type: of a value, as in 'float32'; size_bytes: uncompressed, of all entries."""

    name: str
    jagged: bool
    type: str
    size_bytes: int


@dataclass(frozen=True)
class BranchChoice:
    """features: in the order of the tree. notes: what a user asked for and cannot have, without harm."""

    features: tuple[Branch, ...]
    identifiers: tuple[str, ...]
    notes: tuple[str, ...]


def choose_branches(
    place: str,
    available: Sequence[Branch],
    selected: Sequence[str],
    excluded: Sequence[str],
    identifiers: Sequence[str],
) -> BranchChoice:
    """The branches to use: the selected ones, else all but the excluded; identifiers are never features.

    `place` names the tree in messages. Raises: RequestError if a selected branch is not there, or none is left.
    """
    names = [branch.name for branch in available]
    for name in selected:
        if name not in names:
            raise missing_branch(place, name, names)
    named = identifiers or IDENTIFIERS
    wanted = set(selected) or set(names) - set(excluded)
    features = tuple(branch for branch in available if branch.name in wanted and branch.name not in named)
    if not features:
        raise RequestError(f"{place}: no branch is left to learn from; its {len(names)} are all excluded")
    asked = [("exclude_branches", excluded), ("identifier", identifiers)]
    notes = [f"'{name}' of {key} is no branch of {place}" for key, some in asked for name in some if name not in names]
    jagged = {branch.name for branch in available if branch.jagged}
    flat = tuple(name for name in named if name in names and name not in jagged)
    return BranchChoice(features, flat, tuple(notes))


def missing_branch(place: str, name: str, names: Sequence[str]) -> RequestError:
    """The error that says so, with the closest names there are."""
    folded = {other.lower(): other for other in names}
    close = [folded[found] for found in difflib.get_close_matches(name.lower(), folded, 3, 0.6)]
    hint = f"closest: {', '.join(close)}" if close else f"it has: {', '.join(list(names)[:10])}"
    return RequestError(f"{place} has no branch '{name}'; {hint}")
