"""Checks of the addresses that a function may read for its callers. Light: no reader is imported here."""

from __future__ import annotations

import socket
from collections.abc import Collection

from hepfaas.datasets.sources import Sources
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform import hosts
from hepfaas.platform.address import Address, parsed
from hepfaas.platform.roles import Group


def check_file(url: str, allow_private: bool, sources: Sources, groups: Collection[Group]) -> Address:
    """Return the parsed address of a file, to be recorded and opened.

    Raises: as `check_address`, and ForbiddenError if members of these groups may not read it. Federations in the
    operator's file may be in a private network."""
    address = parsed(url)
    sources.check(address, groups)
    check_host(address, allow_private or sources.federation_of(address) is not None)
    return address


def check_address(url: str, allow_private: bool, with_query: bool = False) -> Address:
    """Return the parsed address. with_query: whether it may have a query, which is stored with it.

    Raises: RequestError if a function must not read it: a local path, an unknown scheme, an address that two clients
    could parse differently or that contains a password or a token, or a host on a private network unless those are
    allowed; UnavailableError if the host name cannot be resolved at the moment."""
    address = parsed(url, with_query)
    check_host(address, allow_private)
    return address


def check_host(address: Address, allow_private: bool) -> None:
    """Check that the host is public, unless private networks are allowed. Raises: RequestError; UnavailableError."""
    if address.scheme != "s3" and not allow_private:
        hosts.check_public(address.host, _addresses(address))


def is_private(address: Address) -> bool:
    """Return whether an address is in a private network. Raises: RequestError; UnavailableError, as `check_address`."""
    return any(not hosts.is_public(ip) for ip in _addresses(address))


def check_is_not_ours(address: Address, store: str) -> None:
    """Raise RequestError if an address is in the bucket of the store, which has the files of all owners."""
    bucket = store.removeprefix("s3://").partition("/")[0]
    if address.scheme == "s3" and store.startswith("s3://") and address.host.lower() == bucket.lower():
        raise RequestError(f"'{address}' is in the bucket of this service, which has the files of all owners")


def _addresses(address: Address) -> tuple[str, ...]:
    try:
        return hosts.addresses(address.host, address.connects_to)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise UnavailableError(f"the name of host '{address.host}' cannot be resolved at the moment") from error
        raise RequestError(f"host '{address.host}' does not exist") from error
    except UnicodeError as error:
        raise RequestError(f"'{address.host[:100]}' is not a host name") from error
