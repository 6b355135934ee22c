"""What the store remembers of runs beside their results: what was asked, how attempts ended, and the log.

runs/<run>/request.json            the recipe and what was told the user
runs/<run>/attempts/<n>/end.json   completed or failed; whoever creates it decides, a retry is attempt n + 1
runs/<run>/log/<time>-<kind>-<key> one object a step that was done: seconds, and what the user's code printed
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.storage import Store
from hepfaas.runs.recipe import Recipe


@dataclass(frozen=True)
class Request:
    """What was asked: the recipe, when (seconds since 1970), and notes that the user was told."""

    recipe: Recipe
    created: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """How an attempt ended. state: completed or failed; model: '<name>/<version>' of a completed one."""

    state: str
    time: float
    error: str = ""
    model: str = ""


@dataclass(frozen=True)
class Entry:
    """One step that was done, when it ended (seconds since 1970) and what it printed."""

    time: float
    kind: str
    key: str
    seconds: float
    events: int = 0
    lines: tuple[str, ...] = field(default=())


def start(store: Store, request: Request) -> str:
    """The run that this recipe asks for: one that has not completed goes on, otherwise a new '<name>-<k>'."""
    name = request.recipe.name
    known = [run for run in runs(store) if run.rpartition("-")[0] == name]
    for run in reversed(known):
        ended = last_end(store, run)
        if request_of(store, run).recipe == request.recipe and (ended is None or ended.state == "failed"):
            return run
    data = json.dumps(asdict(request), sort_keys=True).encode()
    number = 1 + max((int(run.rpartition("-")[2]) for run in known), default=0)
    while not store.create(f"runs/{name}-{number}/request.json", data):
        number += 1
    return f"{name}-{number}"


def runs(store: Store) -> list[str]:
    """All runs, in the order of their names and numbers."""
    found = {match[1] for key in store.keys("runs/") if (match := _REQUEST.fullmatch(key))}
    return sorted(found, key=lambda run: (run.rpartition("-")[0], int(run.rpartition("-")[2])))


def request_of(store: Store, run: str) -> Request:
    """What was asked. Raises: RequestError if there is no such run."""
    try:
        values = json.loads(store.get(f"runs/{run}/request.json"))
    except MissingError as error:
        raise RequestError(f"store {store.url} has no run '{run}'; `hepfaas runs` lists them") from error
    return Request(Recipe.from_json(values["recipe"]), values["created"], tuple(values["notes"]))


def attempt_of(store: Store, run: str) -> int:
    """Number of the attempt that is under way or would be next: one more than have ended."""
    return 1 + len(_ends(store, run))


def end(store: Store, run: str, attempt: int, how: End) -> None:
    """Says how an attempt ended; the first to say so decides."""
    store.create(f"runs/{run}/attempts/{attempt}/end.json", json.dumps(asdict(how)).encode())


def last_end(store: Store, run: str) -> End | None:
    """How the last attempt ended, None while the first is under way."""
    ends = _ends(store, run)
    return End(**json.loads(store.get(ends[-1]))) if ends else None


def log(store: Store, run: str, entry: Entry) -> None:
    """Adds one step to the run's log."""
    name = f"{int(entry.time * 1e6):017d}-{entry.kind}-{entry.key.rpartition('/')[2][:12]}"
    store.create(f"runs/{run}/log/{name}", json.dumps(asdict(entry)).encode())


def log_of(store: Store, run: str) -> Iterator[Entry]:
    """The run's log, in the order of time."""
    for key in store.keys(f"runs/{run}/log/"):
        values: dict[str, Any] = json.loads(store.get(key))
        yield Entry(**{**values, "lines": tuple(values["lines"])})


_REQUEST = re.compile(r"runs/([^/]+-[0-9]+)/request\.json")


def _ends(store: Store, run: str) -> Sequence[str]:
    keys = store.keys(f"runs/{run}/attempts/")
    return sorted(keys, key=lambda key: int(key.split("/")[3]))
