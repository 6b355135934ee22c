"""The report of a run or model at a service, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepfaas.client.calls import Client
from hepfaas.errors import RequestError
from hepfaas.platform.storage import is_name

PAGE = "report.html"


def report_at(client: Client, name: str, *, page: bool, plots: bool) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """Return the report of a run, '<model>/<version>' or '<model>' as JSON values, and the files that are wanted."""
    values, name = _values_of(client, name)
    files = {PAGE: client.report_page(name)} if page else {}
    if plots:
        files |= {picture: client.fetch(path) for picture, path in values["pictures"].items() if is_name(picture)}
    return values, files


def _values_of(client: Client, name: str) -> tuple[dict[str, Any], str]:
    """Return the report of a run, a version, or the newest version of a model, and the name of what it is of."""
    try:
        return client.report(name), name
    except RequestError:
        models = (str(row["model"]).partition("/") for row in client.models())
        numbers = [int(number) for model, _, number in models if model == name and number.isdecimal()]
        if not numbers:
            raise
    return client.report(f"{name}/{max(numbers)}"), f"{name}/{max(numbers)}"
