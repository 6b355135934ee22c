"""Faults at every call to the store, the broker and the functions: always the same weights, nothing lost, it ends.

`make chaos` meets every site with every kind of fault, then 50 random plans; `make test` a sample of them.
HEPFAAS_CHAOS_SEED=n repeats a random plan.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from chaos.sites import sites, why_not
from hepfaas.cli import main
from hepfaas.errors import UnavailableError
from hepfaas.local.replicas import Replicas, kill
from hepfaas.models import versions
from hepfaas.platform import records
from hepfaas.platform.cloud_events import Broker
from hepfaas.platform.storage import Store, open_store
from hepfaas.service import overview
from hepfaas.service.api import place_files
from hepfaas.service.folder import recipe_of
from hepfaas.service.submitting import Submitting, new_trace
from jobs import small_job
from system import System

ALL = os.environ.get("HEPFAAS_CHAOS") == "all"
KINDS = ("request lost", "answer lost", "killed before", "killed after")
OF_SENDS = ("doubled", "late")
FUNCTIONS = ("survey", "prepare", "train", "score", "evaluate", "publish", "advance")
A_RUN = 6
MOST_S = 120
RANDOM_PLANS = 50

Fault = Mapping[str, str]


class FaultyCaller:
    """Stands between broker and functions: requests and answers that are lost, processes killed before and after."""

    def __init__(self, below: Replicas) -> None:
        self._below = below
        self.planned: list[Fault] = []
        self.fired: list[Fault] = []

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        fault = next((one for one in self.planned if one["site"] == f"function {name}"), None)
        if fault:
            self.planned.remove(fault)
            self.fired.append(fault)
        kind = fault["kind"] if fault else ""
        if kind == "request lost":
            raise UnavailableError("a planned fault")
        if kind == "killed before":
            asyncio.get_running_loop().call_later(0.02, self._kill, name)
        answer = await self._below.call(name, headers, body, timeout_s)
        if kind == "killed after":
            self._kill(name)
        if kind == "answer lost":
            raise UnavailableError("a planned fault")
        if kind == "doubled":
            answer = await self._below.call(name, headers, body, timeout_s)
        return answer

    def _kill(self, name: str) -> None:
        for replica in self._below._replicas[name]:
            kill(replica.process)


class Chaos(System):
    """A system whose functions meet a plan of faults."""

    def __init__(self, folder: Path) -> None:
        self.faults = folder / "faults"
        (self.faults / "fired").mkdir(parents=True)
        super().__init__(folder / "up", HEPFAAS_FAULTS=str(self.faults))
        self.job = small_job(folder / "job", seed=77)
        self._number = 0

    def __enter__(self) -> "Chaos":
        super().__enter__()
        self.caller = FaultyCaller(self.up.replicas)
        self.up.broker._caller = self.caller
        return self

    def begin(self, faults: Sequence[Fault]) -> tuple[str, str]:
        """Begins a run of an owner of its own, and what it will meet."""
        self._number += 1
        owner = f"owner{self._number}"
        store, root = self.store(owner), open_store(self.up.store.url)
        recipe, notes = recipe_of(self.job, {}, store, place_files(store, True))
        for path in (self.faults / "fired").iterdir():
            path.unlink()
        (self.faults / "plan.json").write_text(json.dumps([one for one in faults if "function" not in one["site"]]))
        self.caller.planned = [one for one in faults if "function" in one["site"]]
        sender = Broker(self.up.replicas._environ["K_SINK"])
        request = records.Request(recipe, time.time(), notes, new_trace())
        return owner, Submitting(root, store, sender, owner).submit(request)

    def fired(self, faults: Sequence[Fault]) -> list[Fault]:
        """Those that happened."""
        planned = json.loads((self.faults / "plan.json").read_text())
        happened = [planned[int(path.name)] for path in (self.faults / "fired").iterdir()]
        happened += [one for one in self.caller.fired if one in faults]
        self.caller.fired.clear()
        return happened

    def weights(self, owner: str, run: str) -> str:
        """Waits for the end of a run that must succeed, and gives the hash of its weights."""
        store = self.store(owner)
        end = time.monotonic() + MOST_S
        while (ended := ended_of(store, run)) is None:
            assert time.monotonic() < end, f"run {owner}/{run} does not end: {overview.status(store, run)}"
            time.sleep(0.2)
        assert ended.state == "completed", ended
        assert overview.verified(store, run).holds
        name, _, number = ended.model.partition("/")
        return str(versions.card_of(store, versions.Version(name, int(number)))["weights"])

    def meet(self, faults: Sequence[Fault], what: str) -> list[Fault]:
        """A run that meets these faults; gives those that happened."""
        owner, run = self.begin(faults)
        assert self.weights(owner, run) == self.undisturbed, f"{what}: {faults}"
        return self.fired(faults)


def ended_of(store: Store, run: str) -> records.End | None:
    """How a run ended; None also while the store is away."""
    try:
        return records.last_end(store, run)
    except UnavailableError:
        return None


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    folder = tmp_path_factory.mktemp("chaos")
    with Chaos(folder) as system:
        assert main(["train", str(system.job), "--store", str(folder / "loop")]) == 0
        system.undisturbed = card_weights(open_store(f"{folder}/loop/local"))
        yield system


def card_weights(store: Store) -> str:
    return str(versions.card_of(store, versions.Version("job", 1))["weights"])


def every_fault() -> list[Fault]:
    """Each kind at each site where a run comes."""
    found: list[Fault] = []
    for site in sorted(site for site in sites() if why_not(site) is None):
        kinds = (*KINDS, *OF_SENDS) if site.endswith(":send") else KINDS
        found += [{"site": site, "kind": kind} for kind in kinds]
    found += [{"site": f"function {name}", "kind": kind} for name in FUNCTIONS for kind in (*KINDS, "doubled")]
    return found


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n  {text}")
        sys.stdout.flush()


@pytest.mark.timeout(3000)
def test_a_run_comes_to_every_call_that_is_in_the_code(chaos: Chaos) -> None:
    chaos.meet([], "undisturbed")
    hit = set((chaos.faults / "hits").read_text().split("\n")) - {""}
    missed = {site for site in sites() - hit if why_not(site) is None}
    assert missed == set(), "calls that no run makes and tests/chaos/sites.py does not list"
    assert {site for site in hit if "service." in site or "steps." in site} <= sites()


@pytest.mark.timeout(3000)
def test_every_fault_changes_nothing(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    chooser = random.Random(4)
    left = every_fault()
    chooser.shuffle(left)
    if not ALL:
        kinds = {kind: [one for one in left if one["kind"] == kind][:2] for kind in (*KINDS, *OF_SENDS)}
        left = [one for some in kinds.values() for one in some]
    happened: Counter[str] = Counter()
    for attempt in range(len(left)):
        if not left:
            break
        faults, left = left[:A_RUN], left[A_RUN:]
        fired = chaos.meet(faults, f"run {attempt}")
        happened.update(one["kind"] for one in fired)
        left += [one for one in faults if one not in fired]
    say(capsys, f"faults that happened: {dict(happened)}; never: {left}\n")
    assert left == []


@pytest.mark.timeout(3000)
def test_random_plans_change_nothing(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    given = os.environ.get("HEPFAAS_CHAOS_SEED")
    first = random.SystemRandom().randrange(10_000)
    seeds = [int(given)] if given else range(first, first + (RANDOM_PLANS if ALL else 1))
    say(capsys, f"seeds {seeds[0]} to {seeds[-1]}\n")
    for seed in seeds:
        chooser = random.Random(seed)
        chaos.meet(chooser.sample(every_fault(), A_RUN), f"seed {seed}")


@pytest.mark.timeout(600)
def test_a_broker_that_forgets_everything_changes_nothing(chaos: Chaos) -> None:
    owner, run = chaos.begin([])
    for _ in range(4):
        time.sleep(0.3)
        chaos.run(forget(chaos))
    assert chaos.weights(owner, run) == chaos.undisturbed


def forget(chaos: Chaos) -> Any:
    async def forgotten() -> int:
        return chaos.up.broker.forget()

    return forgotten


@pytest.mark.timeout(600)
def test_a_store_that_is_away_changes_nothing(chaos: Chaos) -> None:
    away_s = 20 if ALL else 4
    owner, run = chaos.begin([])
    time.sleep(1)
    chaos.up.store.kill()
    time.sleep(away_s)
    chaos.up.store.start()
    assert chaos.weights(owner, run) == chaos.undisturbed


@pytest.mark.timeout(600)
def test_every_event_to_two_brokers_and_two_advances_changes_nothing(chaos: Chaos) -> None:
    below = chaos.caller._below

    class Twice:
        async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
            both = [below.call(name, headers, body, timeout_s) for _ in range(2)]
            return (await asyncio.gather(*both))[0]

    kinds = below._kinds
    below._kinds = {**kinds, "advance": type(kinds["advance"])("advance", 2, 1)}
    chaos.up.broker._caller = Twice()
    try:
        owner, run = chaos.begin([])
        assert chaos.weights(owner, run) == chaos.undisturbed
    finally:
        chaos.up.broker._caller, below._kinds = chaos.caller, kinds


@pytest.mark.timeout(600)
def test_deleted_objects_are_made_again(chaos: Chaos) -> None:
    owner, run = chaos.begin([])
    assert chaos.weights(owner, run) == chaos.undisturbed
    store = chaos.store(owner)
    for kind in ("prepare", "export", "evaluate", "publish", "train"):
        for key in list(store.keys(f"steps/{kind}/")):
            store.delete(key)
    sender = Broker(chaos.up.replicas._environ["K_SINK"])
    again = Submitting(open_store(chaos.up.store.url), store, sender, owner).submit(records.request_of(store, run))
    assert chaos.weights(owner, again) == chaos.undisturbed
