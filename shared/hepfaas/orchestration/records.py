"""Records of runs beside their results: the request, how attempts ended, and the log.

runs/<run>/request.json              the recipe and the notes for the user
runs/<run>/attempts/<n>/begin.json   a retry; the first attempt needs none
runs/<run>/attempts/<n>/failed/<kind>-<hash>   why a step cannot be done
runs/<run>/attempts/<n>/end.json     completed, failed or cancelled; the first to create it decides
runs/<run>/sent/<n>/<phase>/<first>-<count>/<k>   when the k-th events went out for these steps of a phase
runs/<run>/log/<time>-<kind>-<key>   one object per step: seconds, output of the user's code, why it failed
runs/<run>/trouble/<n>/<time>-<kind>-<key>     something was unavailable; the step will be tried again
runs/<run>/served/<kind>-<key>/<events>-<door>   the server from which a step read
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
"""Milliseconds since 1970; they pass this number after the year 5000."""


@dataclass(frozen=True)
class Request:
    """A request for a run: the recipe of any kind, when it was created (seconds since 1970), and notes for the user.

    trace: the W3C trace context of the request. webhook: URL that gets the run's events. asked: values that the sender
    may want back, e.g. the rule that started the run. once: mark of a request that begins one run however often it is
    sent. submitter: issuer, subject, name, the group that owns the run, and all groups at the time of the request.
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
        """Return the request that `to_json` gave, also after a round trip through JSON text."""
        return cls(**{**values, "recipe": recipe_from_json(values["recipe"]), "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class End:
    """How an attempt ended. state: completed, failed or cancelled. A completed attempt has model, '<name>/<version>',
    or refused, why its gate did not pass, or scores, the number of events that a prediction scored."""

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
    """Events for `count` steps of a phase from `first` on, sent `times` times."""

    first: int
    count: int
    times: int


@dataclass(frozen=True)
class Entry:
    """One step in the log: when it ended (seconds since 1970), what it printed, and why it failed if it did."""

    time: float
    kind: str
    key: str
    seconds: float
    events: int = 0
    lines: tuple[str, ...] = field(default=())
    error: str = ""


def start(store: Store, request: Request) -> str:
    """Return the run for this recipe: one that has not completed goes on, else a new run '<name>-<k>' begins."""
    _list_last(store, request.recipe.name)
    for run in _runs_of(store, request.recipe.name):
        ended = last_end(store, run)
        if request_of(store, run).recipe == request.recipe and (ended is None or ended.state == "failed"):
            return run
    return create(store, request)


def was_completed(store: Store, recipe: AnyRecipe) -> bool:
    """Return whether a run of the same name with this recipe has completed, so that most of its results exist."""
    for run in _runs_of(store, recipe.name):
        ended = last_end(store, run)
        if ended and ended.state == "completed" and request_of(store, run).recipe == recipe:
            return True
    return False


def _runs_of(store: Store, name: str) -> list[str]:
    return [run for _, run in newest(store) if run.rpartition("-")[0] == name]


def _list_last(store: Store, name: str) -> None:
    """List the last run of a name, in case its creator was killed before it did."""
    number = int(next_name(store, name).rpartition("-")[2]) - 1
    run = f"{name}-{number}"
    if number and is_there(store, run) and not is_deleted(store, run):
        _list(store, run, request_of(store, run))


def create(store: Store, request: Request) -> str:
    """Create a run and return its name, '<name>-<k>'."""
    while not _write(store, run := next_name(store, request.recipe.name), request):
        pass  # another process took that name just now; try the next one
    _list(store, run, request)
    return run


def create_as(store: Store, run: str, request: Request) -> bool:
    """Create the run of a request that is made once, or finish its creation; False if another request has the name."""
    if is_deleted(store, run):
        return False
    stored = request if _write(store, run, request) else request_of(store, run)
    if stored.once == request.once:
        _list(store, run, stored)
    return stored.once == request.once


def next_name(store: Store, name: str) -> str:
    """Return the name of a model's next run, the first one free. Names are given in order and never reused, so a few
    look-ups, by doubling and halving, find it among any number of runs."""

    def is_free(number: int) -> bool:
        run = f"{name}-{number}"
        return not is_there(store, run) and not is_deleted(store, run)

    stop = 1
    while not is_free(stop):
        stop *= 2
    return f"{name}-{bisect_left(range(stop), True, lo=stop // 2 + 1, key=is_free)}"


def runs(store: Store) -> list[str]:
    """Return all runs, sorted by name and number."""
    return sorted(
        {run for _, run in newest(store)}, key=lambda run: (run.rpartition("-")[0], int(run.rpartition("-")[2]))
    )


def newest(store: Store, after: str = "") -> Iterator[tuple[str, str]]:
    """Yield all runs, newest first, each with its mark; `after` a mark, only the runs that follow it."""
    for key in store.keys("newest/", f"newest/{after}" if after else ""):
        mark = key.partition("/")[2]
        yield mark, mark[15:]


def request_of(store: Store, run: str) -> Request:
    """Return the request of a run. Raises: RequestError if there is no such run."""
    try:
        values = json.loads(store.get(f"runs/{run}/request.json"))
    except (MissingError, ValueError) as error:
        raise RequestError(
            f"store {store.url} has no run '{run}'; `hepfaas runs` lists them",
            outside=f"there is no run '{run}'; GET /v1/runs lists them",
        ) from error
    return Request.from_json(values)


def is_there(store: Store, run: str) -> bool:
    """Return whether a run exists."""
    return store.size_bytes(f"runs/{run}/request.json") is not None


def attempt_of(store: Store, run: str) -> int:
    """Return the number of the attempt that is under way or would be next."""
    last = attempt(store, run)
    return last.number + (last.end is not None)


def attempt(store: Store, run: str) -> Attempt:
    """Return the last attempt that was begun."""
    keys = list(store.keys(f"runs/{run}/attempts/"))
    number = max((int(key.split("/")[3]) for key in keys), default=1)
    place = f"runs/{run}/attempts/{number}/"
    end = End(**json.loads(store.get(f"{place}end.json"))) if f"{place}end.json" in keys else None
    failed = [json.loads(store.get(key)) for key in keys if key.startswith(f"{place}failed/")]
    return Attempt(number, end, {values["key"]: values["error"] for values in failed})


def has_ended(store: Store, run: str, number: int) -> bool:
    """Return whether an attempt has ended."""
    return store.size_bytes(f"runs/{run}/attempts/{number}/end.json") is not None


def begin(store: Store, run: str, number: int) -> bool:
    """Begin an attempt after one that has ended; False if another process was first."""
    return store.create(f"runs/{run}/attempts/{number}/begin.json", b"{}")


def fail(store: Store, run: str, number: int, step: str, error: str) -> None:
    """Record that a step cannot be done, and why."""
    _, kind, name = step.split("/")
    data = json.dumps({"key": step, "error": error}).encode()
    store.create(f"runs/{run}/attempts/{number}/failed/{kind}-{name}", data)


def end(store: Store, run: str, attempt: int, how: End) -> bool:
    """Record how an attempt ended; the first to do so decides and gets True."""
    return store.create(f"runs/{run}/attempts/{attempt}/end.json", json.dumps(asdict(how)).encode())


def last_end(store: Store, run: str) -> End | None:
    """Return how the last attempt ended, None while it is under way."""
    return attempt(store, run).end


def is_deleted(store: Store, run: str) -> bool:
    """Return whether a run has its tombstone."""
    return store.size_bytes(f"runs/{run}/deleted.json") is not None


def deleted_at(store: Store, run: str) -> float | None:
    """Return when a run got its tombstone (seconds since 1970), None if it has none."""
    try:
        return float(json.loads(store.get(f"runs/{run}/deleted.json"))["time"])
    except MissingError:
        return None


def remove(store: Store, run: str) -> None:
    """Remove the records of a run except its tombstone, so that its name is never used again."""
    for key in list(store.keys(f"runs/{run}/")):
        if not key.endswith("/deleted.json"):
            store.delete(key)
    for mark in [mark for mark, name in newest(store) if name == run]:
        store.delete(f"newest/{mark}")


def sent(store: Store, run: str, attempt: int, phase: str) -> list[Sent]:
    """Return what was sent of a phase, in the order of its steps."""
    times: defaultdict[tuple[int, int], int] = defaultdict(int)
    for key in store.keys(f"runs/{run}/sent/{attempt}/{phase}/"):
        slice_, number = key.split("/")[5:]
        first, count = map(int, slice_.split("-"))
        times[first, count] = max(times[first, count], int(number))
    return [Sent(first, count, number) for (first, count), number in sorted(times.items())]


def mark_sent(store: Store, run: str, attempt: int, phase: str, slice_: Sent, time: float) -> None:
    """Record that events were sent."""
    data = json.dumps({"time": time}).encode()
    store.create(f"runs/{run}/sent/{attempt}/{phase}/{slice_.first:06d}-{slice_.count}/{slice_.times}", data)


def sent_at(store: Store, run: str, attempt: int, phase: str, slice_: Sent) -> float:
    """Return when they were last sent (seconds since 1970)."""
    key = f"runs/{run}/sent/{attempt}/{phase}/{slice_.first:06d}-{slice_.count}/{slice_.times}"
    return float(json.loads(store.get(key))["time"])


def trouble(store: Store, run: str, attempt: int, step: str, time: float, error: str) -> None:
    """Record that something was unavailable while a step was tried."""
    data = json.dumps({"key": step, "time": time, "error": error}).encode()
    store.create(f"runs/{run}/trouble/{attempt}/{_stamp(time, step)}", data)


def troubles(store: Store, run: str, attempt: int) -> list[str]:
    """Return the keys of these records, oldest first."""
    return list(store.keys(f"runs/{run}/trouble/{attempt}/"))


def trouble_at(store: Store, key: str) -> str:
    """Return the error in one of these records."""
    return str(json.loads(store.get(key))["error"])


def log(store: Store, run: str, entry: Entry) -> None:
    """Add one step to the run's log."""
    store.create(f"runs/{run}/log/{_stamp(entry.time, entry.key)}", json.dumps(asdict(entry)).encode())


def log_of(store: Store, run: str, after: str = "") -> Iterator[Entry]:
    """Yield the run's log, oldest first; `after` an entry's mark, only later entries."""
    for key in store.keys(f"runs/{run}/log/", f"runs/{run}/log/{after}" if after else ""):
        values: dict[str, Any] = json.loads(store.get(key))
        yield Entry(**{**values, "lines": tuple(values["lines"])})


def mark_of(entry: Entry) -> str:
    """Return the mark of an entry, the `after` of `log_of`."""
    return _stamp(entry.time, entry.key)


def served(store: Store, run: str, step: str, events: int, door: str) -> None:
    """Record the server that a step read from, and how many events, or one file header."""
    _, kind, name = step.split("/")
    store.create(f"runs/{run}/served/{kind}-{name}/{events}-{door.replace('://', '=')}", b"")


def served_by(store: Store, run: str) -> dict[str, dict[str, int]]:
    """Return the events (for open steps the files) that each server has served to each kind of step. A step that was
    done twice counts once."""
    counts: dict[str, Counter[str]] = {}
    last = ""
    for key in store.keys(f"runs/{run}/served/"):
        step, served = key.split("/", 4)[3:]
        events, _, door = served.partition("-")
        if step != last:
            counts.setdefault(step.partition("-")[0], Counter())[door.replace("=", "://", 1)] += int(events)
        last = step
    return {kind: dict(doors) for kind, doors in counts.items()}


def _stamp(time: float, step: str) -> str:
    _, kind, name = step.split("/")
    return f"{int(time * 1e6):017d}-{kind}-{name[:12]}"


def _write(store: Store, run: str, request: Request) -> bool:
    return store.create(f"runs/{run}/request.json", json.dumps(request.to_json(), sort_keys=True).encode())


def _list(store: Store, run: str, request: Request) -> None:
    store.create(f"newest/{MOST_MS - int(request.created * 1000):014d}-{run}", b"")
