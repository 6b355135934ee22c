"""New files start runs by rules: once each, when they have settled, whoever tells of them and however often."""

from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from conftest import s3_client
from hepfaas.client import Client
from hepfaas.errors import RequestError
from hepfaas.platform import records
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store, open_store
from hepfaas.service import rules
from hepfaas.service.intake import Arrived, Intake, news_in, news_of
from jobs import MODEL, PARAMS, write_root
from system import System

JOB = {"code": {"model.py": MODEL}, "params": PARAMS}
LABELS = {"signal": 1, "background": 0}
VALUES: dict[str, Any] = {"prefix": "s3://in/", "labels": LABELS, "job": JOB}


class World:
    """An intake on a folder, with a clock of its own."""

    def __init__(self, folder: Path, **changed: object) -> None:
        self.root, self.now = open_store(str(folder)), 1000.0
        self.store = open_store(f"{folder}/me")
        self.sent: list[CloudEvent] = []
        self.intake = Intake(self.root, lambda owner: self.store, self, True, lambda: self.now)
        self.rule = rules.rule_of("fresh", {**VALUES, **changed})
        rules.put(self.store, self.rule)

    def send(self, event: CloudEvent) -> None:
        self.sent.append(event)

    def take(self, *urls: str, mark: str = "1") -> list[str]:
        return self.intake.take("me", [Arrived(url, mark, "ObjectCreated:Put") for url in urls], "00-trace")


def files_of(store: Store, run: str) -> list[tuple[str, int]]:
    return [(file.url, file.label) for file in records.request_of(store, run).recipe.files]


def test_files_begin_one_run_once_both_classes_are_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.take("s3://in/signal1.root") == []
    (run,) = world.take("s3://in/background1.root", "s3://elsewhere/signal.root", "s3://in/other.root")
    assert files_of(world.store, run) == [("s3://in/background1.root", 0), ("s3://in/signal1.root", 1)]
    assert records.request_of(world.store, run).trace == "00-trace"
    assert world.take("s3://in/background1.root") == []
    assert [event.type for event in world.sent] == ["org.hepfaas.run.submitted"]


def test_new_files_are_trained_alone_or_with_all_before(tmp_path: Path) -> None:
    for which, count in (("new", 2), ("all", 4)):
        world = World(tmp_path / which, files=which)
        world.take("s3://in/signal1.root", "s3://in/background1.root")
        (run,) = world.take("s3://in/signal2.root", "s3://in/background2.root")
        assert len(files_of(world.store, run)) == count


def test_a_run_waits_until_the_files_have_settled(tmp_path: Path) -> None:
    world = World(tmp_path, debounce_s=60)
    assert world.take("s3://in/signal1.root", "s3://in/background1.root") == []
    world.now += 50
    world.take("s3://in/signal2.root")
    world.now += 50
    world.intake.ping()
    assert records.runs(world.store) == []
    world.now += 20
    world.intake.ping()
    world.intake.ping()
    (run,) = records.runs(world.store)
    assert len(files_of(world.store, run)) == 3
    assert list(world.root.keys("waiting/")) == []


def test_a_batch_that_was_claimed_by_somebody_killed_is_begun_by_the_next(tmp_path: Path) -> None:
    world = World(tmp_path, debounce_s=60)
    world.take("s3://in/signal1.root", "s3://in/background1.root")
    rules.claim(world.store, "fresh", 1, list(rules.files(world.store, "fresh")))
    world.intake.ping()
    assert len(records.runs(world.store)) == 1


def test_a_job_that_cannot_be_is_told_with_its_batch(tmp_path: Path) -> None:
    world = World(tmp_path, job={"code": {"model.py": MODEL}, "params": {"epoks": 3}})
    assert world.take("s3://in/signal1.root", "s3://in/background1.root") == []
    outcome = rules.outcome(world.store, "fresh", 1)
    assert outcome
    assert "epoks" in outcome["error"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prefix": "in/"}, "needs 'prefix'"),
        ({"labels": {"x": 1}}, "two or more"),
        ({"labels": {"x": 1, "y": True}}, "needs 'labels'"),
        ({"job": {"files": []}}, "needs 'job'"),
        ({"files": "some"}, "'new' or 'all'"),
        ({"debounce_s": -1}, "needs 'debounce_s'"),
        ({"debounce": 1}, "closest: debounce_s"),
        ({"gate": {}}, "'gate' is not there yet"),
    ],
)
def test_a_wrong_rule_is_refused_naming_the_key(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        rules.rule_of("fresh", {**VALUES, **changed})


def record(bucket: str, key: str, name: str = "ObjectCreated:Put", **more: str) -> dict[str, Any]:
    """One record of a notification, in AWS's form."""
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, **more}}}


def test_notifications_are_read_in_the_forms_of_servers() -> None:
    records_ = [
        record("in", quote_plus("a b/ä.root"), sequencer="7"),
        record("in", "x", "ObjectRemoved:Delete"),
        record("in", "folder/", "s3:ObjectCreated:Put"),
    ]
    wrapped = {"EventName": "s3:ObjectCreated:Put", "Key": "in/a", "Records": records_}
    assert news_of(wrapped) == [Arrived("s3://in/a b/ä.root", "7", "ObjectCreated:Put")]
    told = CloudEvent("t", "s3://in", "signal.root", "9", {})
    assert news_in(told) == [Arrived("s3://in/signal.root", "9", "t")]
    for wrong in ({}, {"Records": 1}, {"Records": [1]}, {"Records": [{"eventName": "x"}]}):
        with pytest.raises(RequestError):
            news_of(wrong)


def test_files_in_a_bucket_become_a_model_with_the_trace_of_the_notification(system: System, tmp_path: Path) -> None:
    client = s3_client(system.up.store.variables)
    client.create_bucket(Bucket="arrivals")
    trace = "00-11111111111111111111111111111111-2222222222222222-01"
    with httpx.Client(base_url=system.url, timeout=60) as http:
        values = {"prefix": "s3://arrivals/", "labels": LABELS, "job": {**JOB, "name": "arrived"}}
        assert http.put("/v1/rules/bucket", json=values).status_code == 200
        found = []
        for name, shift in (("signal.root", 1.0), ("background.root", 0.0)):
            write_root(tmp_path / name, 71, shift)
            client.upload_file(str(tmp_path / name), "arrivals", name)
            found.append(record("arrivals", name))
        told = http.post("/v1/notifications", json={"Records": found}, headers={"traceparent": trace})
        assert told.status_code == 202
        (run,) = told.json()["runs"]
        assert http.post("/v1/notifications", json={"Records": found}).json()["runs"] == []
        with Client(system.url) as service:
            assert service.wait(run, most_s=100).model == "arrived/1"
        assert http.get("/v1/rules/bucket").json()["batches"] == [{"run": run, "files": 2}]
        assert http.delete("/v1/rules/bucket").status_code == 204
        assert http.get("/v1/rules/bucket").status_code == 404
        assert http.put("/v1/rules/x", content=b"[").status_code == 422
    assert records.request_of(system.store(), run).trace == trace
