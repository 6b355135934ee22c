"""A run while it goes on, as streams: its steps as server-sent events, its log as lines. Read from the store alone."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from hepfaas.errors import LimitError, UnavailableError
from hepfaas.platform import records
from hepfaas.platform.records import Entry
from hepfaas.platform.settings import STREAM_S
from hepfaas.platform.storage import Store
from hepfaas.service import overview

STILL_THERE = "\r"
"""In the log: a carriage return at the beginning of a line."""

LOOK_S = 1.0
MOST_FOLLOWERS, MOST_OF_ONE = 8, 4
"""Streams that a process keeps open at a time, half of what it answers at once, and of them one owner's."""

SETTLE_S = 1.0
"""Entries are told when they are so old: by then those of other functions with earlier times are there too."""


class Followers:
    """Who follows runs in this process: no more than leave room for those who submit and cancel."""

    def __init__(self) -> None:
        self._lock, self._of = threading.Lock(), Counter[str]()

    def join(self, owner: str) -> Callable[[], None]:
        """What to call, once, when it is over. Raises: LimitError if the owner follows enough; UnavailableError."""
        with self._lock:
            if self._of[owner] >= MOST_OF_ONE:
                raise LimitError(f"you follow {MOST_OF_ONE} runs already; GET /v1/runs/<run> now and then instead")
            if self._of.total() >= MOST_FOLLOWERS:
                raise UnavailableError("too many follow runs just now; GET /v1/runs/<run> now and then instead")
            self._of[owner] += 1
        return functools.cache(functools.partial(self._leave, owner))  # called again it changes nothing

    def _leave(self, owner: str) -> None:
        with self._lock:
            self._of[owner] -= 1
            if not self._of[owner]:
                del self._of[owner]


def follow_events(store: Store, run: str, after: str, most_s: float = STREAM_S) -> Iterator[str]:
    """`status` first, `step` for each that was done or failed behind the mark `after`, `end` when the run has ended.
    When time is up it ends without: who asks again with the last mark misses nothing."""
    stop = time.monotonic() + most_s
    yield _event("status", overview.row(store, run), after)
    for entry in _entries(store, run, after, stop):
        if entry is None:
            yield ": still there\n\n"
            continue
        after = records.mark_of(entry)
        yield _event("step", asdict(entry), after)
    end = records.last_end(store, run)
    if end and time.monotonic() <= stop:
        yield _event("end", asdict(end), after)


def follow_log(
    store: Store, run: str, step: str, follow: bool, after: str = "", most_s: float = STREAM_S
) -> Iterator[str]:
    """Lines of the log behind a mark: each step with its seconds, and what it printed; when time is up, last the mark
    to ask again with. While there is nothing new, something is written that no terminal shows: else it would not be
    noticed that who reads has gone."""
    stop = time.monotonic() + most_s
    for entry in _entries(store, run, after, stop) if follow else records.log_of(store, run, after):
        if entry is None:
            yield STILL_THERE
            continue
        after = records.mark_of(entry)
        if step and entry.kind != step and not entry.key.rpartition("/")[2].startswith(step):
            continue
        at = time.strftime("%H:%M:%S", time.gmtime(entry.time))
        yield f"{at}  {entry.kind:<8} {entry.key.rpartition('/')[2][:12]}  {entry.seconds:7.2f} s\n"
        for line in entry.lines:
            yield f"          | {line}\n"
        if entry.error:
            yield f"          failed: {entry.error}\n"
    end = records.last_end(store, run)
    if follow and time.monotonic() > stop:
        yield f"run {run}: more by ?follow=1&after={after}\n"
    elif end:
        yield f"run {run} {end.state}{': ' + end.error if end.error else ''}\n"


def _entries(store: Store, run: str, after: str, stop: float) -> Iterator[Entry | None]:
    """Entries behind a mark as they come, None when there is nothing new; ends when the run does or time is up."""
    while True:
        ended = records.last_end(store, run) is not None
        for entry in records.log_of(store, run, after):
            if time.monotonic() > stop:
                return
            if not ended and entry.time > time.time() - SETTLE_S:
                break
            after = records.mark_of(entry)
            yield entry
        if ended or time.monotonic() > stop:
            return
        yield None
        time.sleep(LOOK_S)


def _event(name: str, values: object, mark: str) -> str:
    mark = f"id: {mark}\n" if mark else ""
    return f"event: {name}\n{mark}data: {json.dumps(values)}\n\n"
