"""Faults on purpose, for the chaos tests: what a call to the store or to the broker meets is planned in a folder.

<folder>/plan.json        [{"id": name, "site": where, "kind": what, "nth": k}, ...]: each happens once, to whichever
                          process comes there as the k-th since it was planned; without "nth" the first
<folder>/met/<id>.<k>     created by that process, and by those that came there before it
<folder>/hits             a line for each call: its site
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from hepfaas.errors import UnavailableError
from hepfaas.platform.cloud_events import CloudEvent, Sender
from hepfaas.platform.storage import Data, OpenedStore

LATE_S = 0.5
T = TypeVar("T")


class Plan:
    """The faults that are planned in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def meet(self, method: str, call: Callable[[], T], again: Callable[[], None] | None = None) -> T:
        """Makes a call and meets what is planned for its site; `again` is what a doubled or late one does."""
        site = f"{_caller()}:{method}"
        with (self._folder / "hits").open("a") as hits:
            hits.write(f"{site}\n")
        kind = self._due(site)
        if kind == "request lost":
            raise UnavailableError(f"a planned fault: {site} did not arrive")
        if kind == "killed before":
            _die()
        if kind == "late" and again:
            threading.Timer(LATE_S, again).start()
            return None  # type: ignore[return-value]  # a send gives nothing
        answer = call()
        if kind == "killed after":
            _die()
        if kind == "answer lost":
            raise UnavailableError(f"a planned fault: {site} got no answer")
        if kind == "doubled" and again:
            again()
        return answer

    def _due(self, site: str) -> str:
        """The kind of fault that happens here and now, '' for none."""
        try:
            planned = json.loads((self._folder / "plan.json").read_text())
        except (FileNotFoundError, ValueError):
            return ""
        for fault in planned:
            if fault["site"] == site and self._comes_as(fault.get("nth", 1), str(fault["id"])):
                return str(fault["kind"])
        return ""

    def _comes_as(self, nth: int, fault: str) -> bool:
        """Return whether this call is the n-th, over all processes, that comes where a fault is planned."""
        for number in range(1, nth + 1):
            try:
                os.close(os.open(self._folder / "met" / f"{fault}.{number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return number == nth
        return False


class FaultyStore:
    """A store whose calls meet the plan."""

    def __init__(self, store: OpenedStore, plan: Plan) -> None:
        self._below, self._plan, self.url = store, plan, store.url

    def get(self, key: str) -> bytes:
        return self._plan.meet("get", lambda: self._below.get(key))

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        return self._plan.meet("get_range", lambda: self._below.get_range(key, start, stop))

    def size_bytes(self, key: str) -> int | None:
        return self._plan.meet("size_bytes", lambda: self._below.size_bytes(key))

    def create(self, key: str, data: Data) -> bool:
        return self._plan.meet("create", lambda: self._below.create(key, data))

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        # all at once: a generator asks the store only after it was given, when the fault is over
        return iter(self._plan.meet("keys", lambda: list(self._below.keys(prefix, after))))

    def delete(self, key: str) -> None:
        self._plan.meet("delete", lambda: self._below.delete(key))

    def below(self, folder: str) -> FaultyStore:
        return FaultyStore(self._below.below(folder), self._plan)

    def used_bytes(self) -> int:
        return self._plan.meet("used_bytes", self._below.used_bytes)


class FaultySender:
    """A way to the broker whose calls meet the plan."""

    def __init__(self, sender: Sender, plan: Plan) -> None:
        self._below, self._plan = sender, plan

    def send(self, event: CloudEvent) -> None:
        def send() -> None:
            self._below.send(event)

        self._plan.meet("send", send, send)


def _caller() -> str:
    """Module and function that made the call, functions inside it folded into it."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname.partition('.<locals>')[0]}"


def _die() -> None:
    """Kills this process and all of its function."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
    time.sleep(60)
