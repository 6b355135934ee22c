"""The choice of branches that are features, and of those that identify an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hepfaas.errors import RequestError
from hepfaas.expressions.patterns import closest, is_pattern, matching
from hepfaas.runs.steps import IDENTIFIERS


@dataclass(frozen=True)
class Branch:
    """One branch of numbers. type: of one value, as in 'float32'. size_bytes: of all entries, uncompressed. title: in
    the file, '' if it says no more than the name."""

    name: str
    jagged: bool
    type: str
    size_bytes: int
    title: str = ""


@dataclass(frozen=True)
class BranchChoice:
    """The chosen branches. features: in the order of the tree. notes: for the user, on
    names that do not exist and on patterns."""

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
    no_numbers: Sequence[tuple[str, str]] = (),
) -> BranchChoice:
    """Return the selected branches, or all but the excluded ones if none is selected; identifiers are never features.

    place: the tree, for messages. selected, excluded, identifiers: names and patterns (expressions/patterns.py); a
    pattern of identifiers names flat branches only. no_numbers: branches that are none, with the reason. Raises:
    RequestError if a selected branch does not exist or is no number, a selected pattern matches none, or none is left.
    """
    names = [branch.name for branch in available]
    jagged = {branch.name for branch in available if branch.jagged}
    wanted: set[str] = set()
    reasons = dict(no_numbers)
    for name in selected:
        matches = matching(name, names)
        if not matches and name in reasons:
            raise RequestError(f"branch '{name}' of {place} is no feature: {reasons[name]}")
        if not matches:
            raise missing_branch(place, name, names)
        wanted.update(matches)
    notes = []
    left_out: set[str] = set()
    for name in excluded:
        matches = matching(name, names)
        left_out.update(matches)
        if not matches:
            notes.append(absent_note(name, "exclude_branches", place))
        elif matches != [name]:
            some = ", ".join(matches[:5]) + (", …" if len(matches) > 5 else "")
            notes.append(f"'{name}' of exclude_branches leaves out {len(matches)} of {len(names)} branches: {some}")
    ids: list[str] = []
    for name in identifiers or IDENTIFIERS:
        matches = [match for match in matching(name, names) if match == name or match not in jagged]
        ids += matches
        notes += [] if matches or not identifiers else [absent_note(name, "identifier", place)]
    chosen = (wanted or set(names) - left_out) - set(ids)
    features = tuple(branch for branch in available if branch.name in chosen)
    if not features:
        others = f"; {len(no_numbers)} others are no numbers" if no_numbers else ""
        are_excluded = f"its {len(names)} are all excluded" if names else "it has no branch of numbers"
        raise RequestError(f"{place}: no branch is left to learn from; {are_excluded}{others}")
    flat = tuple(name for name in dict.fromkeys(ids) if name not in jagged)
    return BranchChoice(features, flat, tuple(notes))


def absent_note(name: str, key: str, place: str) -> str:
    """Return a note on a name or pattern of a key of params.json that matches no branch."""
    is_no_branch = "matches no branch" if is_pattern(name) else "is not a branch"
    return f"'{name}' of {key} {is_no_branch} of {place}"


def missing_branch(place: str, name: str, names: Sequence[str]) -> RequestError:
    """Return the error for a branch that does not exist, or a pattern that matches none, with the closest names."""
    branch = "branch that matches" if is_pattern(name) else "branch"
    return RequestError(f"{place} has no {branch} '{name}'; {closest(name, names)}")
