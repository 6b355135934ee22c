"""Streams of a run: its steps as server-sent events, its log as lines. Read from the store alone."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from hepfaas.errors import LimitError, UnavailableError
from hepfaas.orchestration import records
from hepfaas.orchestration.records import Entry
from hepfaas.platform.clock import utc
from hepfaas.platform.settings import STREAM_S
from hepfaas.platform.storage import Store
from hepfaas.platform.terminal import PRINTED, visible, visible_lines
from hepfaas.runs.steps import Open, Spec
from hepfaas.steps.objects import result_if_there
from hepfaas.views import overview

KEEP_ALIVE = "\r"
"""In the log while there is nothing new: a carriage return at the beginning of a line, which no terminal shows."""

LOOK_S = 1.0
MOST_FOLLOWERS, MOST_OF_ONE = 8, 4
"""Streams that a process keeps open at a time, half of the requests that it answers at once; and those of one owner."""

MOST_ENDING = 4
"""Most displaced streams that have not ended yet, because their clients read slowly."""

SETTLE_S = 1.0
"""Entries are sent at this age: by then entries of other functions with earlier times exist as well."""


class Follower:
    """One stream of an owner. `leave` must be called when it has ended; a second call has no effect."""

    def __init__(self, owner: str, followers: Followers) -> None:
        self.owner, self._followers, self._displaced = owner, followers, False

    def is_displaced(self) -> bool:
        """Return whether the stream must end now because another owner needs its place."""
        return self._displaced

    def displace(self) -> None:
        """Make the stream end at its next look, LOOK_S later at most."""
        self._displaced = True

    def leave(self) -> None:
        """Give the place back."""
        self._followers.forget(self)


class Followers:
    """The open streams of this process: few enough to leave room for other requests, and shared among owners.

    While all places are taken, a new stream displaces the oldest stream of the owner with the most streams, if this
    owner still has at least as many afterwards. So a few owners cannot keep the others out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Follower] = []  # the oldest first

    def join(self, owner: str) -> Follower:
        """Return a place for one stream. Raises: LimitError if the owner has too many streams; UnavailableError."""
        with self._lock:
            active = [one for one in self._open if not one.is_displaced()]
            of = Counter(one.owner for one in active)
            if sum(one.owner == owner for one in self._open) >= MOST_OF_ONE:  # also those that are ending
                raise LimitError(f"you follow {MOST_OF_ONE} runs already; poll GET /v1/runs/<run> instead")
            if len(active) >= MOST_FOLLOWERS:
                largest, count = of.most_common(1)[0]
                if count <= of[owner] + 1 or len(self._open) - len(active) >= MOST_ENDING:
                    raise UnavailableError("too many clients follow runs just now; poll GET /v1/runs/<run> instead")
                next(one for one in active if one.owner == largest).displace()
            self._open.append(follower := Follower(owner, self))
        return follower

    def forget(self, follower: Follower) -> None:
        """Remove a stream that has ended."""
        with self._lock:
            self._open = [one for one in self._open if one is not follower]


def follow_events(
    store: Store, run: str, after: str, *, most_s: float = STREAM_S, is_displaced: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """Yield server-sent events: `status` first, `step` for each entry after the mark `after`, `end` when the run ends.

    When time is up, or the stream is displaced, it ends without `end`; a client that reconnects with the last mark
    misses nothing.
    """
    is_over = _over(most_s, is_displaced)
    yield _event("status", overview.row(store, run).to_json(), after)
    for entry in _entries(store, run, after, is_over):
        if entry is None:
            yield ": still there\n\n"
            continue
        after = records.mark_of(entry)
        yield _event("step", asdict(entry), after)
    end = records.last_end(store, run)
    if end and not is_over():
        yield _event("end", asdict(end), after)


def follow_log(
    store: Store,
    run: str,
    *,
    step: str = "",
    follow: bool = False,
    after: str = "",
    most_s: float = STREAM_S,
    is_displaced: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Yield the lines of the log after a mark: each step with its seconds and its output.

    When time is up, the last line has the mark to continue with. While there is nothing new, KEEP_ALIVE is sent, since
    only a write shows that the client has gone.
    """
    is_over = _over(most_s, is_displaced)
    for entry in _entries(store, run, after, is_over) if follow else records.log_of(store, run, after):
        if entry is None:
            yield KEEP_ALIVE
            continue
        after = records.mark_of(entry)
        if step and entry.kind != step and not entry.key.rpartition("/")[2].startswith(step):
            continue
        for line in (*lines_of(entry), *notes_of(entry, store)):
            yield f"{line}\n"
    end = records.last_end(store, run)
    if follow and is_over():
        yield f"run {run}: more by ?follow=1&after={after}\n"
    elif end:
        yield f"run {run} {end.state}{': ' + visible_lines(end.error, PRINTED) if end.error else ''}\n"


def lines_of(entry: Entry) -> Iterator[str]:
    """Yield the lines of one log entry, escaped. Output of user code begins with `PRINTED`, so that it cannot look like
    a line of hepfaas."""
    yield visible(f"{utc(entry.time)}  {entry.kind:<8} {entry.key.rpartition('/')[2][:12]}  {entry.seconds:7.2f} s")
    for line in entry.lines:
        yield f"{PRINTED}{visible(line)}"
    if entry.error:
        yield from f"          failed: {visible_lines(entry.error, PRINTED)}".split("\n")


def notes_of(entry: Entry, store: Store) -> Iterator[str]:
    """Yield a line for each note in the result of a step, as far as it exists."""
    if entry.kind not in (Open.kind, Spec.kind) or entry.error:
        return
    result = result_if_there(entry.key, store) or {}
    if reason := result.get("skipped"):
        yield f"          note: the file is skipped: {visible(reason)}"
    if entry.kind == Spec.kind:
        for note in result.get("notes", ()):
            yield f"          note: {visible(note)}"


def _over(most_s: float, is_displaced: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that says whether a stream that begins now must end."""
    stop = time.monotonic() + most_s
    return lambda: is_displaced() or time.monotonic() > stop


def _entries(store: Store, run: str, after: str, is_over: Callable[[], bool]) -> Iterator[Entry | None]:
    """Yield entries after a mark as they come, None while there is nothing new, until the run or the stream ends."""
    while True:
        ended = records.last_end(store, run) is not None
        for entry in records.log_of(store, run, after):
            if is_over():
                return
            if not ended and entry.time > time.time() - SETTLE_S:
                break
            after = records.mark_of(entry)
            yield entry
        if ended or is_over():
            return
        yield None
        time.sleep(LOOK_S)


def _event(name: str, values: object, mark: str) -> str:
    mark = f"id: {mark}\n" if mark else ""
    return f"event: {name}\n{mark}data: {json.dumps(values)}\n\n"
