"""The sum of the results of open steps: one list, in which equal lists of branches are stored once. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SHARED = ("features", "left_out", "inputs", "extra")


def joined(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of results of open steps, or of such sums."""
    lists: list[Any] = []
    files = [
        {**file, **{name: _number(lists, file[name]) for name in _SHARED if name in file}}
        for result in results
        for file in files_of(result)
    ]
    return {"lists": lists, "files": files}


def files_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the result of each file, from a sum or from a single result."""
    if "lists" not in result:
        return [result]
    lists = result["lists"]
    return [{**file, **{name: lists[file[name]] for name in _SHARED if name in file}} for file in result["files"]]


def _number(lists: list[Any], wanted: Any) -> int:
    if wanted not in lists:
        lists.append(wanted)
    return lists.index(wanted)
