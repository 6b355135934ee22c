"""The data of events: valid by the schema, traced, and never larger than brokers take."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hepfaas import Client
from hepfaas.errors import RequestError
from hepfaas.orchestration import events
from hepfaas.orchestration.events import RunName, Task
from hepfaas.platform.cloud_events import MOST_DATA_BYTES, CloudEvent, on_the_wire, read_event
from hepfaas.platform.stores import open_store
from hepfaas.runs.steps import KINDS, Evaluate, Open, Step, Survey
from support.jobs import small_job
from support.system import System

DOCUMENT = (Path(__file__).parents[2] / "docs" / "reference" / "events.md").read_text()
SCHEMA: dict[str, Any] = json.loads(DOCUMENT.split("```json\n")[2].split("```")[0])
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAME = RunName("me", "job-1", 1)
BRANCHES = tuple(f"HLT_Path_with_a_long_name_v{number}" for number in range(3000))


def check(event: CloudEvent) -> None:
    """Validate an event against the schema of its type."""
    name = event.type if event.type in SCHEMA["$defs"] else "org.hepfaas.<kind>.requested"
    jsonschema.validate(json.loads(json.dumps(event.data)), {**SCHEMA, "$ref": f"#/$defs/{name}"})


def test_every_type_of_event_has_a_schema() -> None:
    types = {value for name, value in vars(events).items() if name.isupper() and str(value).startswith("org.hepfaas.")}
    assert types | {events.PING} <= set(SCHEMA["$defs"])
    assert set(SCHEMA["$defs"]["kind"]["enum"]) == set(KINDS) - {"sum"}


@pytest.mark.parametrize(
    "data",
    [
        {"owner": "me", "run": "a/b", "attempt": 1},
        {"owner": "me", "run": "a", "attempt": 0},
        {"owner": "me", "run": "a", "attempt": 1, "token": "x"},
    ],
)
def test_the_schema_refuses_invalid_events(data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(CloudEvent(events.RUN_SUBMITTED, "/t", "s", "1", data))


@pytest.mark.slow
def test_all_events_of_runs_match_the_schema_and_carry_the_trace_of_the_request(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[CloudEvent] = []
    take = system.up.broker.take

    def heard(event: CloudEvent) -> None:
        taken.append(event)
        take(event)

    monkeypatch.setattr(system.up.broker, "take", heard)
    broken = small_job(tmp_path / "broken", seed=81)
    (broken / "model.py").write_text("def model(idim):\n    return 1 / 0\n")
    with Client(system.url) as client:
        client._connection.http.headers["traceparent"] = TRACE
        runs = [client.submit(small_job(tmp_path / "good", seed=82)), client.submit(broken)]
        assert [client.wait(run, timeout_s=300).state for run in runs] == ["completed", "failed"]
    mine = [event for event in taken if event.data.get("run") in runs]
    for event in mine:
        check(event)
        assert event.trace == TRACE
        assert event.source.startswith("/hepfaas/")
    kinds = {event.data["step"]["kind"] for event in mine if event.type.endswith(".requested")}
    assert kinds == set(KINDS) - {"sum", "weigh", "compare", "predict", "convert", "register"}
    assert {event.type for event in mine} >= {
        events.RUN_SUBMITTED,
        events.PHASE_COMPLETED,
        events.STEP_FAILED,
        events.MODEL_PUBLISHED,
        "org.hepfaas.run.completed",
        "org.hepfaas.run.failed",
    }


@pytest.mark.parametrize(
    "step",
    [
        Survey(file="a", tree="Events", branches=BRANCHES, entries=(0, 1000), url="root://h//a"),
        Open(
            url="root://h//a",
            tree="Events",
            selected=BRANCHES,
            excluded=(),
            identifiers=(),
            range_events=1000,
            attempt="job-1/1",
        ),
        Evaluate(
            examine="steps/examine/1",
            trainings=(("steps/score/1", tuple(f"steps/train/{number:064x}" for number in range(2000)), 7),),
            classes=("a", "b"),
            data="steps/sum/1",
        ),
    ],
    ids=lambda step: step.kind,
)
def test_a_large_step_is_sent_as_the_key_of_a_blob(step: Step, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    task = Task(NAME, step, groups=((step.key,) * 16,) * 4, phase="p", slice=(0, 3))
    event = events.requested(task, "t", TRACE, store)
    check(event)
    headers, body = on_the_wire(event)
    assert len(body) < MOST_DATA_BYTES / 4
    arrived = read_event(headers, body)
    assert events.task_of(arrived.data, store) == task
    check(events.requested(Task(NAME, step, then=dict(event.data)), "t", TRACE, store))
    store.delete(arrived.data["step"]["blob"])
    with pytest.raises(RequestError, match="does not exist any more"):
        events.task_of(arrived.data, store)
    assert events.requested(task, "t", TRACE, store) == event
    assert events.task_of(arrived.data, store) == task


@pytest.mark.parametrize("blob", ["../../x", "runs/a/request.json", 7, None])
def test_a_step_is_only_read_from_blobs(blob: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no valid 'step'"):
        events.task_of({**NAME.to_json(), "step": {"kind": "survey", "blob": blob}}, open_store(str(tmp_path)))
