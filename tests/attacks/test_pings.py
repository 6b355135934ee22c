"""A tenant whose rules wait for many files: pings, which anybody may send, still reach the rules of others in time."""

import threading
from pathlib import Path
from typing import Any

from hepfaas.orchestration import rules
from hepfaas.orchestration.intake import Arrived, Intake
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from support.jobs import MODEL

GET_S = 0.05
FILES = 100
RULES = 20
RULE: dict[str, Any] = {
    "prefix": "s3://in/",
    "labels": {"signal": 1, "background": 0},
    "job": {"code": {"model.py": MODEL}},
    "debounce_s": 30,
}


class Slow:
    """A store whose every read takes time, by the clock of the test."""

    def __init__(self, below: Store, world: "World") -> None:
        self._below, self._world = below, world

    def get(self, key: str) -> bytes:
        self._world.now += GET_S
        return self._below.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


class World:
    """An intake of several owners."""

    def __init__(self, folder: Path) -> None:
        self.now = 1e9
        self.sent: list[tuple[float, CloudEvent]] = []
        root = open_store(str(folder))
        self.intake = Intake(root, lambda owner: Slow(root.below(owner), self), self, True, clock=lambda: self.now)  # type: ignore[arg-type, return-value]

    def send(self, event: CloudEvent) -> None:
        self.sent.append((self.now, event))

    def told(self, owner: str, *kinds: str) -> None:
        self.intake.take(owner, [Arrived(f"s3://in/{kind}.root", "1", "x") for kind in kinds], "")


def test_rules_of_one_owner_keep_those_of_another_from_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(RULES):
        world.intake.put("mallory", rules.rule_of(f"r{number}", {**RULE, "debounce_s": 86_400}))
    world.told("mallory", *(f"signal{number}" for number in range(FILES)))
    world.intake.put("victim", rules.rule_of("fresh", RULE))
    world.told("victim", "signal", "background")
    world.now += 60
    began = world.now
    world.intake.ping()
    (at, event), *_ = world.sent
    assert event.data["owner"] == "victim"
    assert at - began < 3 * FILES * GET_S
    assert world.now - began < 120 + 3 * FILES * GET_S


def test_pings_that_come_while_one_goes_on_do_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.intake.put("victim", rules.rule_of("fresh", RULE))
    world.told("victim", "signal", "background")
    world.now += 60
    begun, go_on, looks = threading.Event(), threading.Event(), []
    look = world.intake.look

    def waiting(owner: str, name: str) -> list[str]:
        looks.append(name)
        begun.set()
        assert go_on.wait(60)
        return look(owner, name)

    world.intake.look = waiting  # type: ignore[method-assign]
    first = threading.Thread(target=world.intake.ping)
    first.start()
    assert begun.wait(60)
    for _ in range(5):
        world.intake.ping()
    go_on.set()
    first.join()
    assert looks == ["fresh"]
    assert len(world.sent) == 1
