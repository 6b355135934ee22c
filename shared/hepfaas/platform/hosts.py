"""Addresses of hosts, and whether they are public. Light: only the standard library."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from hepfaas.errors import RequestError


def addresses(host: str, port: int | None) -> tuple[str, ...]:
    """Return the addresses of a host in the order to try them. Raises: socket.gaierror; UnicodeError."""
    infos = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(info[4][0]) for info in infos))


def check_public(host: str, addresses: Iterable[str]) -> None:
    """Raise RequestError if one of a host's addresses is private."""
    for address in addresses:
        if not is_public(address):
            raise RequestError(
                f"host '{host}' is at {address}, a private address, which functions do not read from; the operator "
                "may allow it (HEPFAAS_ALLOW_PRIVATE=1)"
            )


def is_public(text: str) -> bool:
    """Return whether an address is on the public internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = _ipv4_behind(address) or address
    return address.is_global and not address.is_multicast


def _ipv4_behind(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address in an IPv6 address: mapped, 6to4, NAT64 (RFC 6052) or compatible (RFC 4291)."""
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if any(address in network for network in _WITH_IPV4) and int(address) > 1:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


_WITH_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
