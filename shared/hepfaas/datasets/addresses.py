"""Which addresses a function may read for a person it does not know. Light: no reader is imported here."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from hepfaas.datasets.sources import SCHEMES, XROOTD, Sources
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform import hosts
from hepfaas.platform.roles import Group

_READ = "functions read root://, s3://, http(s):// and dav(s):// addresses, and files that came with the job"
_OURS = re.compile(r"(?:^|[?&])(?:xrd[a-z]*\.|authz=)", re.I)
"""Of an address's query what steers the client itself, its credentials among that."""


def check_file(
    url: str, allow_private: bool, sources: Sources, groups: Collection[Group], is_prefix: bool = False
) -> None:
    """Raises: as `check_address`, and ForbiddenError if members of these groups may not read a file, or none whose
    address begins so. Federations of the operator's file may be in a private network."""
    check_address(url, allow_private=True)
    sources.check(url, groups, is_prefix)
    check_address(url, allow_private or is_prefix or sources.federation_of(url) is not None)


def check_address(url: str, allow_private: bool) -> None:
    """Raises: RequestError if a function must not read it: a path of its own machine, an unknown scheme, an address
    with a password or a token in it, or a host on a private network unless those are allowed; UnavailableError if the
    host's name cannot be resolved just now."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RequestError(f"'{url[:200]}' is no address: {error}") from error
    if parts.scheme not in SCHEMES:
        raise RequestError(f"'{url[:200]}' cannot be read by a function: {_READ}")
    if parts.password:
        raise RequestError(f"the address of host '{host}' has a password in it; addresses are stored and shown")
    if parts.scheme in XROOTD and (parts.username is not None or _OURS.search(url.partition("?")[2])):
        raise RequestError(
            f"the address of host '{host}' has a user, a token or a setting of the client in it; POST /v1/credentials "
            "what is to be shown there"
        )
    if not host:
        raise RequestError(f"'{url[:200]}' names no host")
    if parts.scheme != "s3" and not allow_private:
        hosts.check_public(host, _addresses(host, port))


def is_private(url: str) -> bool:
    """Whether an address is in a private network. Raises: RequestError; UnavailableError, as `check_address`."""
    parts = urlsplit(url)
    return any(not hosts.is_public(address) for address in _addresses(parts.hostname or "", parts.port))


def check_is_not_ours(url: str, store: str) -> None:
    """Raises: RequestError if an address leads into the bucket of the store, which holds what others sent as well."""
    parts, ours = urlsplit(url), urlsplit(store)
    if parts.scheme == ours.scheme == "s3" and parts.hostname == ours.hostname:
        raise RequestError(f"'{url[:200]}' is in the bucket of this service, which holds what others sent as well")


def _addresses(host: str, port: int | None) -> tuple[str, ...]:
    try:
        return hosts.addresses(host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise UnavailableError(f"the name of host '{host}' cannot be resolved just now") from error
        raise RequestError(f"there is no host '{host}'") from error
    except UnicodeError as error:
        raise RequestError(f"'{host[:100]}' is no name of a host") from error
