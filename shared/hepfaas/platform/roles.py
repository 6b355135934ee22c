"""The operator's file of roles, HEPFAAS_ROLES: rights of groups and limits of owners.

{"users": [groups that may use the service], "publishers": [groups that may move aliases and delete versions],
 "admins": [groups that may see and cancel the runs of all owners],
 "limits": {group or name of an owner, or "*" for all others: {"runs": n, "bytes": n, "requests_per_s": x}}}

A group is one of the first issuer; "<issuer> <group>" is one of another issuer. By default everybody is a user and a
publisher.
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
    """Limits of an owner: unfinished runs, bytes in the store, and requests per second to an instance."""

    runs: float = math.inf
    bytes: float = math.inf
    requests_per_s: float = math.inf


@dataclass(frozen=True)
class Roles:
    """Groups with their rights; None: everybody. limits: by owner. default: limits of all other owners."""

    users: frozenset[Group] | None = None
    publishers: frozenset[Group] | None = None
    admins: frozenset[Group] = frozenset()
    limits: Mapping[str, OwnerLimits] = field(default_factory=dict)
    default: OwnerLimits = OwnerLimits()

    def limits_of(self, owner: str) -> OwnerLimits:
        """Return the limits of an owner."""
        return self.limits.get(owner, self.default)


def may(allowed: frozenset[Group] | None, groups: Iterable[Group]) -> bool:
    """Return whether one of a member's groups is allowed; None: every group is."""
    return allowed is None or not allowed.isdisjoint(groups)


def owner_of(kind: str, issuer: str, name: str) -> str:
    """Return the owner of a user or group of an issuer: the first part of all its keys. kind: 'user' or 'group'.

    The hash distinguishes owners; the words before it are for readers.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:32]
    digest = hashlib.sha256("\0".join((kind, issuer, name)).encode(errors="surrogatepass")).hexdigest()[:32]
    return "-".join(part for part in (kind, readable, digest) if part)


def roles_in(path: str, issuer: str) -> Roles:
    """Return the roles in a file; '': everybody is a user and publisher. Raises: RequestError saying what is wrong."""
    if not path:
        return Roles()
    try:
        values = json.loads(Path(path).read_text())
        return roles_of(values, issuer)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RequestError(f"HEPFAAS_ROLES: '{path}' is not a file of roles: {error}") from error


def roles_of(values: Mapping[str, Any], issuer: str) -> Roles:
    """Return the roles from JSON values. Raises: ValueError, TypeError or AttributeError if they are wrong."""
    for key in values:
        if key not in _KEYS:
            close = ", ".join(difflib.get_close_matches(key, _KEYS, 1) or _KEYS)
            raise ValueError(f"it has the unknown key '{key}'; closest: {close}")
    groups = {key: _groups(values[key], issuer) if key in values else None for key in _KEYS[:3]}
    limits = {name: _limits(name, numbers) for name, numbers in values.get("limits", {}).items()}
    default = limits.pop("*", OwnerLimits())
    owners = {owner_of("group", *group_named(name, issuer)): limit for name, limit in limits.items()}
    return Roles(
        users=groups["users"],
        publishers=groups["publishers"],
        admins=groups["admins"] or frozenset(),
        limits={**limits, **owners},
        default=default,
    )


def _limits(name: str, numbers: Mapping[str, Any]) -> OwnerLimits:
    if not all(type(value) in (int, float) and value >= 0 for value in numbers.values()):
        raise ValueError(f"the limits of '{name}' are numbers: runs, bytes, requests_per_s")
    return OwnerLimits(**numbers)


def _groups(names: Any, issuer: str) -> frozenset[Group]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("users, publishers and admins are lists of groups")
    return frozenset(group_named(name, issuer) for name in names)


def group_named(text: str, issuer: str) -> Group:
    """Return the group of '<issuer> <group>', or of a name alone, which is one of the given issuer."""
    other, _, name = text.rpartition(" ")
    return (other, name) if other.startswith(("https://", "http://")) else (issuer, text)
