"""A job through `hepfaas up` against the embedded loop; its requests to the store and the broker; fairness."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hepfaas.client import Client
from hepfaas.errors import MissingError
from hepfaas.orchestration import events, records
from hepfaas.orchestration.advancing import Advancing
from hepfaas.orchestration.events import RunName
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Data
from hepfaas.runs import preparation
from hepfaas.runs.opened import joined
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Sum
from hepfaas.steps.objects import encoded
from measured import CACHE, Ratio, seconds
from support.jobs import small_job
from support.system import System

EXAMPLE = Path(__file__).parents[1] / "examples" / "htautau"
RANGES = 10_000


def measure() -> list[Ratio]:
    """Make all comparisons. `advance` is timed before any system runs."""
    advance_alone = _advance()
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        (folder / "faults" / "fired").mkdir(parents=True)
        with System(folder / "up", HEPFAAS_FAULTS=str(folder / "faults"), HEPFAAS_BUDGET_S="60") as system:
            return [*_demo(system, folder), *_chain(system, folder), *_fair(system, folder), *advance_alone]


def _demo(system: System, folder: Path) -> list[Ratio]:
    """Train with a new model each time, so that no training result exists; the processes are warm."""
    times: dict[str, list[float]] = {"up": [], "loop": []}
    for turn in range(4):
        job = folder / f"demo{turn}"
        shutil.copytree(EXAMPLE, job)
        (job / "model.py").write_text(f"{(EXAMPLE / 'model.py').read_text()}\n# {turn}\n")
        through_up = seconds(lambda job=job: _through(system, job))
        store = folder / f"store{turn}"
        command = [sys.executable, "-m", "hepfaas", "train", str(job), "--store", str(store)]
        embedded = seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True))
        if turn:
            times["up"].append(through_up)
            times["loop"].append(embedded)
    medians = {name: sorted(values)[1] for name, values in times.items()}
    detail = f"{medians['up']:.1f} s; the loop starts its processes, up reads no events again"
    whole = _whole(system, folder)
    return [
        Ratio(
            "demo through up, warm, events read before",
            "the embedded loop",
            medians["up"] / medians["loop"],
            "<= 1.3",
            detail=detail,
        ),
        whole,
    ]


def _whole(system: System, folder: Path) -> Ratio:
    """Train with a new split seed, so that events are prepared again too."""
    up, loop = [], []
    for turn in range(3):
        job = folder / f"whole{turn}"
        shutil.copytree(EXAMPLE, job)
        params = (EXAMPLE / "params.json").read_text()
        (job / "params.json").write_text(params.replace("{", f'{{"split_seed": {turn + 100}, ', 1))
        up.append(seconds(lambda job=job: _through(system, job)))
        command = [sys.executable, "-m", "hepfaas", "train", str(job), "--store", str(folder / f"wholestore{turn}")]
        loop.append(seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True)))
    ratio = sorted(up)[1] / sorted(loop)[1]
    return Ratio(
        "demo through up, warm, all prepared again",
        "the embedded loop",
        ratio,
        "<= 1.3",
        detail=f"{sorted(up)[1]:.1f} s",
    )


def _through(system: System, job: Path) -> None:
    with Client(system.url) as client:
        ended = client.wait(client.submit(job), timeout_s=120)
        assert ended.state == "completed", ended.error


def _chain(system: System, folder: Path) -> list[Ratio]:
    """Count the events of a run of 30 short epochs, and the requests of its train steps to the store."""
    hits = folder / "faults" / "hits"
    small = small_job(folder / "chain", seed=3, epochs=30)
    system.up.broker.taken.clear()
    hits.unlink(missing_ok=True)
    _through(system, small)
    taken = Counter(system.up.broker.taken)
    calls = Counter(line for line in hits.read_text().split("\n") if ".train." in line or ".learning." in line)
    steps = 30
    reads = sum(count for site, count in calls.items() if site.endswith(":get_range"))
    detail = ", ".join(f"{site.removeprefix('hepfaas.')} {count / steps:.1f}" for site, count in sorted(calls.items()))
    requests = (
        sum(calls.values()) - reads
    ) / steps + 3  # whether the run has ended, whether the result exists, the log
    return [
        Ratio("train events of 30 short epochs", "1", float(taken["org.hepfaas.train.requested"]), "<= 3"),
        Ratio(
            "events of a run of 6 ranges",
            "one range",
            sum(taken.values()) / 6,
            "<= 10",
            detail=str(sum(taken.values())),
        ),
        Ratio(
            "requests of a train step beside its rows",
            "1",
            requests,
            "<= 6",
            detail=detail,
        ),
    ]


def _fair(system: System, folder: Path) -> list[Ratio]:
    """Time a small run alone, and behind a large one."""
    alone = seconds(lambda: _through(system, small_job(folder / "small1", seed=11)))
    with Client(system.url) as client:
        large = client.submit(small_job(folder / "large", seed=12, events=20_000, epochs=1))
        time.sleep(1.5)
        behind = seconds(lambda: _through(system, small_job(folder / "small2", seed=13)))
        state = client.status(large).state
        client.cancel(large)
    detail = f"{alone:.1f} s alone, {behind:.1f} s behind a run of 400 ranges, which is then {state}"
    return [Ratio("a small run behind a large one", "alone", behind / alone, "<= 3", detail=detail)]


class _MemoryStore:
    """A store in memory, so that only our own time is measured."""

    url = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._sorted: list[str] = []

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise MissingError(key, self.url)
        return self.objects[key]

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        return self.get(key)[start:stop]

    def size_bytes(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def create(self, key: str, data: Data) -> bool:
        if key in self.objects:
            return False
        self.objects[key] = bytes(data)  # type: ignore[arg-type]
        insort(self._sorted, key)
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        start = bisect_left(self._sorted, max(prefix, f"{after}\0" if after else ""))
        return takewhile(lambda key: key.startswith(prefix), self._sorted[start:])

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self._sorted.remove(key)


class _Sender:
    def __init__(self) -> None:
        self.events: list[CloudEvent] = []

    def send(self, event: CloudEvent) -> None:
        self.events.append(event)


def _advance() -> list[Ratio]:
    """Run `advance` through the survey phase of 10,000 ranges, whose steps finish immediately."""
    store, sender = _MemoryStore(), _Sender()
    recipe = Recipe("large", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
    run = records.create(store, records.Request(recipe, 0.0))
    half = [[start, start + 1000] for start in range(0, RANGES // 2 * 1000, 1000)]
    files: list[dict[str, Any]] = []
    for step in preparation.opens(recipe, f"{run}/1"):
        common = {"features": [["met", False]], "left_out": [], "identifiers": [], "notes": []}
        files.append(
            {"identity": step.url, "fingerprint": step.url, "entries": RANGES // 2 * 1000, "ranges": half, **common}
        )
    store.create(preparation.open_levels(recipe, f"{run}/1")[-1][0].key, encoded(joined(files)))
    store.create(f"active/o/{run}", b"")
    advancing = Advancing(store, lambda owner: store, sender, max_scale=50, deadline_s=300)
    name = RunName("o", run, 1)
    waiting = [events.event(events.PHASE_COMPLETED, "x", "x", name)]
    times: list[float] = []
    while len(times) < 60:
        event, sender.events = waiting.pop(0), []
        times.append(seconds(lambda event=event: advancing.handle(event)))
        for sent in sender.events:
            store.create(sent.subject, b"{}")
            for group in events.task_of(sent.data, store).groups:
                if all(key in store.objects for key in group):
                    store.create(Sum("survey", group).key, b"{}")
            if sent.data["tell"]:
                waiting.append(events.event(events.STEP_COMPLETED, "x", sent.subject, name, data=sent.data))
    cold, warm = times[0], sorted(times[1:])[-1]
    return [
        Ratio(
            "advance on a run of 10,000 ranges",
            "50 ms",
            warm / 0.05,
            "<= 1.0",
            detail=f"slowest of 59 {warm * 1e3:.1f} ms",
        ),
        Ratio("the first in a process, which computes all steps", "50 ms", cold / 0.05, "<= 1.0"),
    ]
