"""What the store remembers of runs beside their results: what was asked, how attempts ended, and the log.

runs/<run>/request.json              the recipe and what was told the user
runs/<run>/attempts/<n>/begin.json   a retry; the first attempt needs none
runs/<run>/attempts/<n>/failed/<kind>-<hash>   why a step cannot be done
runs/<run>/attempts/<n>/end.json     completed, failed or cancelled; whoever creates it decides
runs/<run>/sent/<n>/<phase>/<first>-<count>/<k>   when the k-th events went out for these steps of a phase
runs/<run>/log/<time>-<kind>-<key>   one object a step: seconds, what the user's code printed, why it failed
runs/<run>/trouble/<n>/<time>-<kind>-<key>     something was away, and the step will be tried again
runs/<run>/served/<kind>-<key>/<events>-<door>   who served what a step read
runs/<run>/deleted.json              a tombstone
newest/<time, backwards>-<run>       the list of runs, newest first
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.storage import Store
from hepfaas.runs.kinds import AnyRecipe, recipe_from_json

MOST_MS = 10**14
"""Milliseconds since 1970 that will not come before the year 5000."""


@dataclass(frozen=True)
class Request:
    """What was asked: the recipe of any kind, when (seconds since 1970), and notes that the user was told.

    trace: the W3C trace context of the request. webhook: who wants to be told of the run's events.
    asked: values that the one who asked may want back, e.g. the rule that started the run. once: mark of a request
    that is made once however often it is sent. submitter: who asked: issuer, subject, name, and the group that he did
    it for; his groups then.
    """

    recipe: AnyRecipe
    created: float
    notes: tuple[str, ...] = ()
    trace: str = ""
    webhook: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    once: str = ""
    submitter: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "recipe": self.recipe.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """What `to_json` gave, also after a journey through JSON text."""
        return cls(**{**values, "recipe": recipe_from_json(values["recipe"]), "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class End:
    """How an attempt ended. state: completed, failed or cancelled; of a completed one model, '<name>/<version>', or
    refused: why its gate let none be published, or scores: how many events a prediction scored."""

    state: str
    time: float
    error: str = ""
    model: str = ""
    refused: str = ""
    scores: int | None = None


@dataclass(frozen=True)
class Attempt:
    """The last attempt of a run. failed: keys of steps that cannot be done, and why."""

    number: int
    end: End | None
    failed: dict[str, str]


@dataclass(frozen=True)
class Sent:
    """Events for `count` steps of a phase from the `first` on, sent so many times, last at `time`."""

    first: int
    count: int
    times: int


@dataclass(frozen=True)
class Entry:
    """One step that was done, when it ended (seconds since 1970) and what it printed; or why it cannot be done."""

    time: float
    kind: str
    key: str
    seconds: float
    events: int = 0
    lines: tuple[str, ...] = field(default=())
    error: str = ""


def start(store: Store, request: Request) -> str:
    """The run that this recipe asks for: one that has not completed goes on, otherwise a new '<name>-<k>'."""
    _list_last(store, request.recipe.name)
    for run in [run for _, run in newest(store) if run.rpartition("-")[0] == request.recipe.name]:
        ended = last_end(store, run)
        if request_of(store, run).recipe == request.recipe and (ended is None or ended.state == "failed"):
            return run
    return create(store, request)


def _list_last(store: Store, name: str) -> None:
    """Lists the last run of a name, should who made it have been killed before that."""
    number = int(next_name(store, name).rpartition("-")[2]) - 1
    run = f"{name}-{number}"
    if number and is_there(store, run) and not is_deleted(store, run):
        _list(store, run, request_of(store, run))


def create(store: Store, request: Request) -> str:
    """A new run, '<name>-<k>'."""
    while not _write(store, run := next_name(store, request.recipe.name), request):
        pass  # another one took that name just now: the next is another
    _list(store, run, request)
    return run


def create_as(store: Store, run: str, request: Request) -> bool:
    """Makes the run of a request that is made once, or ends what somebody began; False if the name is another's."""
    if is_deleted(store, run):
        return False
    made = request if _write(store, run, request) else request_of(store, run)
    if made.once == request.once:
        _list(store, run, made)
    return made.once == request.once


def next_name(store: Store, name: str) -> str:
    """The name that the next run of a model gets: the first one free. Names are given in order and never again, so it
    is found by doubling and halving, in a few looks however many runs there are."""

    def is_free(number: int) -> bool:
        run = f"{name}-{number}"
        return not is_there(store, run) and not is_deleted(store, run)

    behind = 1
    while not is_free(behind):
        behind *= 2
    return f"{name}-{bisect_left(range(behind), True, lo=behind // 2 + 1, key=is_free)}"


def runs(store: Store) -> list[str]:
    """All runs, in the order of their names and numbers."""
    found = {run for _, run in newest(store)}
    return sorted(found, key=lambda run: (run.rpartition("-")[0], int(run.rpartition("-")[2])))


def newest(store: Store, after: str = "") -> Iterator[tuple[str, str]]:
    """All runs, newest first, each with what to give as `after` to go on behind it."""
    for key in store.keys("newest/", f"newest/{after}" if after else ""):
        mark = key.partition("/")[2]
        yield mark, mark[15:]


def request_of(store: Store, run: str) -> Request:
    """What was asked. Raises: RequestError if there is no such run."""
    try:
        values = json.loads(store.get(f"runs/{run}/request.json"))
    except (MissingError, ValueError) as error:
        raise RequestError(
            f"store {store.url} has no run '{run}'; `hepfaas runs` lists them",
            outside=f"there is no run '{run}'; GET /v1/runs lists them",
        ) from error
    return Request.from_json(values)


def is_there(store: Store, run: str) -> bool:
    """Whether somebody asked for this run."""
    return store.size_bytes(f"runs/{run}/request.json") is not None


def attempt_of(store: Store, run: str) -> int:
    """Number of the attempt that is under way or would be next: one more than have ended."""
    last = attempt(store, run)
    return last.number + (last.end is not None)


def attempt(store: Store, run: str) -> Attempt:
    """The last attempt that was begun."""
    keys = list(store.keys(f"runs/{run}/attempts/"))
    number = max((int(key.split("/")[3]) for key in keys), default=1)
    place = f"runs/{run}/attempts/{number}/"
    end = End(**json.loads(store.get(f"{place}end.json"))) if f"{place}end.json" in keys else None
    failed = [json.loads(store.get(key)) for key in keys if key.startswith(f"{place}failed/")]
    return Attempt(number, end, {found["key"]: found["error"] for found in failed})


def has_ended(store: Store, run: str, number: int) -> bool:
    """Whether somebody said how this attempt ended."""
    return store.size_bytes(f"runs/{run}/attempts/{number}/end.json") is not None


def begin(store: Store, run: str, number: int) -> bool:
    """Begins an attempt after one that has ended; False if somebody was first."""
    return store.create(f"runs/{run}/attempts/{number}/begin.json", b"{}")


def fail(store: Store, run: str, number: int, step: str, error: str) -> None:
    """Remembers that a step cannot be done, and why."""
    _, kind, name = step.split("/")
    data = json.dumps({"key": step, "error": error}).encode()
    store.create(f"runs/{run}/attempts/{number}/failed/{kind}-{name}", data)


def end(store: Store, run: str, attempt: int, how: End) -> bool:
    """Says how an attempt ended; the first to say so decides, and is told True."""
    return store.create(f"runs/{run}/attempts/{attempt}/end.json", json.dumps(asdict(how)).encode())


def last_end(store: Store, run: str) -> End | None:
    """How the last attempt ended, None while it is under way."""
    return attempt(store, run).end


def is_deleted(store: Store, run: str) -> bool:
    """Whether a run has its tombstone."""
    return store.size_bytes(f"runs/{run}/deleted.json") is not None


def deleted_at(store: Store, run: str) -> float | None:
    """When a run got its tombstone (seconds since 1970)."""
    try:
        return float(json.loads(store.get(f"runs/{run}/deleted.json"))["time"])
    except MissingError:
        return None


def remove(store: Store, run: str) -> None:
    """Removes what is remembered of a run but its tombstone, so that its name is never used again."""
    for key in list(store.keys(f"runs/{run}/")):
        if not key.endswith("/deleted.json"):
            store.delete(key)
    for mark in [mark for mark, name in newest(store) if name == run]:
        store.delete(f"newest/{mark}")


def sent(store: Store, run: str, attempt: int, phase: str) -> list[Sent]:
    """What was sent of a phase, in the order of its steps."""
    times: defaultdict[tuple[int, int], int] = defaultdict(int)
    for key in store.keys(f"runs/{run}/sent/{attempt}/{phase}/"):
        slice_, number = key.split("/")[5:]
        first, count = map(int, slice_.split("-"))
        times[first, count] = max(times[first, count], int(number))
    return [Sent(first, count, number) for (first, count), number in sorted(times.items())]


def mark_sent(store: Store, run: str, attempt: int, phase: str, what: Sent, time: float) -> None:
    """Remembers that events went out."""
    data = json.dumps({"time": time}).encode()
    store.create(f"runs/{run}/sent/{attempt}/{phase}/{what.first:06d}-{what.count}/{what.times}", data)


def sent_at(store: Store, run: str, attempt: int, phase: str, what: Sent) -> float:
    """When they last did (seconds since 1970)."""
    key = f"runs/{run}/sent/{attempt}/{phase}/{what.first:06d}-{what.count}/{what.times}"
    return float(json.loads(store.get(key))["time"])


def trouble(store: Store, run: str, attempt: int, step: str, time: float, error: str) -> None:
    """Remembers that something was away while a step was tried."""
    data = json.dumps({"key": step, "time": time, "error": error}).encode()
    store.create(f"runs/{run}/trouble/{attempt}/{_stamp(time, step)}", data)


def troubles(store: Store, run: str, attempt: int) -> list[str]:
    """Keys of what is remembered of such, in the order of time."""
    return list(store.keys(f"runs/{run}/trouble/{attempt}/"))


def trouble_at(store: Store, key: str) -> str:
    """What one of them was."""
    return str(json.loads(store.get(key))["error"])


def log(store: Store, run: str, entry: Entry) -> None:
    """Adds one step to the run's log."""
    store.create(f"runs/{run}/log/{_stamp(entry.time, entry.key)}", json.dumps(asdict(entry)).encode())


def log_of(store: Store, run: str, after: str = "") -> Iterator[Entry]:
    """The run's log, in the order of time; after an entry's mark only what came later."""
    for key in store.keys(f"runs/{run}/log/", f"runs/{run}/log/{after}" if after else ""):
        values: dict[str, Any] = json.loads(store.get(key))
        yield Entry(**{**values, "lines": tuple(values["lines"])})


def mark_of(entry: Entry) -> str:
    """What to give as `after`."""
    return _stamp(entry.time, entry.key)


def served(store: Store, run: str, step: str, events: int, door: str) -> None:
    """Remembers the door that served what a step read: so many events, or one file's header."""
    _, kind, name = step.split("/")
    store.create(f"runs/{run}/served/{kind}-{name}/{events}-{door.replace('://', '=')}", b"")


def served_by(store: Store, run: str) -> dict[str, dict[str, int]]:
    """Events (of open steps files) that each door has served to each kind of steps. A step that was done twice counts
    once."""
    found: dict[str, Counter[str]] = {}
    last = ""
    for key in store.keys(f"runs/{run}/served/"):
        step, told = key.split("/", 4)[3:]
        events, _, door = told.partition("-")
        if step != last:
            found.setdefault(step.partition("-")[0], Counter())[door.replace("=", "://", 1)] += int(events)
        last = step
    return {kind: dict(doors) for kind, doors in found.items()}


def _stamp(time: float, step: str) -> str:
    _, kind, name = step.split("/")
    return f"{int(time * 1e6):017d}-{kind}-{name[:12]}"


def _write(store: Store, run: str, request: Request) -> bool:
    return store.create(f"runs/{run}/request.json", json.dumps(request.to_json(), sort_keys=True).encode())


def _list(store: Store, run: str, request: Request) -> None:
    store.create(f"newest/{MOST_MS - int(request.created * 1000):014d}-{run}", b"")
