"""A run while it goes on, as streams: its steps as server-sent events, its log as lines. Read from the store alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from hepfaas.platform import records
from hepfaas.platform.records import Entry
from hepfaas.platform.storage import Store
from hepfaas.service import overview

STILL_THERE = "\r"
"""In the log: a carriage return at the beginning of a line."""

MOST_S = 300.0
LOOK_S = 1.0
SETTLE_S = 1.0
"""Entries are told when they are so old: by then those of other functions with earlier times are there too."""


def follow_events(store: Store, run: str, after: str, most_s: float = MOST_S) -> Iterator[str]:
    """`status` first, `step` for each that was done or failed behind the mark `after`, `end` when the run has ended."""
    yield _event("status", overview.row(store, run), after)
    for entry in _entries(store, run, after, most_s):
        if entry is None:
            yield ": still there\n\n"
            continue
        after = records.mark_of(entry)
        yield _event("step", asdict(entry), after)
    end = records.last_end(store, run)
    if end:
        yield _event("end", asdict(end), after)


def follow_log(store: Store, run: str, step: str, follow: bool, most_s: float = MOST_S) -> Iterator[str]:
    """Lines of the log: each step with its seconds, and what it printed. While there is nothing new, something is
    written that no terminal shows: else it would not be noticed that who reads has gone."""
    entries = _entries(store, run, "", most_s) if follow else records.log_of(store, run)
    for entry in entries:
        if entry is None:
            yield STILL_THERE
            continue
        if step and entry.kind != step and not entry.key.rpartition("/")[2].startswith(step):
            continue
        at = time.strftime("%H:%M:%S", time.gmtime(entry.time))
        yield f"{at}  {entry.kind:<8} {entry.key.rpartition('/')[2][:12]}  {entry.seconds:7.2f} s\n"
        for line in entry.lines:
            yield f"          | {line}\n"
        if entry.error:
            yield f"          failed: {entry.error}\n"
    end = records.last_end(store, run)
    if end:
        yield f"run {run} {end.state}{': ' + end.error if end.error else ''}\n"


def _entries(store: Store, run: str, after: str, most_s: float) -> Iterator[Entry | None]:
    """Entries behind a mark as they come, None when there is nothing new; ends when the run does or time is up."""
    stop = time.monotonic() + most_s
    while True:
        ended = records.last_end(store, run) is not None
        for entry in records.log_of(store, run, after):
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
