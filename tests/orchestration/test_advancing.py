"""Which steps are sent, how many at a time, and what happens to late steps. On a folder, with a clock of its own."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.orchestration import advancing, events, records
from hepfaas.orchestration.advancing import MOST_SENT, Advancing
from hepfaas.orchestration.events import RunName
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import preparation
from hepfaas.runs.opened import joined
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Sum
from hepfaas.steps.objects import encoded

RECIPE = Recipe("job", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
DEADLINE_S = 10.0
PING = CloudEvent(events.PING, "/p", "ping", "1", {})


class Sent:
    """A sender that keeps its events."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []

    def send(self, event: CloudEvent) -> None:
        self.events.append(event)

    def types(self) -> list[str]:
        return [event.type.removeprefix("org.hepfaas.") for event in self.events]


class World:
    """One run of 40 ranges whose files are open, and an `advance`."""

    def __init__(self, folder: Path, max_scale: int = 4) -> None:
        self.root, self.now, self.sent = open_store(str(folder)), 1000.0, Sent()
        self.stores: dict[str, Store] = {}
        self.run = self.begin("me")
        self.store = self.store_of("me")
        self.advancing = Advancing(
            self.root, self.store_of, self.sent, max_scale=max_scale, deadline_s=DEADLINE_S, clock=lambda: self.now
        )

    def store_of(self, owner: str) -> Store:
        return self.stores.setdefault(owner, open_store(f"{self.root.url}/{owner}"))

    def begin(self, owner: str, webhook: str = "") -> str:
        store = self.store_of(owner)
        run = records.create(store, records.Request(RECIPE, self.now, trace="00-trace", webhook=webhook))
        ranges = [[start, start + 100] for start in range(0, 2000, 100)]
        common = {"entries": 2000, "ranges": ranges, "features": [["met", False]], "identifiers": [], "left_out": []}
        files = [{"identity": file.url, "fingerprint": file.url, **common} for file in RECIPE.files]
        store.create(preparation.open_levels(RECIPE, f"{run}/1")[-1][0].key, encoded(joined(files)))
        self.root.create(f"active/{owner}/{run}", b"")
        return run

    def wake(self, type_: str = events.PHASE_COMPLETED) -> list[CloudEvent]:
        """Handle an event of the run and return the events that this sends."""
        return self.handle(CloudEvent(type_, "/t", "s", "1", RunName("me", self.run, 1).to_json(), {}))

    def tell(self, task: CloudEvent) -> list[CloudEvent]:
        """Handle the event that ends a slice and return the events that this sends."""
        data = {key: task.data[key] for key in ("owner", "run", "attempt", "phase", "slice")}
        return self.handle(CloudEvent(events.STEP_COMPLETED, "/t", "s", "1", data, {}))

    def handle(self, event: CloudEvent) -> list[CloudEvent]:
        before = len(self.sent.events)
        self.advancing.handle(event)
        return self.sent.events[before:]

    def do(self, event: CloudEvent) -> None:
        """Do a task as a step function does."""
        self.store.create(event.subject, b"{}")
        for group in events.task_of(event.data, self.store).groups:
            if all(self.store.size_bytes(key) is not None for key in group):
                self.store.create(Sum("survey", group).key, b"{}")

    @property
    def end(self) -> records.End | None:
        return records.last_end(self.store, self.run)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_at_most_a_window_of_steps_is_sent(world: World) -> None:
    first = world.wake()
    assert len(first) == 8
    assert world.wake() == []
    for event in first:
        world.do(event)
    tellers = [event for event in first if event.data["tell"]]
    assert len(tellers) == 2
    assert [len(world.tell(teller)) for teller in tellers] == [4, 4]


def test_an_event_delivered_twice_makes_room_once(world: World) -> None:
    first = world.wake()
    for event in first:
        world.do(event)
    one, other = (event for event in first if event.data["tell"])
    assert len(world.tell(one)) == 4
    assert world.tell(one) == []
    assert len(world.tell(other)) == 4
    assert world.tell(other) == world.tell(one) == []


def test_the_next_ping_replaces_a_lost_event(world: World) -> None:
    first = world.wake()
    for event in first[:4]:
        world.do(event)
    assert len(world.handle(PING)) == 4
    assert world.tell(first[3]) == world.handle(PING) == []


def test_every_step_is_sent_once(world: World) -> None:
    waiting = world.wake()
    done: list[str] = []
    while waiting and len(done) < 39:
        event = waiting.pop(0)
        world.do(event)
        done.append(event.subject)
        if event.data["tell"]:
            waiting += world.tell(event)
    assert len({*done, *(event.subject for event in waiting)}) == len(done) + len(waiting) == 40


def test_runs_share_the_window(world: World) -> None:
    for number in range(3):
        world.begin(f"other{number}")
    assert len(world.wake()) == 2


def test_every_event_has_the_trace_and_an_id_of_its_own(world: World) -> None:
    sent = world.wake()
    assert {event.trace for event in sent} == {"00-trace"}
    assert len({event.id for event in sent}) == len(sent)
    assert max(len(json.dumps(event.data)) for event in sent) < 8000


def test_steps_without_a_result_are_sent_again_and_fail_the_run_in_the_end(world: World) -> None:
    first = world.wake()
    for event in first[1:]:
        world.do(event)
    lost = first[0].subject
    world.now += DEADLINE_S
    assert lost not in [event.subject for event in world.handle(PING)]
    for time in range(MOST_SENT - 1):
        world.now += 2 * DEADLINE_S * 2**time - DEADLINE_S
        assert lost not in [event.subject for event in world.handle(PING)]
        world.now += DEADLINE_S + 1
        assert lost in [event.subject for event in world.handle(PING)]
    assert world.end is None
    world.now += 2 * DEADLINE_S * 2 ** (MOST_SENT - 1) + 1
    sent = world.handle(PING)
    assert world.end
    assert world.end.state == "failed"
    assert f"sent {MOST_SENT} times" in world.end.error
    assert [event.type for event in sent] == ["org.hepfaas.run.failed"]
    assert world.root.size_bytes(f"active/me/{world.run}") is None


def test_a_run_that_fails_for_lack_of_a_result_names_the_last_trouble(world: World) -> None:
    step = world.wake()[0].subject
    records.trouble(world.store, world.run, 1, step, world.now, "door 'x' is shut")
    for time in range(MOST_SENT):
        world.now += 2 * DEADLINE_S * 2**time + 1
        world.handle(PING)
    assert world.end
    assert "door 'x' is shut" in world.end.error


def test_a_failed_step_fails_the_run_unless_its_result_exists(world: World) -> None:
    first, second = world.wake()[:2]
    records.fail(world.store, world.run, 1, first.subject, "no branch 'x'")
    world.do(first)
    world.wake(events.STEP_FAILED)
    assert world.end is None
    records.fail(world.store, world.run, 1, second.subject, "no branch 'y'")
    world.wake(events.STEP_FAILED)
    assert world.end
    assert world.end.error == "no branch 'y'"


def dead(event: CloudEvent, code: str, said: str) -> CloudEvent:
    data = base64.b64encode(json.dumps({"error": said}).encode()).decode()
    extensions = {"knativeerrordest": "http://survey", "knativeerrorcode": code, "knativeerrordata": data}
    return CloudEvent(event.type, event.source, event.subject, event.id, event.data, extensions)


@pytest.mark.parametrize("code", ["422", "500"])
def test_a_dead_letter_of_a_permanent_failure_ends_the_run_at_once_with_the_reason(world: World, code: str) -> None:
    first = world.wake()[0]
    world.handle(dead(first, code, "no branch 'x'"))
    assert world.end
    assert world.end.error == "step 'survey': no branch 'x'"


def test_a_run_waits_for_an_outage_that_every_step_of_a_slice_meets(tmp_path: Path) -> None:
    world = World(tmp_path, max_scale=8)
    first = world.wake()
    assert len(first) == 16
    for waits in range(MOST_SENT - 1):
        for event in first:
            assert world.handle(dead(event, "503", "the door is shut")) == []
        world.now += 2 * DEADLINE_S * 2**waits - 1
        assert not set(world.handle(PING)) & {event.subject for event in first}
        world.now += 2
        assert {event.subject for event in world.handle(PING)} == {event.subject for event in first}
    assert world.end is None
    for event in first:
        world.do(event)
    assert len(world.handle(PING)) == 16
    assert world.end is None


def test_a_step_that_remakes_a_missing_result_may_meet_an_outage_too(world: World) -> None:
    task = world.wake()[0]
    remade = replace(task, data={**task.data, "phase": "", "slice": [0, 0]})
    assert world.handle(dead(remade, "503", "the door is shut")) == []
    assert world.end is None


def test_a_run_whose_function_never_answers_fails_with_the_error_of_the_broker(world: World) -> None:
    first, why = world.wake()[0], "function 'survey' ends during its start; the reason is in log/survey.log"
    letter = dead(first, "-1", "")
    letter = replace(
        letter, extensions={**letter.extensions, "knativeerrordata": base64.b64encode(why.encode()).decode()}
    )
    for waits in range(MOST_SENT - 1):
        assert world.handle(letter) == []
        world.now += 2 * DEADLINE_S * 2**waits + 1
        assert first.subject in [event.subject for event in world.handle(PING)]
    assert world.end is None
    world.handle(letter)
    assert world.end
    assert world.end.error == f"step 'survey': {why}"
    assert len(records.troubles(world.store, world.run, 1)) == MOST_SENT


def test_the_end_of_a_run_is_sent_once_and_a_late_event_changes_nothing(world: World) -> None:
    first = world.wake()[0]
    records.end(world.store, world.run, 1, records.End("cancelled", world.now))
    assert [event.type for event in world.wake()] == ["org.hepfaas.run.cancelled"]
    assert world.wake() == []
    assert world.handle(dead(first, "500", "late")) == []


def test_a_broken_run_does_not_hold_up_the_others(world: World) -> None:
    world.root.create("active/me/alien-1", b"")
    with pytest.raises(RequestError, match="has no run 'alien-1'"):
        world.handle(PING)
    assert len([event for event in world.sent.events if event.type.endswith("survey.requested")]) > 0


def test_runs_that_take_long_to_look_at_take_turns(tmp_path: Path) -> None:
    world = World(tmp_path)
    owners = {"me", *(f"other{number}" for number in range(6))}
    for owner in owners - {"me"}:
        world.begin(owner)

    def clock() -> float:
        world.now += DEADLINE_S / 10
        return world.now

    world.advancing._clock = clock
    looked_at: list[set[str]] = []
    for minute in range(len(owners)):
        world.now = 6_000.0 + 60 * minute
        looked_at.append({event.data["owner"] for event in world.handle(PING)})
        assert looked_at[-1] < owners, "a ping ends before its request does"
    assert set.union(*looked_at) == owners


def test_a_deleted_run_is_not_active_even_if_its_end_was_never_sent(world: World) -> None:
    world.store.create(f"runs/{world.run}/deleted.json", json.dumps({"time": world.now}).encode())
    world.root.create(f"deleted/me/{world.run}", b"")
    world.now += 2 * DEADLINE_S + 1
    world.handle(PING)
    assert list(world.root.keys("active/")) == list(world.root.keys("deleted/")) == []
    assert list(world.store.keys(f"runs/{world.run}/")) == [f"runs/{world.run}/deleted.json"]


def test_a_webhook_is_called_until_it_answers(tmp_path: Path) -> None:
    world, told = World(tmp_path), Sent()
    urls: list[str] = []

    def webhook(url: str) -> Sent:
        urls.append(url)
        return told

    made: Callable[[str], Sent] = webhook
    world.advancing._webhook = made
    run = world.begin("me", "https://hook")
    records.end(world.store, run, 1, records.End("failed", world.now, "why"))
    world.handle(PING)
    assert urls == ["https://hook"]
    assert told.events[0].data["error"] == "why"


class Hooks:
    """Webhooks that fail while `failing` is set, and how many events had been sent at each call."""

    run = ""

    def __init__(self, world: World) -> None:
        self.world, self.sent, self.failing = world, list[int](), True

    def send(self, event: CloudEvent) -> None:
        self.sent.append(len(self.world.sent.events))
        if self.failing:
            raise UnavailableError("the webhook does not answer")


def ended_with_a_webhook(world: World, owner: str) -> Hooks:
    """Return webhooks, one of which belongs to a run that has ended."""
    hooks = Hooks(world)
    world.advancing._webhook = lambda url: hooks
    hooks.run = world.begin(owner, "https://hook")
    records.end(world.store_of(owner), hooks.run, 1, records.End("failed", world.now, "why"))
    return hooks


def test_webhooks_are_called_after_the_look_at_all_runs(world: World) -> None:
    """The run of 'me' comes after that of 'a' with the webhook."""
    hooks = ended_with_a_webhook(world, "a")
    world.handle(PING)
    assert "survey.requested" in world.sent.types()
    assert hooks.sent == [len(world.sent.events)]
    assert world.sent.types().count("run.failed") == 1
    hooks.failing = False
    world.handle(PING)
    assert len(hooks.sent) == 2
    world.handle(PING)
    assert len(hooks.sent) == 2


def test_a_webhook_for_which_no_time_is_left_is_called_at_the_next_ping(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = ended_with_a_webhook(world, "a")
    hooks.failing = False
    with monkeypatch.context() as patched:
        patched.setattr(advancing, "HOOKS_S", 0.0)
        world.handle(PING)
    assert hooks.sent == []
    world.handle(PING)
    assert len(hooks.sent) == 1


def test_an_event_is_handled_even_if_a_webhook_fails_and_the_next_ping_calls_it_again(world: World) -> None:
    hooks = ended_with_a_webhook(world, "me")
    run = hooks.run
    world.handle(CloudEvent(events.PHASE_COMPLETED, "/t", "s", "1", RunName("me", run, 1).to_json(), {}))
    assert len(hooks.sent) == 1
    hooks.failing = False
    world.handle(PING)
    assert len(hooks.sent) == 2
    assert list(world.root.keys("untold/")) == []


def test_a_run_with_a_dead_webhook_has_ended_and_its_webhook_is_called_for_an_hour(world: World) -> None:
    hooks = ended_with_a_webhook(world, "a")
    for _ in range(3):
        world.handle(PING)
        assert list(world.root.keys("active/a/")) == []
        assert list(world.root.keys("untold/")) == [f"untold/a/{hooks.run}"]
    assert world.sent.types().count("run.failed") == 1
    world.now += advancing.WEBHOOK_S
    world.handle(PING)
    assert len(hooks.sent) == 3
    assert list(world.root.keys("untold/")) == []


def test_the_webhook_of_a_retried_run_is_called_when_the_retry_has_ended(world: World) -> None:
    hooks, store = ended_with_a_webhook(world, "a"), world.store_of("a")
    world.handle(PING)
    records.begin(store, hooks.run, 2)
    world.root.create(f"active/a/{hooks.run}", b"")
    world.handle(PING)
    assert len(hooks.sent) == 1
    records.end(store, hooks.run, 2, records.End("cancelled", world.now))
    hooks.failing = False
    world.handle(PING)
    assert len(hooks.sent) == 2
    assert list(world.root.keys("untold/")) == []


def test_keys_that_name_no_run_do_not_hold_up_the_runs(world: World) -> None:
    for key in ("asked/x", "asked/a/b/c"):
        world.root.create(key, b"")
    world.root.create("asked/a/other-1", b"")
    world.store_of("a").create("asked/other-1", b"{}")
    with pytest.raises(RequestError, match="'asked/other-1' is not a request of this release"):
        world.handle(PING)
    assert "survey.requested" in world.sent.types()
    assert list(world.root.keys("asked/")) == ["asked/a/other-1"]


def test_a_webhook_in_a_private_network_is_not_called_again(world: World) -> None:
    run = world.begin("a", "http://127.0.0.1:1/")
    records.end(world.store_of("a"), run, 1, records.End("failed", world.now, "why"))
    world.handle(PING)
    assert world.root.size_bytes(f"active/a/{run}") is None
