"""The matches of wildcards in the addresses of a job, found on the machine that sends it: services list no servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hepfaas.datasets.files import Locations
from hepfaas.datasets.listings import listable, on_server
from hepfaas.errors import RequestError
from hepfaas.jobs.data import data_in
from hepfaas.jobs.names import chosen_in
from hepfaas.jobs.texts import texts_in


def matches_in(folder: Path, options: Mapping[str, str]) -> bytes:
    """Return the content of matches.json for the job in a folder, b'' if its addresses have no wildcards.

    options: names that the user gave. Mistakes in a job without wildcards are left for the service to find.
    Raises: RequestError if a wildcard has no match, or the job has another mistake; UnavailableError.
    """
    matches: dict[str, list[str]] = {}

    def listing(pattern: str) -> list[str]:
        address = str(listable(pattern))
        matches[address] = []
        matches[address] += on_server(address)
        return matches[address]

    try:
        texts = texts_in(folder)
        chosen = chosen_in(texts, options)
        data_in(texts, chosen, Locations(listing, chosen.params.redirector, folder))
    except RequestError:
        if matches:
            raise
    return json.dumps(matches).encode() if matches else b""
