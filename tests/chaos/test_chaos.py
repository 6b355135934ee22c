"""Faults at every call to the store, the broker and the functions: the run ends with the same weights and no loss.

`make chaos` tests every site with every kind of fault, then 50 random plans; `make test-slow` a sample of them.
HEPFAAS_CHAOS_SEED=n repeats a random plan.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from chaos.harness import FUNCTION, PACKAGE, POLL_S, Chaos, Fault, ended_of
from chaos.sites import AFTER_A_FAULT, DELETED_OBJECTS, FAILING, OTHERS, always, sites, stale, why_not
from hepfaas.local.replicas import Function, Replicas
from hepfaas.local.up import functions_folder
from hepfaas.orchestration import records
from support.jobs import small_job

ALL = os.environ.get("HEPFAAS_CHAOS") == "all"
KINDS = ("request lost", "answer lost", "killed before", "killed after")
OF_SENDS = ("doubled", "late")
OF_FUNCTIONS = ("doubled", "killed during", "broker restarted")
FUNCTIONS = ("survey", "prepare", "train", "score", "evaluate", "publish", "advance")
A_RUN = 6
OF_EACH_KIND = 2
"""Number in the sample."""
MOST_NTH = 4
MOST_RUNS = 3
"""Number of attempts after which a fault counts as impossible."""
RANDOM_PLANS = 50
AWAY_S = 20 if ALL else 4
MAKERS = ("prepare", "export", "evaluate", "publish", "train")

pytestmark = [pytest.mark.timeout(3000), pytest.mark.slow]


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with Chaos(tmp_path_factory.mktemp("chaos")) as system:
        yield system
    end = time.monotonic() + 10
    while (left := system.left_running()) and time.monotonic() < end:
        time.sleep(POLL_S)
    assert left == []


def kinds_at(site: str) -> tuple[str, ...]:
    """Return the faults that can happen at a site."""
    if site.startswith(FUNCTION):
        return (*KINDS, *OF_FUNCTIONS)
    return (*KINDS, *OF_SENDS) if site.endswith(":send") else KINDS


def faults_at(site: str) -> list[Fault]:
    """Return each kind of fault; in the sample one, which differs between sites."""
    every = [Fault(site, kind) for kind in kinds_at(site)]
    return every if ALL else [every[len(site) % len(every)]]


def faults_at_all(places: Sequence[str]) -> list[Fault]:
    """Return the faults at these sites; in the sample one of them."""
    every = [fault for site in places for fault in faults_at(site)]
    return every if ALL else every[:1]


def every_fault() -> list[Fault]:
    """Return each kind of fault at each site that every run reaches, and between the broker and each function."""
    places = [*sorted(always()), *(f"{FUNCTION}{name}" for name in FUNCTIONS)]
    return [Fault(site, kind) for site in places for kind in kinds_at(site)]


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n  {text}")
        sys.stdout.flush()


def meet_all(chaos: Chaos, faults: Sequence[Fault]) -> Counter[str]:
    """Make runs until each fault has happened; return the number of each kind."""
    happened: Counter[str] = Counter()
    planned: Counter[Fault] = Counter()
    left = list(faults)
    while left:
        now, left = left[:A_RUN], left[A_RUN:]
        planned.update(now)
        fired = chaos.meet(now, f"run {chaos.runs}")
        happened.update(fault.kind for fault in fired)
        missed = [fault for fault in now if fault not in fired]
        never = [fault for fault in missed if planned[fault] == MOST_RUNS]
        assert never == [], "faults that do not happen where every run comes"
        left += missed
    return happened


def test_a_run_makes_every_call_that_is_in_the_code_unless_it_is_listed_why_not(chaos: Chaos) -> None:
    chaos.meet([], "undisturbed")
    assert stale() == set(), "listed in tests/chaos/sites.py and not in the code"
    assert always() - chaos.hits() == set(), "calls that no run makes and tests/chaos/sites.py does not list"


def test_every_fault_changes_nothing(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    faults = every_fault()
    random.Random(4).shuffle(faults)
    if not ALL:
        kinds = sorted({fault.kind for fault in faults})
        faults = [fault for kind in kinds for fault in [one for one in faults if one.kind == kind][:OF_EACH_KIND]]
    runs = chaos.runs
    happened = meet_all(chaos, faults)
    say(capsys, f"{len(sites())} sites, {chaos.runs - runs} runs, faults that happened: {dict(happened)}\n")
    assert happened.total() == len(faults)


def test_faults_on_the_way_out_of_other_faults_change_nothing(chaos: Chaos) -> None:
    left = {site: faults_at(site) for site in AFTER_A_FAULT}
    while any(left.values()):
        now = [faults.pop() for faults in left.values() if faults]
        first = [Fault(site, kind) for fault in now for site, kind in AFTER_A_FAULT[fault.site]]
        fired = chaos.meet([*first, *now], "after faults")
        assert [fault for fault in now if fault not in fired] == [], f"{first} did not lead there"


def test_faults_while_deleted_objects_are_made_again_change_nothing(chaos: Chaos) -> None:
    owner, run = chaos.begin([])
    assert chaos.weights(owner, run) == chaos.undisturbed
    request = records.request_of(chaos.store(owner), run)
    for fault in faults_at_all(DELETED_OBJECTS):
        delete_results(chaos, owner)
        chaos.plan([fault])
        again = chaos.submit(owner, request)
        assert chaos.weights(owner, again) == chaos.undisturbed, fault
        assert chaos.fired() == [fault]


def delete_results(chaos: Chaos, owner: str) -> None:
    store = chaos.store(owner)
    for kind in MAKERS:
        for key in list(store.keys(f"steps/{kind}/")):
            store.delete(key)


def test_faults_while_a_run_fails_leave_it_its_reason(chaos: Chaos, tmp_path: Path) -> None:
    broken = small_job(tmp_path / "broken", seed=5)
    (broken / "model.py").write_text("def model(idim):\n    return 1 / 0\n")
    for fault in faults_at_all(FAILING):
        owner, run = chaos.begin([fault], broken)
        ended = chaos.end(owner, run)
        assert (ended.state, "division by zero" in ended.error) == ("failed", True), (fault, ended)
        assert chaos.fired() == [fault]


def test_random_plans_change_nothing(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    given = os.environ.get("HEPFAAS_CHAOS_SEED")
    first = random.SystemRandom().randrange(10_000)
    seeds = [int(given)] if given else range(first, first + (RANDOM_PLANS if ALL else 1))
    say(capsys, f"seeds {seeds[0]} to {seeds[-1]}\n")
    for seed in seeds:
        chaos.meet(random_plan(seed), f"HEPFAAS_CHAOS_SEED={seed}")


def random_plan(seed: int) -> list[Fault]:
    """Faults anywhere, also at calls that follow only after other faults."""
    chooser = random.Random(seed)
    rare = [Fault(site, kind) for site in AFTER_A_FAULT for kind in kinds_at(site)]
    chosen = [*chooser.sample(every_fault(), A_RUN), *chooser.sample(rare, 2)]
    return [replace(fault, nth=chooser.randint(1, MOST_NTH)) for fault in chosen]


def test_a_store_that_is_away_changes_nothing(chaos: Chaos) -> None:
    owner, run = chaos.begin([])
    store, end = chaos.store(owner), time.monotonic() + 60
    while not any(store.keys("steps/prepare/")):
        assert time.monotonic() < end, "no step was done"
        time.sleep(POLL_S)
    chaos.up.store.kill()
    assert ended_of(store, run) is None
    time.sleep(AWAY_S)
    chaos.up.store.start()
    assert ended_of(store, run) is None, "it had ended before the store went away"
    assert chaos.weights(owner, run) == chaos.undisturbed


class Twice:
    """Delivers every event twice at the same time; those for `advance` to the `advance` of two systems."""

    def __init__(self, one: Replicas, other: Replicas) -> None:
        self._one, self._other = one, other
        self.both = 0

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        second = self._other if name == "advance" else self._one
        answers = await asyncio.gather(*(some.call(name, headers, body, timeout_s) for some in (self._one, second)))
        self.both += name == "advance" and all(answer.status_code == 204 for answer in answers)
        return answers[0]


def test_every_event_to_two_brokers_and_two_advances_changes_nothing(chaos: Chaos, tmp_path: Path) -> None:
    async def another() -> Replicas:
        other = Replicas(functions_folder(), chaos.up.replicas._environ, tmp_path)
        other.add(Function("advance"))
        return other

    other = chaos.run(another)
    twice = Twice(chaos.up.replicas, other)
    chaos.calls_by(twice)
    try:
        owner, run = chaos.begin([])
        assert chaos.weights(owner, run) == chaos.undisturbed
    finally:
        chaos.calls_by(chaos.caller)
        chaos.run(other.close)
    assert other.started == 1
    assert twice.both > len(FUNCTIONS), "advance was called twice for each phase at least"


def test_no_run_made_a_call_that_was_not_read_from_the_code_or_is_listed_as_never_made(chaos: Chaos) -> None:
    hits = {site for site in chaos.hits() if not site.startswith(OTHERS)}
    assert hits - sites() == set(), f"calls that tests/chaos/sites.py does not find in {PACKAGE[:-1]}"
    assert {site: why_not(site) for site in hits if why_not(site)} == {}
