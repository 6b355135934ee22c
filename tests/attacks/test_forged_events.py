"""`advance` and events from a sender that has the key of one step function, or none."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.orchestration import events, records
from hepfaas.orchestration.advancing import Advancing
from hepfaas.orchestration.events import RunName, Task
from hepfaas.platform.cloud_events import CloudEvent, on_the_wire, signed
from hepfaas.platform.stores import open_store
from hepfaas.runs import preparation
from hepfaas.runs.opened import joined
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Publish, Step, Survey
from hepfaas.steps.objects import encoded
from support.servers import TOP

RECIPE = Recipe("job", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
FORGED = Publish(
    name="job",
    recipe="{}",
    data="steps/sum/1",
    spec="steps/spec/1",
    checkpoint="steps/train/1",
    export="steps/export/1",
    evaluate="steps/evaluate/1",
    compare=None,
)


class World:
    """A run whose files are opened, so that surveys are next, and an `advance`."""

    def __init__(self, folder: Path) -> None:
        self.root, self.sent = open_store(str(folder)), list[CloudEvent]()
        self.store = open_store(f"{self.root.url}/me")
        self.run = records.create(self.store, records.Request(RECIPE, 1000.0))
        self.name = RunName("me", self.run, 1)
        common: dict[str, Any] = {"features": [["met", False]], "identifiers": [], "left_out": []}
        files = [
            {"identity": file.url, "fingerprint": file.url, "entries": 100, "ranges": [[0, 100]], **common}
            for file in RECIPE.files
        ]
        self.store.create(preparation.open_levels(RECIPE, self.name.name)[-1][0].key, encoded(joined(files)))
        self.root.create(f"active/me/{self.run}", b"")
        self.advancing = Advancing(
            self.root, lambda owner: self.store, self, max_scale=4, deadline_s=10.0, clock=lambda: 1000.0
        )

    def send(self, event: CloudEvent) -> None:
        self.sent.append(event)

    def handled(self, event: CloudEvent) -> list[CloudEvent]:
        self.sent.clear()
        self.advancing.handle(event)
        return list(self.sent)

    def report(self, type_: str, by: str, step: Step, **more: Any) -> CloudEvent:
        data = {**self.name.to_json(), "step": step.key, "kind": step.kind, "phase": "", "slice": [0, 0], **more}
        return events.event(type_, by, step.key, self.name, data=data)

    def task(self, step: Step) -> dict[str, Any]:
        return dict(events.requested(Task(self.name, step), "t", "", self.store).data)

    def surveys(self) -> list[Survey]:
        submitted = events.event(events.RUN_SUBMITTED, "runs", "s", self.name)
        tasks = (events.task_of(event.data, self.store) for event in self.handled(submitted))
        return [task.step for task in tasks if isinstance(task.step, Survey)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_task_that_waited_is_sent_if_the_run_has_it_and_not_else(world: World) -> None:
    made, waiting = world.surveys()
    world.store.create(made.key, b"{}")
    for type_, more in ((events.STEP_COMPLETED, {}), (events.STEP_MISSING, {"missing": made.key})):
        honest = world.report(type_, "survey", made, then=world.task(waiting), **more)
        assert [event.subject for event in world.handled(honest)] == [waiting.key]
        assert world.handled(world.report(type_, "survey", made, then=world.task(FORGED), **more)) == []
        elsewhere = world.task(replace(waiting, url="root://h//another"))  # the address is not part of the key
        (sent,) = world.handled(world.report(type_, "survey", made, then=elsewhere, **more))
        assert events.task_of(sent.data, world.store).step == waiting


def test_a_task_of_another_run_is_not_sent_on_the_word_of_this_one(world: World) -> None:
    made, waiting = world.surveys()
    world.store.create(made.key, b"{}")
    then = {**world.task(waiting), "owner": "another"}
    with pytest.raises(RequestError, match="the task that waited is of run"):
        world.handled(world.report(events.STEP_COMPLETED, "survey", made, then=then))
    assert world.sent == []


def dead(event: CloudEvent) -> CloudEvent:
    """Return the event as a broker's dead letter with 422, as if its step could not be done."""
    extensions = {"knativeerrordest": "http://f/", "knativeerrorcode": "422", "knativeerrordata": ""}
    return replace(event, extensions={**event.extensions, **extensions})


@pytest.mark.parametrize("type_", [events.RUN_SUBMITTED, events.RUN_REQUESTED, events.PHASE_COMPLETED])
def test_only_a_dead_task_fails_an_attempt(world: World, type_: str) -> None:
    """An unsigned event, or one with another key, only causes a look, even if it claims to be a dead letter."""
    survey, *_ = world.surveys()
    records_before = set(world.store.keys("runs/"))
    forged = dead(CloudEvent(type_, "/hepfaas/runs", "s", "1", world.task(survey)))
    with suppress(RequestError):  # the run was not requested
        world.handled(forged)
    assert set(world.store.keys("runs/")) == records_before
    task = events.requested(Task(world.name, survey), "advance", "", world.store)
    world.handled(dead(task))
    assert any("/failed/survey-" in key for key in world.store.keys("runs/"))


def test_a_dead_letter_is_about_a_step_of_the_function_whose_key_signed_it(world: World) -> None:
    survey, *_ = world.surveys()
    for type_, source in (("predict.requested", "advance"), ("bogus.requested", "apply")):
        forged = CloudEvent(f"{events.PREFIX}.{type_}", f"/hepfaas/{source}", survey.key, "1", world.task(survey))
        assert events.step_function_of(forged) == "apply"
        with pytest.raises(ForbiddenError):
            world.handled(dead(forged))
    assert not any("/failed/" in key for key in world.store.keys("runs/"))


def test_advance_itself_refuses_what_another_functions_key_has_signed(tmp_path: Path) -> None:
    """The real function, with a key for each step function."""
    code = """
import os, sys, json
sys.argv = ["x"]
import runpy
from flask import Flask, request
module = runpy.run_path(os.environ["FUNCTION_SOURCE"])
app = Flask("x")
app.add_url_rule("/", "x", lambda: module["ANSWER"](request), methods=["POST"])
client = app.test_client()
for headers, body in json.loads(sys.stdin.read()):
    print(client.post("/", headers=headers, data=body).status_code)
"""
    keys = {name: f"key-of-{name}-".ljust(32, "x") for name in events.DOES}
    world = World(tmp_path / "store")
    survey, *_ = world.surveys()
    good = world.report(events.PHASE_COMPLETED, "survey", survey)
    sent = [
        signed(good, keys["survey"]),
        signed(good, keys["apply"]),
        signed(replace(good, source="/hepfaas/apply"), keys["apply"]),
        signed(good, "key-of-advance".ljust(32, "x")),
        good,
        events.event(events.RUN_SUBMITTED, "runs", "s", world.name),
    ]
    wire = [(headers, body.decode()) for headers, body in map(on_the_wire, sent)]
    environ = {
        **os.environ,
        "HEPFAAS_STORE": world.root.url,
        "K_SINK": "http://127.0.0.1:9/",
        "K_SERVICE": "advance",
        "HEPFAAS_EVENT_KEYS": "key-of-advance".ljust(32, "x"),
        **{f"HEPFAAS_EVENT_KEYS_{name.upper()}": key for name, key in keys.items()},
        "FUNCTION_SOURCE": str(TOP / "functions/advance/main.py"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(wire), env=environ, capture_output=True, text=True, timeout=100
    )
    statuses = done.stdout.split()
    assert statuses[1:5] == ["403"] * 4, done.stderr
    assert "403" not in (statuses[0], statuses[5])
