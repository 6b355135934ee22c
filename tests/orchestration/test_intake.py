"""New files start runs by rules: once each, when they have settled, whoever tells of them and however often."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from hepfaas.client import Client
from hepfaas.datasets.formats import ENDINGS
from hepfaas.errors import RequestError
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.models import versions
from hepfaas.orchestration import records, rules
from hepfaas.orchestration.intake import Arrived, Intake, news_in, news_of
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.jobs import MODEL, PARAMS, write_root
from support.servers import LIMIT_S, free_port, is_open, s3_client, wait_until
from support.system import System

JOB = {"code": {"model.py": MODEL}, "params": PARAMS}
QUICK_MODEL = MODEL.replace('"adam"', "keras.optimizers.Adam(0.05)")
"""It learns what there is to learn in a few epochs, however its events are split."""

LABELS = {"signal": 1, "background": 0}
VALUES: dict[str, Any] = {"prefix": "s3://in/", "labels": LABELS, "job": JOB}
BODIES = 1500 if os.environ.get("HEPFAAS_CHAOS") == "all" else 100
URLS = [f"s3://in/{kind}{number}.root" for kind in LABELS for number in range(3)]
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


class World:
    """An intake on a folder, with a clock of its own."""

    def __init__(self, folder: Path, **changed: object) -> None:
        self.root, self.now = open_store(str(folder)), 1000.0
        self.store = open_store(f"{folder}/me")
        self.sent: list[CloudEvent] = []
        self.intake = Intake(self.root, lambda owner: self.store, self, True, clock=lambda: self.now)
        self.put(**changed)

    def put(self, **changed: object) -> None:
        self.intake.put("me", rules.rule_of("fresh", {**VALUES, **changed}))

    def send(self, event: CloudEvent) -> None:
        self.sent.append(event)

    def take(self, *urls: str, mark: str = "1", trace: str = TRACE) -> list[str]:
        return self.intake.take("me", [Arrived(url, mark, "ObjectCreated:Put") for url in urls], trace)


def files_of(store: Store, run: str) -> list[tuple[str, int]]:
    return [(file.url, file.label) for file in records.request_of(store, run).recipe.files]


def test_files_begin_one_run_once_both_classes_are_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.take("s3://in/signal1.root") == []
    (run,) = world.take("s3://in/background1.root", "s3://elsewhere/signal.root", "s3://in/other.root")
    assert files_of(world.store, run) == [("s3://in/background1.root", 0), ("s3://in/signal1.root", 1)]
    request = records.request_of(world.store, run)
    assert (request.trace, request.asked) == (TRACE, {"rule": "fresh", "batch": 1})
    assert world.take("s3://in/background1.root") == []
    assert [event.type for event in world.sent] == ["org.hepfaas.run.submitted"]


def test_the_webhook_of_a_rules_job_is_that_of_its_runs(tmp_path: Path) -> None:
    world = World(tmp_path, job={**JOB, "webhook": "https://127.0.0.1/hook"})
    (run,) = world.take("s3://in/signal1.root", "s3://in/background1.root")
    assert records.request_of(world.store, run).webhook == "https://127.0.0.1/hook"
    for wrong in ("file:///etc/passwd", "root://127.0.0.1//x", {"url": "https://h"}):
        with pytest.raises(RequestError, match=r"webhook is .*; it takes an http\(s\):// address"):
            world.put(job={**JOB, "webhook": wrong})
    strict = Intake(world.root, lambda owner: world.store, world, False)
    with pytest.raises(RequestError, match=r"127\.0\.0\.1, a private address"):
        strict.put("me", rules.rule_of("fresh", {**VALUES, "job": {**JOB, "webhook": "https://127.0.0.1/hook"}}))
    news = [Arrived(f"s3://in/{kind}2.root", "1", "ObjectCreated:Put") for kind in LABELS]
    assert len(strict.take("me", news, TRACE)) == 1  # a webhook that may not be told any more loses no file


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
    rules.claim(world.store, "fresh", 1, rules.Batch(1, tuple(rules.files(world.store, "fresh")), ()))
    world.intake.ping()
    assert len(records.runs(world.store)) == 1


def test_a_batch_is_begun_by_the_rule_of_its_time_however_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, debounce_s=60)
    world.take("s3://in/signal1.root", "s3://in/background1.root")
    world.now += 60
    with monkeypatch.context() as killed:
        killed.setattr(rules, "settle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            world.intake.ping()
    world.put(job={**JOB, "params": {**PARAMS, "epochs": 7}}, prefix="s3://elsewhere/")
    world.intake.ping()
    (run,) = records.runs(world.store)
    assert records.request_of(world.store, run).recipe.epochs == PARAMS["epochs"]
    assert rules.outcome(world.store, "fresh", 1) == rules.Outcome(run, 2)


def test_a_rule_that_fails_keeps_no_other_from_its_run(tmp_path: Path) -> None:
    world = World(tmp_path, debounce_s=60)
    world.take("s3://in/signal1.root", "s3://in/background1.root")
    world.store.create("rules/alien/1.json", b'{"name": "alien", "of": "another release"}')
    world.root.create("waiting/me/alien", b"")
    world.now += 60
    with pytest.raises(RequestError, match="unknown key 'of'"):
        world.intake.ping()
    assert len(records.runs(world.store)) == 1


def test_a_job_that_cannot_be_is_refused_with_its_rule(tmp_path: Path) -> None:
    world = World(tmp_path)
    before = set(world.root.keys(""))
    with pytest.raises(RequestError, match="epoks"):
        world.put(job={"code": {"model.py": MODEL}, "params": {"epoks": 3}})
    assert set(world.root.keys("")) == before


def test_files_that_may_not_be_read_are_told_with_their_batch(tmp_path: Path) -> None:
    world = World(tmp_path, prefix="root://nowhere.invalid//")
    assert world.take("root://nowhere.invalid//signal.root", "root://nowhere.invalid//background.root?x=1") == []
    outcome = rules.outcome(world.store, "fresh", 1)
    assert outcome
    assert "a token or a client option in it" in outcome.error
    with pytest.raises(RequestError, match="cannot be read"):
        world.put(prefix="file://")


def test_a_run_that_waited_has_the_trace_of_the_last_file_and_a_wrong_one_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path, debounce_s=60)
    world.take("s3://in/signal1.root", trace="00-nonsense")
    world.now += 1
    world.take("s3://in/background1.root")
    world.now += 60
    world.intake.ping()
    world.take("s3://in/signal2.root", "s3://in/background2.root", trace="00-nonsense")
    world.now += 60
    world.intake.ping()
    first, second = (records.request_of(world.store, run).trace for run in records.runs(world.store))
    assert first == TRACE
    assert second != TRACE
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", second)


def test_a_rule_that_goes_to_rest_while_a_file_comes_is_found_by_the_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, arrived = World(tmp_path, debounce_s=60), rules.arrived

    def late(*given: Any) -> bool:
        monkeypatch.undo()
        world.intake.ping()
        assert list(world.root.keys("waiting/")) == []
        return arrived(*given)

    monkeypatch.setattr(rules, "arrived", late)
    world.take("s3://in/signal1.root", "s3://in/background1.root")
    world.now += 60
    world.intake.ping()
    assert len(records.runs(world.store)) == 1


EARLIER = {name: f"steps/{name}/1" for name in ("spec", "checkpoint", "export")}
SAMPLE = ["s3://fixed/background.root", "s3://fixed/signal.root"]
PAIR = ("s3://in/signal1.root", "s3://in/background1.root")


def published(store: Store, number: int, steps: dict[str, str]) -> None:
    """A version of the rule's model, as far as a rule looks at it."""
    spec = FeatureSpec((FeatureBranch("met", jagged=False, low=0.0, high=1.0, width=1),), identifiers=("event",))
    version = versions.Version("fresh", number)
    card, files = {"steps": steps}, {versions.SPEC: json.dumps(spec.to_json()).encode()}
    versions.publish(store, version, card, files)


def test_a_run_continues_from_the_last_version_of_when_its_files_were_claimed(tmp_path: Path) -> None:
    gate = {"files": SAMPLE, "fall": 0.02}
    world = World(tmp_path, files="continue", gate=gate, debounce_s=60)
    world.take(*PAIR)
    world.now += 60
    published(world.store, 1, {**EARLIER, "spec": "steps/spec/old"})
    published(world.store, 10, EARLIER)
    batch = rules.Batch(1, tuple(rules.files(world.store, "fresh")), (), 10)
    rules.claim(world.store, "fresh", 1, batch)
    published(world.store, 11, {})
    world.intake.ping()
    (run,) = records.runs(world.store)
    recipe = records.request_of(world.store, run).recipe
    earlier = Earlier("fresh/10", **EARLIER)
    assert (recipe.continues, recipe.selected, recipe.identifiers) == (earlier, ("met",), ("event",))
    assert recipe.gate == Gate("auc", 0.02, (LabelledFile(SAMPLE[0], 0), LabelledFile(SAMPLE[1], 1)), earlier)


def test_the_first_run_of_a_rule_that_continues_begins_afresh(tmp_path: Path) -> None:
    world = World(tmp_path, files="continue", gate={"files": SAMPLE, "fall": 0.02})
    (run,) = world.take(*PAIR)
    recipe = records.request_of(world.store, run).recipe
    assert (recipe.continues, recipe.gate, recipe.selected) == (None, None, ())


def test_files_wait_while_the_model_to_continue_from_is_in_the_making(tmp_path: Path) -> None:
    world = World(tmp_path, files="continue")
    (first,) = world.take(*PAIR)
    assert world.take("s3://in/signal2.root", "s3://in/background2.root") == []
    world.intake.ping()
    assert records.runs(world.store) == [first]
    published(world.store, 1, EARLIER)
    records.end(world.store, first, 1, records.End("completed", world.now, model="fresh/1"))
    world.intake.ping()
    second = records.request_of(world.store, records.runs(world.store)[1]).recipe
    assert second.continues == Earlier("fresh/1", **EARLIER)
    assert len(second.files) == 2


def test_a_version_of_an_earlier_release_is_told_with_the_batch(tmp_path: Path) -> None:
    world = World(tmp_path, files="continue")
    published(world.store, 1, {"export": "steps/export/1"})
    assert world.take(*PAIR) == []
    outcome = rules.outcome(world.store, "fresh", 1)
    assert outcome
    assert "published by an earlier release" in outcome.error


def test_the_mean_of_folds_is_told_with_the_batch(tmp_path: Path) -> None:
    world = World(tmp_path, files="continue")
    card = {"steps": EARLIER, "folds": {"number": 3}}
    versions.publish(world.store, versions.Version("fresh", 1), card, {versions.SPEC: b"{}"})
    assert world.take(*PAIR) == []
    outcome = rules.outcome(world.store, "fresh", 1)
    assert outcome
    assert "'fresh/1' is the mean of the networks of its folds" in outcome.error


def test_a_gate_whose_files_may_not_be_read_is_refused_with_its_rule(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(RequestError, match="cannot be read"):
        world.put(gate={"files": ["file:///signal.root", "file:///background.root"], "fall": 0})


def test_a_deleted_rule_waits_for_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, debounce_s=60)
    world.take("s3://in/signal1.root", "s3://in/background1.root")
    rules.delete(world.store, "fresh")
    world.now += 60
    world.intake.ping()
    assert records.runs(world.store) == []
    assert list(world.root.keys("waiting/")) == []


def test_files_of_a_former_prefix_are_not_trained_on(tmp_path: Path) -> None:
    world = World(tmp_path, files="all")
    world.take("s3://in/signal1.root")
    world.put(prefix="s3://other/", files="all")
    assert world.take("s3://other/background1.root") == []
    (run,) = world.take("s3://other/signal1.root")
    assert files_of(world.store, run) == [("s3://other/background1.root", 0), ("s3://other/signal1.root", 1)]


def test_a_file_that_comes_while_a_rule_goes_to_rest_is_found_by_the_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, debounce_s=60)
    world.root.create("waiting/me/fresh", b"")
    delete = type(world.root).delete

    def late(store: Store, key: str) -> None:
        monkeypatch.undo()
        world.take("s3://in/signal1.root", "s3://in/background1.root")
        delete(world.root, key)

    monkeypatch.setattr(type(world.root), "delete", late)
    world.intake.ping()
    world.now += 60
    world.intake.ping()
    assert len(records.runs(world.store)) == 1


@settings(max_examples=12, deadline=None)
@given(st.permutations([*URLS, *URLS]), st.lists(st.integers(0, 11), max_size=4), st.sampled_from(["new", "all"]))
def test_each_file_is_new_in_one_batch_whatever_the_order_and_however_often_it_is_told(
    told: list[str], pings: list[int], which: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), debounce_s=10, files=which)
        for place, url in enumerate(told):
            world.take(url)
            if place in pings:
                world.now += 10
                with ThreadPoolExecutor(2) as two:
                    list(two.map(lambda _: world.intake.ping(), range(2)))
        world.now += 10
        world.intake.ping()
        numbers = rules.batches(world.store, "fresh")
        new = [key for number in numbers for key in rules.batch(world.store, "fresh", number).new]
        assert len(new) == len(set(new))
        begun = [run for run in records.runs(world.store) if not records.is_deleted(world.store, run)]
        assert {event.data["run"] for event in world.sent} == set(begun)
        assert [rules.outcome(world.store, "fresh", number) for number in numbers] == [
            rules.Outcome(run, len(files_of(world.store, run))) for run in begun
        ]
        runs = [files_of(world.store, run) for run in begun]
        told_of = [url for files in runs for url, _ in files]
        if which == "all":
            assert {url for url, _ in runs[-1]} == set(URLS)
        else:
            left = {file.url for file in waiting(world).values()}
            assert sorted([*told_of, *left]) == sorted(URLS)


def waiting(world: World) -> dict[str, rules.File]:
    """Files that no batch has."""
    seen = {
        key
        for number in rules.batches(world.store, "fresh")
        for key in rules.batch(world.store, "fresh", number).used("all")
    }
    return rules.read(world.store, set(rules.files(world.store, "fresh")) - seen)


def test_news_of_one_more_file_reads_no_file_of_an_earlier_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.take(*(f"s3://in/signal{number}.root" for number in range(50)), "s3://in/background.root")
    read: list[str] = []
    get = type(world.store).get

    def noted(store: Store, key: str) -> bytes:
        read.append(key)
        return get(store, key)

    monkeypatch.setattr(type(world.store), "get", noted)
    world.take("s3://in/background2.root")
    assert len([key for key in read if "/files/" in key]) == 1


def record(bucket: str, key: str, name: str = "ObjectCreated:Put", **more: object) -> dict[str, Any]:
    """One record of a notification, in AWS's form."""
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, **more}}}


def test_notifications_are_read_in_the_forms_of_servers() -> None:
    records_ = [
        record("in", quote_plus("a b/ä.root"), sequencer="7"),
        record("in", "x", "ObjectRemoved:Delete"),
        record("in", "folder/", "s3:ObjectCreated:Put"),
        record("in", "empty.root", size=0),
        record("in", "signal\nx.root"),
    ]
    wrapped = {"EventName": "s3:ObjectCreated:Put", "Key": "in/a", "Records": records_}
    found = news_of(wrapped)
    assert found.files == (Arrived("s3://in/a b/ä.root", "7", "ObjectCreated:Put"),)
    assert [why.partition("' ")[2] for why in found.ignored] == [
        "was not created: ObjectRemoved:Delete",
        f"does not end in {', '.join(ENDINGS)}",
        "is empty",
        "has more than 2000 characters, or one that cannot be printed",
    ]
    told = CloudEvent("t", "s3://in", "signal.root", "9", {})
    assert news_in(told).files == (Arrived("s3://in/signal.root", "9", "t"),)
    for wrong in ({}, {"Records": 1}, {"Records": [1]}, {"Records": [{"eventName": "x"}]}):
        with pytest.raises(RequestError):
            news_of(wrong)


class Function:
    """intake under functions-framework, in a process of its own on a folder, and a broker that keeps what it gets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, list[str]()

    def __enter__(self) -> "Function":
        self._broker = ThreadingHTTPServer(("127.0.0.1", 0), self._keeping())
        self._thread = threading.Thread(target=self._broker.serve_forever)
        self._thread.start()
        port = free_port()
        variables = {
            "HEPFAAS_STORE": str(self.folder / "store"),
            "K_SINK": f"http://127.0.0.1:{self._broker.server_port}",
            "FUNCTION_TARGET": "intake",
            "FUNCTION_SOURCE": str(Path(__file__).parents[2] / "functions" / "intake" / "main.py"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "THREADS": "3",
        }
        with (self.folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "functions_framework"]
            self._process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log)
        wait_until(lambda: is_open(port), self._process, "intake")
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait(timeout=LIMIT_S)
        self._broker.shutdown()
        self._thread.join(timeout=LIMIT_S)
        self._broker.server_close()

    def written(self) -> set[str]:
        return set(open_store(str(self.folder / "store")).keys(""))

    def _keeping(self) -> type[BaseHTTPRequestHandler]:
        sent = self.sent

        class Keeping(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                sent.append(self.headers["ce-type"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *said: object) -> None:
                """Says nothing."""

        return Keeping


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    with Function(tmp_path_factory.mktemp("intake")) as started:
        yield started


def test_the_function_takes_rules_notifications_and_events_of_both_forms(function: Function) -> None:
    http = function.http
    assert http.put("/v1/rules/door", json={**VALUES, "prefix": "s3://door/"}).status_code == 200
    told = http.post("/v1/notifications", json={"Records": [record("door", "signal.root"), record("door", "x.txt")]})
    assert (told.status_code, told.json()) == (
        202,
        {
            "runs": [],
            "ignored": [f"'s3://door/x.txt' does not end in {', '.join(ENDINGS)}"],
        },
    )
    ping = {"type": "dev.knative.sources.ping", "source": "/ping", "id": "1", "specversion": "1.0", "data": {}}
    with_token = {"Content-Type": "application/cloudevents+json", "Authorization": "Bearer of-the-mesh"}
    assert http.post("/", json=ping, headers=with_token).status_code == 204
    event = {"type": "t", "source": "s3://door", "subject": "background.root", "id": "1", "specversion": "1.0"}
    structured = http.post("/", json={**event, "data": {}}, headers={"Content-Type": "application/cloudevents+json"})
    assert (structured.status_code, structured.content) == (204, b"")
    assert function.sent == ["org.hepfaas.run.submitted"]
    ping = {f"ce-{name}": value for name, value in {**event, "type": "dev.knative.sources.ping"}.items()}
    assert http.post("/", json={}, headers=ping).status_code == 204
    shown = http.get("/v1/rules/door").json()
    assert (shown["arrived"], shown["batches"]) == (2, [{"run": "door-1", "files": 2}])
    assert http.delete("/v1/rules/door").status_code == 204
    assert http.get("/v1/rules").json() == {"rules": []}
    assert http.post("/v1/rules/door").status_code == 405


TEXTS = st.text(max_size=8) | st.sampled_from(
    ["s3://in/", "ObjectCreated:Put", "signal.root", "a%00.root", "\ud800.root"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner), max_leaves=6)
MARKS = st.sampled_from(["7", "\ud800"]) | ANY
THINGS = st.fixed_dictionaries(
    {"key": st.sampled_from(["signal.root", "background%ff.root", "signal\ud800.root"])},
    optional={"size": LEAVES, "eTag": MARKS, "sequencer": MARKS},
)
GOOD = st.builds(lambda it: {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "in"}, "object": it}}, THINGS)
BAD = st.fixed_dictionaries({"eventName": ANY, "s3": st.fixed_dictionaries({"bucket": ANY, "object": ANY})}) | ANY
RECORDS = st.lists(GOOD, max_size=3) | st.lists(GOOD | BAD, max_size=3) | ANY
JOBS = [{**JOB, "params": {"epoks": 3}}, {"code": {"../model.py": MODEL}}, {"code": {"model.py": "\ud800"}}, {"x": 1}]
WRONG = st.dictionaries(st.sampled_from([*rules.Rule.__dataclass_fields__, "gate"]), ANY, max_size=2)
RULES = st.builds(lambda wrong: {**VALUES, **wrong}, WRONG | st.sampled_from([{"job": job} for job in JOBS]))
EVENT = {"specversion": "1.0", "type": "t", "source": "s3://in", "subject": "signal.root", "id": "\ud800"}
EVENTS = st.builds(
    lambda wrong: {**EVENT, "data": {}, **wrong},
    st.dictionaries(st.sampled_from([*EVENT, "data", "traceparent", "time"]), ANY, max_size=2),
)
PATHS = {
    "/v1/rules/x": ("PUT", "application/json", RULES | ANY),
    "/v1/rules/..%2fx": ("PUT", "application/json", RULES),
    "/v1/notifications": ("POST", "application/json", st.builds(lambda it: {"Records": it}, RECORDS) | ANY),
    "/": ("POST", "application/cloudevents+json", EVENTS | ANY),
}


@pytest.mark.timeout(1800)
def test_what_nobody_would_send_is_no_fault_of_ours_and_a_refused_one_writes_nothing(function: Function) -> None:
    http = function.http
    assert http.put("/v1/rules/fuzz", json=VALUES).status_code == 200

    @settings(max_examples=BODIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.sampled_from([*PATHS]), st.integers(0, 9))
    def sent(data: st.DataObject, path: str, odd: int) -> None:
        method, content, bodies = PATHS[path]
        body = data.draw(st.binary()) if odd == 0 else json.dumps(data.draw(bodies)).encode()
        before = function.written()
        answer = http.request(method, path, content=body, headers={"Content-Type": "x" if odd == 1 else content})
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        if answer.status_code >= 400:
            assert answer.json()["error"]
            assert function.written() == before

    sent()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_is_continued_and_one_that_is_worse_is_refused(system: System, tmp_path: Path) -> None:
    client = s3_client(system.up.store.variables)
    client.create_bucket(Bucket="nights")

    def stored(name: str, seed: int, shift: float) -> dict[str, Any]:
        write_root(tmp_path / "file.root", seed, shift)
        client.upload_file(str(tmp_path / "file.root"), "nights", name)
        return record("nights", name)

    def trained(night: str, signal: float, background: float) -> dict[str, Any]:
        """The run of one night's files, whose distributions are shifted so."""
        news = [stored(f"{night}/signal.root", 1, signal), stored(f"{night}/background.root", 2, background)]
        (run,) = http.post("/v1/notifications", json={"Records": news}).json()["runs"]
        return dict(service.wait(run, timeout_s=200).values)

    stored("fixed/signal.root", 3, 3.0)
    stored("fixed/background.root", 4, 0.0)
    sample = ["s3://nights/fixed/signal.root", "s3://nights/fixed/background.root"]
    values = {
        "prefix": "s3://nights/night",
        "labels": LABELS,
        "job": {"code": {"model.py": QUICK_MODEL}, "params": {**PARAMS, "epochs": 10}},
        "files": "continue",
        "gate": {"files": sample, "fall": 0.01},
    }
    with httpx.Client(base_url=system.url, timeout=60) as http, Client(system.url) as service:
        assert http.put("/v1/rules/nightly", json=values).status_code == 200
        first, second = trained("night1", 3.0, 0.0), trained("night2", 3.0, 0.0)
        assert (first["model"], "gate" in first) == ("nightly/1", False)
        assert (second["model"], second["gate"]["passed"]) == ("nightly/2", True)
        third = trained("night3", 0.0, 3.0)
        assert (third["state"], third["model"], third["gate"]["passed"]) == ("completed", "", False)
        assert "it may fall by at most 0.01" in third["refused"]
        assert third["refused"] in http.get(f"/v1/runs/{third['run']}/report").json()["error"]
        assert http.get(f"/v1/runs/{third['run']}/ledger").json()["holds"]
        cards = [http.get(f"/v1/models/nightly/{number}").json()["card"] for number in (1, 2)]
        assert cards[0]["spec"] == cards[1]["spec"]
        assert cards[1]["recipe"]["continues"]["checkpoint"] == cards[0]["steps"]["checkpoint"]
        assert cards[1]["gate"] == second["gate"]
        assert http.get("/v1/models/nightly/3").status_code == 404
        assert http.delete("/v1/rules/nightly").status_code == 204


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
            assert service.wait(run, timeout_s=300).model == "arrived/1"
        event = {"ce-type": "t", "ce-source": "s3://arrivals", "ce-subject": "signal2.root", "ce-id": "1"}
        sent = http.post("/v1/events", json={}, headers={**event, "ce-specversion": "1.0"})
        assert sent.status_code == 204
        assert http.get("/v1/rules/bucket").json()["arrived"] == 3
        assert http.get("/v1/rules/bucket").json()["batches"] == [{"run": run, "files": 2}]
        assert http.delete("/v1/rules/bucket").status_code == 204
        assert http.get("/v1/rules/bucket").status_code == 404
        assert http.put("/v1/rules/x", content=b"[").status_code == 422
    assert records.request_of(system.store(), run).trace == trace
