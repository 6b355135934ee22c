"""The addresses that a job names: its files and its webhook."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hepfaas.datasets.address_checks import check_address, check_file, check_is_not_ours
from hepfaas.datasets.files import MOST_ADDRESS, READ
from hepfaas.datasets.sources import EVERYTHING, Sources
from hepfaas.errors import RequestError
from hepfaas.jobs.job import Place
from hepfaas.jobs.uploads import stored_file
from hepfaas.platform.roles import Group
from hepfaas.platform.storage import Store


def place_files(
    store: Store, allow_private: bool, sources: Sources = EVERYTHING, groups: Collection[Group] = ()
) -> Place:
    """Return a function that gives the URL at which steps read a file: a file that came with the job is stored, an
    address must be allowed to members of these groups."""

    def place(url: str, folder: Path | None) -> str:
        if "://" in url:
            address = check_file(url, allow_private, sources, groups)
            check_is_not_ours(address, store.url)
            return str(address)
        path = Path(url)
        if folder is None or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise RequestError(f"file '{path.name}' did not come with the job; {READ}")
        return f"{store.url}/{stored_file(path, store)}"

    return place


def check_webhook(url: str, allow_private: bool) -> str:
    """Return the normal form of a webhook's address, '' for none. Raises: RequestError if it is not allowed."""
    if not url:
        return ""
    if len(url) > MOST_ADDRESS or not url.startswith(("http://", "https://")):
        raise RequestError(f"webhook is '{url[:200]}'; it takes an http(s):// address")
    return str(check_address(url, allow_private, with_query=True))
