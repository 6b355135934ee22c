"""Finds the files that wildcards in addresses match, on XRootD servers and in buckets, on the machine of a user.

Servers are asked with the user's own credentials. Functions do not list servers: they get the matches with the job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from hepfaas.datasets.errors import translated_errors
from hepfaas.datasets.wildcards import MOST_ENTRIES, SIGNS, Entry, Folder, found
from hepfaas.errors import RequestError
from hepfaas.platform.address import WEB, Address, parsed

Listing = Callable[[str], Sequence[str]]
"""Return the addresses of the files that an address with wildcards matches, sorted."""


def on_server(pattern: str) -> tuple[str, ...]:
    """Return the addresses of the files that an address with wildcards matches, sorted.

    Raises: RequestError if there are none, or if the server has no folders that can be listed; UnavailableError.
    """
    address = listable(pattern)
    is_key = address.scheme == "s3"
    path = address.path.removeprefix("/") if is_key else address.path
    with translated_errors(str(address)):
        try:
            folder = _in_bucket(address) if is_key else _on_xrootd(address)
            paths = found(path, folder, SIGNS[address.scheme], str(address))
        except ModuleNotFoundError as error:
            raise RequestError(
                f"'{address}' has a wildcard, and the client that lists its server is not installed: install "
                f"hepfaas[{'s3' if is_key else 'root'}], or name each file"
            ) from error
    return tuple(str(parsed(str(replace(address, path=f"/{path}" if is_key else path)))) for path in paths)


def listable(pattern: str) -> Address:
    """Return the parsed address. Raises: RequestError if it is not an address, or if its server has no folders that can
    be listed."""
    address = parsed(pattern)
    if address.scheme in WEB:
        raise RequestError(
            f"'{address}' has a wildcard, and web servers do not list their folders; name each file ('%2A' is the "
            "character '*')"
        )
    return address


def _in_bucket(address: Address) -> Folder:
    from hepfaas.platform.s3 import S3Store  # each client: only where it is used

    store = S3Store(address.host, "")

    def entries(path: str, start: str) -> Sequence[Entry]:
        return [Entry(*one) for one in islice(store.folder(path, start), MOST_ENTRIES + 1)]

    return entries


def _on_xrootd(address: Address) -> Folder:
    from hepfaas.datasets import xrootd_source

    def entries(path: str, start: str) -> Sequence[Entry]:
        return [Entry(*one) for one in xrootd_source.folder(address.origin, path)]

    return entries
