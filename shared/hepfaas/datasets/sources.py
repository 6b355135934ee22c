"""Where files may be read, by whom, and through which endpoints: an operator's file, HEPFAAS_SOURCES. Light: no reader.

{"federations": [{"name": …, "hosts": [whose addresses lead to its files], "caches": [endpoints asked first, in order],
                  "origins": [endpoints asked then; without any the address itself]}],
 "allowed": [{"schemes": [...], "host": …, "path": what paths begin with, "groups": [whose members; without it all]}]}

A host is a name, on any port, or name:port; of s3:// it is the bucket. Without "allowed" every address may be read.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.platform.address import SCHEMES, XROOTD, Address, host_and_port, is_bucket, parsed
from hepfaas.platform.roles import Group, group_named, may

MOST_TOLD = 20


@dataclass(frozen=True)
class Federation:
    """Servers that have the same files under the same paths. caches, origins: endpoints, in the order they are asked."""

    name: str
    hosts: tuple[str, ...]
    caches: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Allowed:
    """Addresses that may be read: by members of these groups, or by everybody (None)."""

    schemes: tuple[str, ...]
    host: str
    path: str
    groups: frozenset[Group] | None = None

    def __str__(self) -> str:
        return f"{'|'.join(self.schemes)}://{self.host}{'/' if self.schemes[0] in XROOTD else ''}{self.path}"

    def holds(self, address: Address, is_prefix: bool) -> bool:
        """Whether it allows an address. is_prefix: whether it may allow one that begins so."""
        path = address.plain_path
        inside = path.startswith(self.path) or (is_prefix and self.path.startswith(path))
        return address.scheme in self.schemes and _is_at(address, self.host) and inside


@dataclass(frozen=True)
class Sources:
    """What the file says. allowed: None: every address."""

    federations: tuple[Federation, ...] = ()
    allowed: tuple[Allowed, ...] | None = None

    def federation_of(self, address: Address) -> Federation | None:
        """The federation whose files an address names."""
        return next((one for one in self.federations if any(_is_at(address, host) for host in one.hosts)), None)

    def endpoints(self, address: Address) -> tuple[Address, ...]:
        """Addresses at which a file is looked for, one after the other. Raises: RequestError if an endpoint can have no such
        path."""
        found = self.federation_of(address)
        if found is None:
            return (address,)
        behind = [address.below(parsed(endpoint)) for endpoint in (*found.caches, *found.origins)]
        return tuple(dict.fromkeys(behind if found.origins else [*behind, address]))

    def check(self, address: Address, groups: Collection[Group], is_prefix: bool = False) -> None:
        """Raises: ForbiddenError with the list, if members of these groups may not read an address. is_prefix: if
        nothing that begins so may be read."""
        if self.allowed is None:
            return
        mine = [one for one in self.allowed if may(one.groups, groups)]
        if any(one.holds(address, is_prefix) for one in mine):
            return
        told = ", ".join(map(str, mine[:MOST_TOLD])) + (f" and {len(mine) - MOST_TOLD} more" * (len(mine) > MOST_TOLD))
        raise ForbiddenError(f"'{str(address)[:200]}' is not among what you may read here: {told or 'nothing'}")


EVERYTHING = Sources()
"""Every address may be read, and is its own endpoint."""


def sources_in(path: str, issuer: str) -> Sources:
    """What a file says; '': everything may be read. issuer: of groups that name none.

    Raises: RequestError saying what is wrong with it.
    """
    if not path:
        return Sources()
    try:
        return sources_of(json.loads(Path(path).read_text()), issuer)
    except (OSError, ValueError) as error:
        raise RequestError(f"HEPFAAS_SOURCES: '{path}' does not say where files are read: {error}") from error


def sources_of(values: Any, issuer: str) -> Sources:
    """Raises: ValueError if these are no sources."""
    found = _known(values, "it", ("federations", "allowed"))
    federations = tuple(_federation(one) for one in _objects(found, "federations"))
    hosts = [host for one in federations for host in one.hosts]
    for host in hosts:
        if hosts.count(host) > 1:
            raise ValueError(f"host '{host}' stands twice in federations")
    allowed = tuple(_allowed(one, issuer) for one in _objects(found, "allowed")) if "allowed" in found else None
    return Sources(federations, allowed)


def _federation(values: Any) -> Federation:
    found = _known(values, "a federation", ("name", "hosts", "caches", "origins"))
    name = found.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a federation has no 'name'")
    what = f"federation '{name}'"
    hosts = tuple(_host(host, what) for host in _texts(found, "hosts", what))
    endpoints = [
        tuple(_endpoint(endpoint, what) for endpoint in _texts(found, key, what)) for key in ("caches", "origins")
    ]
    if not hosts or not any(endpoints):
        raise ValueError(f"{what} needs 'hosts', and 'caches' or 'origins'")
    return Federation(name, hosts, *endpoints)


def _allowed(values: Any, issuer: str) -> Allowed:
    found = _known(values, "an entry of 'allowed'", ("schemes", "host", "path", "groups"))
    what = f"the entry of 'allowed' for host '{found.get('host')}'"
    schemes, path = tuple(_texts(found, "schemes", what)), found.get("path", "/")
    if not schemes or not set(schemes) <= set(SCHEMES):
        raise ValueError(f"{what}: 'schemes' has some of {', '.join(SCHEMES)}")
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{what}: 'path' begins with one '/'")
    groups = frozenset(group_named(name, issuer) for name in _texts(found, "groups", what))
    host = found.get("host")
    if set(schemes) != {"s3"} or not isinstance(host, str) or not is_bucket(host):  # names of buckets have a case
        host = _host(host, what)
    return Allowed(schemes, host, path, groups if "groups" in found else None)


def _known(values: Any, what: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{what} is no JSON object")
    for key in values:
        if key not in keys:
            close = ", ".join(difflib.get_close_matches(key, keys, 1) or keys)
            raise ValueError(f"{what} has the unknown key '{key}'; closest: {close}")
    return values


def _objects(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key, [])
    if not isinstance(found, list):
        raise ValueError(f"'{key}' is no list of objects")
    return found


def _texts(values: Mapping[str, Any], key: str, what: str) -> Iterable[str]:
    found = values.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise ValueError(f"{what}: '{key}' is a list of texts")
    return found


def _host(text: Any, what: str) -> str:
    """The normal form of a host, or of host:port; a bucket as it is."""
    try:
        host, port = host_and_port(text)
    except (RequestError, TypeError) as error:
        if isinstance(text, str) and is_bucket(text):
            return text
        raise ValueError(f"{what}: a host is a name, or name:port") from error
    return Address("", host, port).place


def _endpoint(text: str, what: str) -> str:
    try:
        return str(parsed(text)).rstrip("/")
    except RequestError as error:
        raise ValueError(
            f"{what}: '{text}' is not an endpoint, as in root://host:port or https://host/folder"
        ) from error


def _is_at(address: Address, host: str) -> bool:
    """Return whether an address is at a host, given as name or name:port."""
    return host in (address.bracketed, f"{address.bracketed}:{address.connects_to}")
