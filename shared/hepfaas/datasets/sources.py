"""Where files may be read, by whom, and through which doors: an operator's file, HEPFAAS_SOURCES. Light: no reader.

{"federations": [{"name": …, "hosts": [whose addresses lead to its files], "caches": [doors asked first, in order],
                  "origins": [doors asked then; without any the address itself]}],
 "allowed": [{"schemes": [...], "host": …, "path": what paths begin with, "groups": [whose members; without it all]}]}

A host is a name, on any port, or name:port; of s3:// it is the bucket. Without "allowed" every address may be read.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.platform.roles import Group, group_named, may

XROOTD = ("root", "roots", "xroot", "xroots")
WEB = ("http", "https", "dav", "davs")
SCHEMES = (*XROOTD, "s3", *WEB)
MOST_TOLD = 20
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_AMBIGUOUS = re.compile(r"%(?:2[eEfF5]|5[cC]|[01][0-9A-Fa-f]|7[fF])|[\\\x00-\x1f\x7f]")
"""Characters in a path that one server takes for others, and another server does not."""


@dataclass(frozen=True)
class Federation:
    """Servers that have the same files under the same paths. caches, origins: doors, in the order they are asked."""

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

    def holds(self, parts: SplitResult, path: str, is_prefix: bool) -> bool:
        """Whether it allows an address. is_prefix: whether it may allow one that begins so."""
        inside = path.startswith(self.path) or (is_prefix and self.path.startswith(path))
        return parts.scheme in self.schemes and _is_of(parts, self.host) and inside


@dataclass(frozen=True)
class Sources:
    """What the file says. allowed: None: every address."""

    federations: tuple[Federation, ...] = ()
    allowed: tuple[Allowed, ...] | None = None

    def federation_of(self, url: str) -> Federation | None:
        """The federation whose files an address names."""
        parts = urlsplit(url)
        return next((one for one in self.federations if any(_is_of(parts, host) for host in one.hosts)), None)

    def doors(self, url: str) -> tuple[str, ...]:
        """Addresses at which a file is looked for, one after the other."""
        found = self.federation_of(url)
        if found is None:
            return (url,)
        behind = [_behind(door, url) for door in (*found.caches, *found.origins)]
        return tuple(dict.fromkeys(behind if found.origins else [*behind, url]))

    def check(self, url: str, groups: Collection[Group], is_prefix: bool = False) -> None:
        """Raises: ForbiddenError with the list, if members of these groups may not read an address; RequestError if
        servers could take it for another one. is_prefix: if nothing that begins so may be read."""
        if self.allowed is None:
            return
        parts, path = urlsplit(url), plain_path(url)
        mine = [one for one in self.allowed if may(one.groups, groups)]
        if any(one.holds(parts, path, is_prefix) for one in mine):
            return
        told = ", ".join(map(str, mine[:MOST_TOLD])) + (f" and {len(mine) - MOST_TOLD} more" * (len(mine) > MOST_TOLD))
        raise ForbiddenError(f"'{url[:200]}' is not among what you may read here: {told or 'nothing'}")


EVERYTHING = Sources()
"""Every address may be read, and is its own door."""


def plain_path(url: str) -> str:
    """The path of an address, which begins with one '/' and is what every server takes it for. Raises: RequestError."""
    parts = urlsplit(url)
    path = url.partition("://")[2].partition("/")[2].partition("?")[0]
    path = path.removeprefix("/") if parts.scheme in XROOTD else path
    if not _HOST.fullmatch(parts.netloc):
        raise RequestError(f"'{url[:200]}' has more before its path than a host and a port; leave that out")
    if _AMBIGUOUS.search(path) or {"", ".", ".."} & set(path.split("/")[:-1]) or path.split("/")[-1] in (".", ".."):
        raise RequestError(f"'{url[:200]}' has a path with '//', '.', '..' or coded signs in it; write the plain path")
    return "/" + (unquote(path) if parts.scheme in WEB else path)


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
    doors = [tuple(_door(door, what) for door in _texts(found, key, what)) for key in ("caches", "origins")]
    if not hosts or not any(doors):
        raise ValueError(f"{what} needs 'hosts', and 'caches' or 'origins'")
    return Federation(name, hosts, *doors)


def _allowed(values: Any, issuer: str) -> Allowed:
    found = _known(values, "an entry of 'allowed'", ("schemes", "host", "path", "groups"))
    what = f"the entry of 'allowed' for host '{found.get('host')}'"
    schemes, path = tuple(_texts(found, "schemes", what)), found.get("path", "/")
    if not schemes or not set(schemes) <= set(SCHEMES):
        raise ValueError(f"{what}: 'schemes' has some of {', '.join(SCHEMES)}")
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{what}: 'path' begins with one '/'")
    groups = frozenset(group_named(name, issuer) for name in _texts(found, "groups", what))
    return Allowed(schemes, _host(found.get("host"), what), path, groups if "groups" in found else None)


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
    if not isinstance(text, str) or not _HOST.fullmatch(text):
        raise ValueError(f"{what}: a host is a name, or name:port")
    return text.lower()


def _door(text: str, what: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not _HOST.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ValueError(f"{what}: '{text}' is no door, as in root://host:port or https://host/folder")
    return text.rstrip("/")


def _is_of(parts: SplitResult, host: str) -> bool:
    """Whether an address is at a host of the file."""
    netloc = parts.netloc.rpartition("@")[2].lower()
    return netloc == host or (parts.hostname or "") in (host, host.strip("[]"))


def _behind(door: str, url: str) -> str:
    """Where a door has the file of an address."""
    of_web, to_web = (urlsplit(one).scheme in WEB for one in (url, door))
    path, mark, query = url.partition("://")[2].partition("/")[2].lstrip("/").partition("?")
    path = unquote(path) if of_web and not to_web else quote(path) if to_web and not of_web else path
    to_xrootd = urlsplit(door).scheme in XROOTD
    same = urlsplit(url).scheme in (XROOTD if to_xrootd else WEB)
    return f"{door}{'//' if to_xrootd else '/'}{path}{mark + query if same else ''}"
