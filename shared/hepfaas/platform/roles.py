"""What members of groups may do, and how much an owner may have: an operator's file, HEPFAAS_ROLES.

{"users": [groups whose members may ask at all], "publishers": [who may move aliases and delete versions],
 "admins": [who may see and cancel what is another's],
 "limits": {group or name of an owner, or "*" for all others: {"runs": n, "bytes": n, "requests_per_s": x}}}

A group is one of the first issuer; "<issuer> <group>" is one of another. Without users or publishers all are.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hepfaas.errors import RequestError

Group = tuple[str, str]
"""Issuer and name."""

_KEYS = ("users", "publishers", "admins", "limits")


@dataclass(frozen=True)
class OwnerLimits:
    """What an owner may have at a time: unfinished runs, bytes in the store, and requests a second to an instance."""

    runs: float = math.inf
    bytes: float = math.inf
    requests_per_s: float = math.inf


@dataclass(frozen=True)
class Roles:
    """Who may do what. None: everybody. limits: by owner; usual: of all others."""

    users: frozenset[Group] | None = None
    publishers: frozenset[Group] | None = None
    admins: frozenset[Group] = frozenset()
    limits: Mapping[str, OwnerLimits] = field(default_factory=dict)
    usual: OwnerLimits = OwnerLimits()

    def limits_of(self, owner: str) -> OwnerLimits:
        """What an owner may have."""
        return self.limits.get(owner, self.usual)


def may(those: frozenset[Group] | None, groups: Iterable[Group]) -> bool:
    """Whether a member of these groups is one of those."""
    return those is None or not those.isdisjoint(groups)


def owner_of(kind: str, issuer: str, name: str) -> str:
    """The owner that a subject or a group of an issuer is: the first part of all its keys.

    The hash tells owners apart, the words before it are for the reader; kind: user or group.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:32]
    digest = hashlib.sha256("\0".join((kind, issuer, name)).encode(errors="surrogatepass")).hexdigest()[:32]
    return "-".join(part for part in (kind, readable, digest) if part)


def roles_in(path: str, issuer: str) -> Roles:
    """The roles in a file; '': everybody is user and publisher. Raises: RequestError saying what is wrong with it."""
    if not path:
        return Roles()
    try:
        values = json.loads(Path(path).read_text())
        return roles_of(values, issuer)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RequestError(f"HEPFAAS_ROLES: '{path}' does not say who may do what: {error}") from error


def roles_of(values: Mapping[str, Any], issuer: str) -> Roles:
    """Raises: ValueError, TypeError or AttributeError if these are no roles."""
    for key in values:
        if key not in _KEYS:
            close = ", ".join(difflib.get_close_matches(key, _KEYS, 1) or _KEYS)
            raise ValueError(f"it has the unknown key '{key}'; closest: {close}")
    groups = {key: _groups(values[key], issuer) if key in values else None for key in _KEYS[:3]}
    limits = {name: _limits(name, given) for name, given in values.get("limits", {}).items()}
    usual = limits.pop("*", OwnerLimits())
    owners = {owner_of("group", *group_named(name, issuer)): found for name, found in limits.items()}
    return Roles(groups["users"], groups["publishers"], groups["admins"] or frozenset(), {**limits, **owners}, usual)


def _limits(name: str, given: Mapping[str, Any]) -> OwnerLimits:
    if not all(type(value) in (int, float) and value >= 0 for value in given.values()):
        raise ValueError(f"the limits of '{name}' are numbers: runs, bytes, requests_per_s")
    return OwnerLimits(**given)


def _groups(names: Any, issuer: str) -> frozenset[Group]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("users, publishers and admins are lists of groups")
    return frozenset(group_named(name, issuer) for name in names)


def group_named(text: str, issuer: str) -> Group:
    """'<issuer> <group>', or a group of that issuer."""
    of, _, name = text.rpartition(" ")
    return (of, name) if of.startswith(("https://", "http://")) else (issuer, text)
