"""A system with planned faults in its calls to the store, the broker and the functions, and the checks that must hold.

The service itself contains only platform/faults.py, which a setting turns on.
"""

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.errors import UnavailableError
from hepfaas.jobs.addresses import place_files
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import recipe_of
from hepfaas.local import child
from hepfaas.local.broker import Broker as LocalBroker
from hepfaas.local.broker import Caller
from hepfaas.local.replicas import Replicas, kill
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.orchestration.submitting import Submitting, trace_of
from hepfaas.platform.cloud_events import HttpSender
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.views import overview
from support.jobs import small_job
from support.system import System

MOST_S = 400
POLL_S = 0.05
PACKAGE = "hepfaas."
FUNCTION = "function "


@dataclass(frozen=True)
class Fault:
    """A fault at the n-th call at a site: one of tests/chaos/sites.py, or 'function <name>'."""

    site: str
    kind: str
    nth: int = 1

    @property
    def of_function(self) -> bool:
        """Whether the fault is between broker and function."""
        return self.site.startswith(FUNCTION)


class FaultyCaller:
    """Sits between broker and functions and makes the planned faults."""

    def __init__(self, below: Replicas, broker: LocalBroker) -> None:
        self._below, self._broker = below, broker
        self.planned: list[Fault] = []
        self.fired: list[Fault] = []
        self._calls: Counter[str] = Counter()

    def plan(self, faults: Sequence[Fault]) -> None:
        """Set the plan from now on."""
        self.planned, self.fired, self._calls = list(faults), [], Counter()

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        """Return the function's answer. Raises: UnavailableError."""

        async def called() -> httpx.Response:
            return await self._below.call(name, headers, body, timeout_s)

        site = f"{FUNCTION}{name}"
        self._calls[site] += 1
        fault = next((one for one in self.planned if one.site == site and one.nth <= self._calls[site]), None)
        if fault is None:
            return await called()
        self.planned.remove(fault)
        answer = await self._met(fault.kind, name, called)
        self.fired.append(fault)
        if answer is None:
            raise UnavailableError(f"a planned fault: {fault.kind}")
        return answer

    async def _met(self, kind: str, name: str, called: Callable[[], Any]) -> httpx.Response | None:
        """Return the answer, or None without one."""
        if kind == "request lost":
            return None
        if kind == "broker restarted":
            return await self._forgotten()
        if kind in ("killed before", "killed during"):
            return await self._killed(name, called, 0.0 if kind == "killed before" else 0.03)
        answer: httpx.Response = await called()
        if kind == "killed after":
            self._kill(name)
        if kind == "answer lost":
            return None
        return await called() if kind == "doubled" else answer

    async def _forgotten(self) -> httpx.Response | None:
        """Drop all deliveries in progress and their retries."""
        for task in self._broker._tasks - {asyncio.current_task()}:
            task.cancel()
        return httpx.Response(204)

    async def _killed(self, name: str, called: Callable[[], Any], after_s: float) -> httpx.Response | None:
        """Kill the function's processes this long after one of them got the event."""
        call = asyncio.ensure_future(called())
        while not call.done() and not any(replica.busy for replica in self._below._replicas[name]):
            await asyncio.sleep(0.001)
        await asyncio.sleep(after_s)
        self._kill(name)
        with suppress(UnavailableError):
            return await call  # type: ignore[no-any-return]
        return None

    def _kill(self, name: str) -> None:
        alive = [replica for replica in self._below._replicas[name] if replica.alive]
        assert alive, f"no process of '{name}' is there to be killed"
        for replica in alive:
            kill(replica.process)


def as_table(job: Path, name: str) -> None:
    """Replace a ROOT file of a job by JSON lines, of which a run keeps the layout."""
    with uproot.open(job / f"{name}.root") as file:
        events = file["Events"].arrays().tolist()
    (job / f"{name}.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    files = (job / "files.txt").read_text()
    (job / "files.txt").write_text(files.replace(f"{name}.root", f"{name}.jsonl"))


class Chaos(System):
    """A system with a plan of faults, and runs of one small job on it."""

    def __init__(self, folder: Path) -> None:
        self.faults = folder / "faults"
        (self.faults / "met").mkdir(parents=True)
        super().__init__(folder / "up", HEPFAAS_FAULTS=str(self.faults))
        self.job = small_job(folder / "job", seed=77)
        as_table(self.job, "background")
        assert main(["train", str(self.job), "--store", str(folder / "loop")]) == 0
        self.undisturbed = weights_of(open_store(f"{folder}/loop/local"), versions.Version("job", 1))
        self.started: list[subprocess.Popen[bytes]] = []
        self.runs = 0

    def __enter__(self) -> Self:
        started = child.started

        def remembered(*given: Any) -> subprocess.Popen[bytes]:
            self.started.append(started(*given))
            return self.started[-1]

        self._children = pytest.MonkeyPatch()
        self._children.setattr(child, "started", remembered)
        super().__enter__()
        self.caller = FaultyCaller(self.up.replicas, self.up.broker)
        self.calls_by(self.caller)
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._children.undo()

    def begin(self, faults: Sequence[Fault], job: Path | None = None) -> tuple[str, str]:
        """Start a run of a new owner, and plan its faults."""
        self.runs += 1
        owner = f"owner{self.runs}"
        store = self.store(owner)
        sent = job_in(job or self.job, {})
        recipe = recipe_of(sent, store, place_files(store, True))
        self.plan(faults)
        return owner, self.submit(owner, records.Request(recipe, time.time(), sent.notes, trace_of("")))

    def submit(self, owner: str, request: records.Request) -> str:
        """Start a run of an owner."""
        variables = self.up.replicas._environ
        sender = HttpSender(variables["K_SINK"], [variables["HEPFAAS_EVENT_KEYS"]])
        return Submitting(self.root, self.store(owner), sender, owner).submit(request)

    def plan(self, faults: Sequence[Fault]) -> None:
        """Set the plan from now on; faults planned before that have not happened are dropped."""
        inside = [fault for fault in faults if not fault.of_function]
        planned = [
            {"id": f"{self.runs}-{number}", "site": PACKAGE + fault.site, "kind": fault.kind, "nth": fault.nth}
            for number, fault in enumerate(inside)
        ]
        (self.faults / "plan.new").write_text(json.dumps(planned))
        (self.faults / "plan.new").replace(self.faults / "plan.json")
        self._inside = inside
        self.caller.plan([fault for fault in faults if fault.of_function])

    def fired(self) -> list[Fault]:
        """Return the faults of the plan that have happened."""
        met = {path.name for path in (self.faults / "met").iterdir()}
        happened = [one for number, one in enumerate(self._inside) if f"{self.runs}-{number}.{one.nth}" in met]
        return [*happened, *self.caller.fired]

    def hits(self) -> set[str]:
        """Return the sites at which all runs so far have called."""
        lines = (self.faults / "hits").read_text().split("\n")
        return {line.removeprefix(PACKAGE) for line in lines} - {""}

    def end(self, owner: str, run: str) -> records.End:
        """Wait for the end of a run and of all its work in progress; return how it ended."""
        store, end = self.store(owner), time.monotonic() + MOST_S
        while (ended := ended_of(store, run)) is None or self._is_active(owner, run) or self._is_busy():
            assert time.monotonic() < end, f"run {owner}/{run} does not end: {overview.status(store, run)}"
            time.sleep(POLL_S)
        return ended

    def weights(self, owner: str, run: str) -> str:
        """Wait for a run that must succeed without loss; return the hash of its weights."""
        ended, store = self.end(owner, run), self.store(owner)
        assert ended.state == "completed", ended
        assert overview.verified(store, run).holds
        assert isinstance(overview.status(store, run).stage, overview.Outcome)
        done = [entry.key for entry in records.log_of(store, run)]
        assert [key for key in done if store.size_bytes(key) is None] == [], "results that were there are lost"
        name, _, number = ended.model.partition("/")
        return weights_of(store, versions.Version(name, int(number)))

    def meet(self, faults: Sequence[Fault], what: str) -> list[Fault]:
        """Check that a run with these faults gives the same weights; return the faults that happened."""
        owner, run = self.begin(faults)
        assert self.weights(owner, run) == self.undisturbed, f"{what}: {faults}"
        return self.fired()

    def calls_by(self, caller: Caller) -> None:
        """Set the caller of the functions from now on."""
        self.up.broker._caller = caller

    def left_running(self) -> list[str]:
        """Return the processes of the sessions that this system started, including those of learners."""
        ours = {process.pid for process in self.started}
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(ValueError, OSError):
                if os.getsid(int(folder.name)) in ours and " Z " not in (folder / "stat").read_text():
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
        return found

    def _is_active(self, owner: str, run: str) -> bool:
        try:
            return self.root.size_bytes(f"active/{owner}/{run}") is not None
        except UnavailableError:
            return True

    def _is_busy(self) -> bool:
        return bool(self.up.broker._tasks)


def ended_of(store: Store, run: str) -> records.End | None:
    """Return how a run ended; None also while the store is unavailable."""
    try:
        return records.last_end(store, run)
    except UnavailableError:
        return None


def weights_of(store: Store, version: versions.Version) -> str:
    """Return the hash of the weights of a published model."""
    return str(versions.card_of(store, version)["weights"])
