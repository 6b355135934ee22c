"""A run while it goes on, as streams: its steps as server-sent events, its log as lines. Read from the store alone."""

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
from hepfaas.views import overview

STILL_THERE = "\r"
"""In the log: a carriage return at the beginning of a line."""

LOOK_S = 1.0
MOST_FOLLOWERS, MOST_OF_ONE = 8, 4
"""Streams that a process keeps open at a time, half of what it answers at once, and of them one owner's."""

MOST_ENDING = 4
"""Displaced streams that have not ended yet: as many as may wait for clients that read slowly."""

SETTLE_S = 1.0
"""Entries are told when they are so old: by then those of other functions with earlier times are there too."""


class Follower:
    """One stream of an owner. `leave` is called once it has ended; called again it changes nothing."""

    def __init__(self, owner: str, followers: Followers) -> None:
        self.owner, self._followers, self._displaced = owner, followers, False

    def is_displaced(self) -> bool:
        """Whether the stream has to end now, as another owner needs its place."""
        return self._displaced

    def displace(self) -> None:
        """Asks the stream to end at its next look, LOOK_S later at most."""
        self._displaced = True

    def leave(self) -> None:
        """Gives the place back."""
        self._followers.forget(self)


class Followers:
    """The streams of this process: no more than leave room for those who submit and cancel, shared among owners.

    While all places are taken, an owner gets one of the owner who has most, if that one still has as many as him
    afterwards: the oldest stream is displaced. So no number of streams of a few owners keeps another one out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Follower] = []  # the oldest first

    def join(self, owner: str) -> Follower:
        """Return a place for one stream. Raises: LimitError if the owner follows enough; UnavailableError."""
        with self._lock:
            active = [one for one in self._open if not one.is_displaced()]
            of = Counter(one.owner for one in active)
            if sum(one.owner == owner for one in self._open) >= MOST_OF_ONE:  # also those that are ending
                raise LimitError(f"you follow {MOST_OF_ONE} runs already; GET /v1/runs/<run> now and then instead")
            if len(active) >= MOST_FOLLOWERS:
                largest, count = of.most_common(1)[0]
                if count <= of[owner] + 1 or len(self._open) - len(active) >= MOST_ENDING:
                    raise UnavailableError("too many follow runs just now; GET /v1/runs/<run> now and then instead")
                next(one for one in active if one.owner == largest).displace()
            self._open.append(follower := Follower(owner, self))
        return follower

    def forget(self, follower: Follower) -> None:
        """Removes a stream that has ended."""
        with self._lock:
            self._open = [one for one in self._open if one is not follower]


def follow_events(
    store: Store, run: str, after: str, most_s: float = STREAM_S, is_displaced: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """`status` first, `step` for each that was done or failed behind the mark `after`, `end` when the run has ended.
    When time is up, or the stream is displaced, it ends without: who asks again with the last mark misses nothing."""
    is_over = _over(most_s, is_displaced)
    yield _event("status", overview.row(store, run), after)
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
    step: str,
    follow: bool,
    after: str = "",
    most_s: float = STREAM_S,
    is_displaced: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Lines of the log behind a mark: each step with its seconds, and what it printed; when time is up, last the mark
    to ask again with. While there is nothing new, something is written that no terminal shows: else it would not be
    noticed that who reads has gone."""
    is_over = _over(most_s, is_displaced)
    for entry in _entries(store, run, after, is_over) if follow else records.log_of(store, run, after):
        if entry is None:
            yield STILL_THERE
            continue
        after = records.mark_of(entry)
        if step and entry.kind != step and not entry.key.rpartition("/")[2].startswith(step):
            continue
        for line in lines_of(entry):
            yield f"{line}\n"
    end = records.last_end(store, run)
    if follow and is_over():
        yield f"run {run}: more by ?follow=1&after={after}\n"
    elif end:
        yield f"run {run} {end.state}{': ' + visible_lines(end.error, PRINTED) if end.error else ''}\n"


def lines_of(entry: Entry) -> Iterator[str]:
    """Return the lines of one entry of the log, escaped: what user code printed begins with `PRINTED`, so that it
    passes for no line of ours."""
    yield visible(f"{utc(entry.time)}  {entry.kind:<8} {entry.key.rpartition('/')[2][:12]}  {entry.seconds:7.2f} s")
    for line in entry.lines:
        yield f"{PRINTED}{visible(line)}"
    if entry.error:
        yield from f"          failed: {visible_lines(entry.error, PRINTED)}".split("\n")


def _over(most_s: float, is_displaced: Callable[[], bool]) -> Callable[[], bool]:
    """Whether a stream that begins now has to end; once it has, it has for good."""
    stop = time.monotonic() + most_s
    return lambda: is_displaced() or time.monotonic() > stop


def _entries(store: Store, run: str, after: str, is_over: Callable[[], bool]) -> Iterator[Entry | None]:
    """Entries behind a mark as they come, None when there is nothing new; ends when the run does or the stream has
    to."""
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
