"""The choice of branches that are features, and of those that identify an event. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from hepfaas.errors import RequestError

IDENTIFIERS = ("run", "event", "luminosityBlock")
"""Default identifiers of an event, as in MLaaS4HEP."""


@dataclass(frozen=True)
class Branch:
    """One branch of numbers. type: of one value, as in 'float32'. size_bytes: of all entries, uncompressed."""

    name: str
    jagged: bool
    type: str
    size_bytes: int


@dataclass(frozen=True)
class BranchChoice:
    """The chosen branches. features: in the order of the tree. notes: requested names that do not exist, harmlessly."""

    features: tuple[Branch, ...]
    identifiers: tuple[str, ...]
    notes: tuple[str, ...]


def choose_branches(
    place: str,
    available: Sequence[Branch],
    *,
    selected: Sequence[str] = (),
    excluded: Sequence[str] = (),
    identifiers: Sequence[str] = (),
) -> BranchChoice:
    """Return the selected branches, or all but the excluded ones if none is selected; identifiers are never features.

    place: the tree, for messages. Raises: RequestError if a selected branch does not exist, or none is left.
    """
    names = [branch.name for branch in available]
    for name in selected:
        if name not in names:
            raise missing_branch(place, name, names)
    ids = identifiers or IDENTIFIERS
    wanted = set(selected) or set(names) - set(excluded)
    features = tuple(branch for branch in available if branch.name in wanted and branch.name not in ids)
    if not features:
        raise RequestError(f"{place}: no branch is left to learn from; its {len(names)} are all excluded")
    requested = [("exclude_branches", excluded), ("identifier", identifiers)]
    notes = [
        f"'{name}' of {key} is not a branch of {place}"
        for key, values in requested
        for name in values
        if name not in names
    ]
    jagged = {branch.name for branch in available if branch.jagged}
    flat = tuple(name for name in ids if name in names and name not in jagged)
    return BranchChoice(features, flat, tuple(notes))


def missing_branch(place: str, name: str, names: Sequence[str]) -> RequestError:
    """Return the error for a branch that does not exist, with the closest names."""
    folded = {other.lower(): other for other in names}
    close = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, 3, 0.6)]
    hint = f"closest: {', '.join(close)}" if close else f"it has: {', '.join(list(names)[:10])}"
    return RequestError(f"{place} has no branch '{name}'; {hint}")
