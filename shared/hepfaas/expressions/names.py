"""Resolve the names in an expression: branches, constants, collections of vectors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable

from hepfaas.expressions import vectors
from hepfaas.expressions.functions import FUNCTIONS, without_prefix
from hepfaas.expressions.grammar import Name, shown

CONSTANTS: dict[str, bool | float] = {
    "pi": math.pi,
    "e": math.e,
    "nan": math.nan,
    "inf": math.inf,
    "True": True,
    "False": False,
    "true": True,
    "false": False,
}


def reads(name: Name, available: Collection[str]) -> dict[str, str] | None:
    """Return the branches that a name reads, by the coordinate of a vector ('' for a branch itself); nothing for a
    constant, None for an unknown name. Branches come before collections, collections before constants.
    """
    if name.name in available:
        return {"": name.name}
    if name.quoted:
        return None
    found = vectors.branches_of(name.name, available)
    return {} if not found and without_prefix(name.name) in CONSTANTS else found or None


def unknown(name: Name, available: Collection[str]) -> str:
    """Return the message for a name that nothing has."""
    if not name.quoted and without_prefix(name.name) in FUNCTIONS:
        return f"'{name.name}' is a function; write {name.name}(…)"
    return f"there is no branch '{shown(name.name[:100])}'; {closest(name.name, available)}"


def closest(name: str, known: Iterable[str]) -> str:
    """Return the most similar names as a hint."""
    folded = {other.lower(): other for other in known}
    close = [folded[match] for match in difflib.get_close_matches(name[:100].lower(), folded, 3, 0.5)]
    names = ", ".join(shown(other[:100]) for other in close or sorted(folded.values())[:10])
    return f"{'closest' if close else 'known'}: {names or 'none'}"
