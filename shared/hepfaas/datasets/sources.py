"""The operator's file of sources, HEPFAAS_SOURCES: addresses that may be read, and the endpoints of federations.

{"federations": [{"name": …, "hosts": [hosts in the addresses of its files], "caches": [endpoints that are tried first],
                  "origins": [endpoints that are tried next; by default the address itself]}],
 "allowed": [{"schemes": [...], "host": …, "path": prefix of paths, "groups": [whose members; by default everybody]}]}

A host is a name, on any port, or name:port; of s3:// it is the bucket. Without "allowed" every address may be read.
Light: no reader is imported here.
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

MOST_LISTED = 20


@dataclass(frozen=True)
class Federation:
    """Servers that have the same files under the same paths. caches, origins: endpoints, in the order of use."""

    name: str
    hosts: tuple[str, ...]
    caches: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Allowed:
    """Addresses that members of these groups may read; groups None: everybody."""

    schemes: tuple[str, ...]
    host: str
    path: str
    groups: frozenset[Group] | None = None

    def __str__(self) -> str:
        return f"{'|'.join(self.schemes)}://{self.host}{'/' if self.schemes[0] in XROOTD else ''}{self.path}"

    def allows(self, address: Address, is_prefix: bool) -> bool:
        """Return whether the address may be read. is_prefix: whether any address that starts with it may be read."""
        path = address.plain_path
        inside = path.startswith(self.path) or (is_prefix and self.path.startswith(path))
        return address.scheme in self.schemes and _is_at(address, self.host) and inside


@dataclass(frozen=True)
class Sources:
    """The contents of the file. allowed: None: every address."""

    federations: tuple[Federation, ...] = ()
    allowed: tuple[Allowed, ...] | None = None

    def federation_of(self, address: Address) -> Federation | None:
        """Return the federation that an address belongs to, if any."""
        return next((one for one in self.federations if any(_is_at(address, host) for host in one.hosts)), None)

    def endpoints(self, address: Address) -> tuple[Address, ...]:
        """Return the addresses at which a file is read, in the order of use. Raises: RequestError if an endpoint cannot
        have such a path."""
        federation = self.federation_of(address)
        if federation is None:
            return (address,)
        endpoints = [address.below(parsed(endpoint)) for endpoint in (*federation.caches, *federation.origins)]
        return tuple(dict.fromkeys(endpoints if federation.origins else [*endpoints, address]))

    def check(self, address: Address, groups: Collection[Group], is_prefix: bool = False) -> None:
        """Check that members of these groups may read an address. is_prefix: or any address that starts with it.

        Raises: ForbiddenError with the addresses that they may read.
        """
        if self.allowed is None:
            return
        entries = [entry for entry in self.allowed if may(entry.groups, groups)]
        if any(entry.allows(address, is_prefix) for entry in entries):
            return
        listed = ", ".join(map(str, entries[:MOST_LISTED]))
        if len(entries) > MOST_LISTED:
            listed += f" and {len(entries) - MOST_LISTED} more"
        raise ForbiddenError(f"'{str(address)[:200]}' is not among the addresses that you may read: {listed or 'none'}")


EVERYTHING = Sources()
"""Every address may be read, each at its own server."""


def sources_in(path: str, issuer: str) -> Sources:
    """Return the sources in a file; without a path every address may be read. issuer: of groups without one.

    Raises: RequestError saying what is wrong with the file.
    """
    if not path:
        return Sources()
    try:
        return sources_of(json.loads(Path(path).read_text()), issuer)
    except (OSError, ValueError) as error:
        raise RequestError(f"HEPFAAS_SOURCES: '{path}' is not a file of sources: {error}") from error


def sources_of(values: Any, issuer: str) -> Sources:
    """Return the sources from JSON values. Raises: ValueError saying what is wrong with them."""
    fields = _known(values, "it", ("federations", "allowed"))
    federations = tuple(_federation(one) for one in _objects(fields, "federations"))
    hosts = [host for one in federations for host in one.hosts]
    for host in hosts:
        if hosts.count(host) > 1:
            raise ValueError(f"host '{host}' is in the federations twice")
    allowed = tuple(_allowed(one, issuer) for one in _objects(fields, "allowed")) if "allowed" in fields else None
    return Sources(federations, allowed)


def _federation(values: Any) -> Federation:
    fields = _known(values, "a federation", ("name", "hosts", "caches", "origins"))
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a federation has no 'name'")
    place = f"federation '{name}'"
    hosts = tuple(_host(host, place) for host in _texts(fields, "hosts", place))
    caches, origins = (
        tuple(_endpoint(text, place) for text in _texts(fields, key, place)) for key in ("caches", "origins")
    )
    if not hosts or not (caches or origins):
        raise ValueError(f"{place} needs 'hosts', and 'caches' or 'origins'")
    return Federation(name, hosts, caches, origins)


def _allowed(values: Any, issuer: str) -> Allowed:
    fields = _known(values, "an entry of 'allowed'", ("schemes", "host", "path", "groups"))
    place = f"the entry of 'allowed' for host '{fields.get('host')}'"
    schemes, path = tuple(_texts(fields, "schemes", place)), fields.get("path", "/")
    if not schemes or not set(schemes) <= set(SCHEMES):
        raise ValueError(f"{place}: 'schemes' takes {', '.join(SCHEMES)}")
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{place}: 'path' starts with one '/'")
    groups = frozenset(group_named(name, issuer) for name in _texts(fields, "groups", place))
    host = fields.get("host")
    if set(schemes) != {"s3"} or not isinstance(host, str) or not is_bucket(host):  # bucket names are case-sensitive
        host = _host(host, place)
    return Allowed(schemes, host, path, groups if "groups" in fields else None)


def _known(values: Any, place: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{place} is not a JSON object")
    for key in values:
        if key not in keys:
            close = ", ".join(difflib.get_close_matches(key, keys, 1) or keys)
            raise ValueError(f"{place} has the unknown key '{key}'; closest: {close}")
    return values


def _objects(values: Mapping[str, Any], key: str) -> list[Any]:
    objects = values.get(key, [])
    if not isinstance(objects, list):
        raise ValueError(f"'{key}' is not a list of objects")
    return objects


def _texts(values: Mapping[str, Any], key: str, place: str) -> Iterable[str]:
    texts = values.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{place}: '{key}' is a list of strings")
    return texts


def _host(text: Any, place: str) -> str:
    """Return the normal form of a host, or of host:port; a bucket as it is."""
    try:
        host, port = host_and_port(text)
    except (RequestError, TypeError) as error:
        if isinstance(text, str) and is_bucket(text):
            return text
        raise ValueError(f"{place}: a host is a name, or name:port") from error
    return Address("", host, port).place


def _endpoint(text: str, place: str) -> str:
    try:
        return str(parsed(text)).rstrip("/")
    except RequestError as error:
        raise ValueError(
            f"{place}: '{text}' is not an endpoint, such as root://host:port or https://host/folder"
        ) from error


def _is_at(address: Address, host: str) -> bool:
    """Return whether an address is at a host, given as name or name:port."""
    return host in (address.bracketed, f"{address.bracketed}:{address.connects_to}")
