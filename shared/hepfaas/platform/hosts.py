"""Names of hosts and their addresses: which are public. Light: the standard library alone."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from hepfaas.errors import RequestError


def addresses(host: str, port: int | None) -> tuple[str, ...]:
    """All addresses of a host, each once, in the order to try them. Raises: socket.gaierror; UnicodeError."""
    found = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))


def check_public(host: str, found: Iterable[str]) -> None:
    """Raises: RequestError if one of a host's addresses is private."""
    for address in found:
        if not is_public(address):
            raise RequestError(
                f"host '{host}' is at {address}, a private address, which functions do not read from; its operator "
                "may allow it (HEPFAAS_ALLOW_PRIVATE=1)"
            )


def is_public(text: str) -> bool:
    """Whether an address is on the internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_global and not address.is_multicast
