"""The HTTP API of runs and both clients, with real functions, store and broker."""

import asyncio
import base64
import io
import json
import os
import re
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hepfaas import AsyncClient, Client
from hepfaas.cli import main
from hepfaas.errors import RequestError
from hepfaas.local.broker import Delivery
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.platform.stores import open_store
from support.jobs import MODEL, packed, small_job
from support.pages import check_harmless
from support.system import System

EXAMPLE = Path(__file__).parents[2] / "examples" / "htautau"
MOST_S = 300
USERS = 20 if os.environ.get("HEPFAAS_CHAOS") == "all" else 4


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("job") / "small")


@pytest.fixture(scope="module")
def done(system: System, job: Path) -> str:
    """A run that has completed."""
    with Client(system.url) as client:
        run = client.submit(job, name="done")
        ended = client.wait(run, timeout_s=MOST_S)
        assert ended.state == "completed", ended.error
    return run


def door(system: System) -> httpx.Client:
    return httpx.Client(base_url=system.url, timeout=60)


@pytest.mark.slow
def test_the_demo_gives_the_weights_of_the_embedded_loop(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", str(EXAMPLE), "--name", "demo", "--url", system.url, "--wait", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert main(["train", str(EXAMPLE), "--name", "demo", "--store", str(tmp_path), "--json"]) == 0
    weights = json.loads(capsys.readouterr().out)["weights"]
    name, number = model.split("/")
    assert versions.card_of(system.store(), versions.Version(name, int(number)))["weights"] == weights


def test_a_run_shows_its_progress_until_it_has_completed(system: System, done: str) -> None:
    with Client(system.url) as client:
        status = client.status(done)
        assert status.state == "completed"
        assert status.model == "done/1"
        assert [epoch["epoch"] for epoch in status.values["epochs"]] == [1, 2]
        assert client.ledger(done)["holds"]
        assert client.ledger(done)["events"] == 600
        assert "train" in "".join(client.log(done))
        assert next(client.log(done, step="spec")).split()[1] == "spec"


def test_the_report_has_metrics_and_pictures(system: System, done: str) -> None:
    with Client(system.url) as client:
        report = client.report(done)
        assert set(report["metrics"]) == {"test", "validation"}
        roc = client.fetch(report["pictures"]["roc.png"])
        assert roc.startswith(b"\x89PNG")
        pages = {client.report_page(name).decode() for name in (done, "done/1")}
    with door(system) as http:
        page = http.get(f"/v1/runs/{done}/report", headers={"Accept": "text/html"}).text
        check_harmless(page)
        assert base64.b64encode(roc).decode() in page
        assert pages == {page}
        packed = http.get(f"/v1/runs/{done}/model").content
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            names = tar.getnames()
            keras = tar.extractfile("done/model.keras")
            assert keras
            assert keras.read() == http.get("/v1/models/done/1/model.keras").content
        assert {"done/model.tflite", "done/model.keras", "done/card.json"} <= set(names)
        assert http.get("/v1/models/done/1").json()["card"]["name"] == "done"
        assert http.get("/v1/models/done/1/model.tflite").content[4:8] == b"TFL3"
        assert [row["model"] for row in http.get("/v1/models/done").json()["models"]] == ["done/1"]


def test_runs_get_tags_and_notes_and_are_listed_by_them(system: System, done: str) -> None:
    with Client(system.url) as client:
        assert client.tag(done, "good", "v2") == ["good", "v2"]
        assert client.untag(done, "v2") == ["good"]
        note = client.note(done, "looks fine")
        assert client.note(done, "looks fine") == note
        assert [each["text"] for each in client.notes(done)] == ["looks fine"]
        assert [row["run"] for row in client.runs(tag="good")] == [done]
        assert next(client.runs(tag="good"))["note"] == "looks fine"
        assert list(client.runs(tag="bad")) == []
        assert client.status(done).values["user_notes"] == [note]
        for call, text in (
            (lambda: client.tag(done, "no tag"), "there is no 'no tag'|cannot be a tag"),
            (lambda: client.tag("none-1", "t"), "there is no run 'none-1'"),
            (lambda: client.untag(done, "other"), "has no tag 'other'"),
            (lambda: client.note(done, " "), "it takes 1 to 4,000"),
        ):
            with pytest.raises(RequestError, match=text):
                call()
    with door(system) as http:
        for body in ({}, {"text": 1}, {"text": "a", "by": "me"}, []):
            assert http.post(f"/v1/runs/{done}/notes", json=body).status_code == 422
        assert http.post(f"/v1/runs/{done}/notes", json={"text": "x" * 60_000}).status_code in (413, 422)


def test_trainings_are_compared_by_the_service(system: System, done: str) -> None:
    with Client(system.url) as client:
        compared = client.compare(done, "done/1")
        assert compared["facts"]["model"] == ["done/1", "done/1"]
        assert compared["settings"] == {}
        with pytest.raises(RequestError, match="a comparison takes 2 to 10"):
            client.compare(done)
    with door(system) as http:
        missing = http.get("/v1/comparison", params={"of": [done, "none"]})
        assert (missing.status_code, "none" in missing.json()["error"]) == (404, True)


def test_both_clients_give_the_same_values(system: System, done: str) -> None:
    events = {"met": [0.5, 1.5], "lep_pt": [[30.0], []], "nlep_pt": [1, 0], "event": [7, 8]}

    async def told() -> tuple[Any, ...]:
        async with AsyncClient(system.url) as client:
            runs, lines = [row["run"] async for row in client.runs()], [line async for line in client.log(done)]
            status = await client.wait(done)
            return await client.score("done", events), runs, lines, status, await client.models()

    scores, runs, lines, status, models = asyncio.run(told())
    with Client(system.url) as client:
        assert (runs, lines, models) == ([row["run"] for row in client.runs()], [*client.log(done)], client.models())
        assert status.model == client.status(done).model == "done/1"
        same = client.score("done/1", events)
    assert {name: values.tolist() for name, values in scores.items()} == {key: same[key].tolist() for key in same}
    assert (same["event"].tolist(), len(same["score"])) == ([7, 8], 2)


def test_events_continue_where_the_client_lost_them(system: System, done: str) -> None:
    with door(system) as http:
        whole = http.get(f"/v1/runs/{done}/events").text
        marks = re.findall(r"event: step\nid: (\S+)", whole)
        assert len(marks) > 10
        rest = http.get(f"/v1/runs/{done}/events", headers={"Last-Event-ID": marks[4]}).text
        assert re.findall(r"event: step\nid: (\S+)", rest) == marks[5:]
        assert "event: end" in rest


def test_clients_that_hang_up_hold_no_place(system: System, tmp_path: Path) -> None:
    with Client(system.url) as client:
        run = client.submit(small_job(tmp_path / "hung", seed=61, epochs=3000))
        for _ in range(3):
            with door(system) as http, http.stream("GET", f"/v1/runs/{run}/events") as answer:
                assert next(answer.iter_lines()) == "event: status"
        client.cancel(run)
    wait_for(lambda: not any(replica.busy for replica in system.up.replicas._replicas["runs"]), "free place")


def test_clients_that_leave_a_log_hold_no_place_and_others_see_lines_only(system: System, job: Path) -> None:
    """The run makes no progress: it is not in the list of active runs."""
    store = system.store()
    with Client(system.url) as client:
        client.cancel(other := client.submit(job))
    records.create_as(store, run := "quiet-1", records.request_of(store, other))

    def hung_up() -> bool:
        """Whether there was a place: a client that has left keeps its place until the next write, about a second."""
        with door(system) as http, http.stream("GET", f"/v1/runs/{run}/log?follow=1") as answer:
            assert answer.status_code in (200, 429)
            return answer.status_code == 200

    for _ in range(6):  # more than one owner may follow at a time
        wait_for(hung_up, "place")
    wait_for(lambda: not any(replica.busy for replica in system.up.replicas._replicas["runs"]), "free place")
    with Client(system.url) as client, ThreadPoolExecutor() as threads:
        lines = threads.submit(lambda: list(client.log(run, follow=True)))
        wait_for(lambda: any(replica.busy for replica in system.up.replicas._replicas["runs"]), "reader")
        time.sleep(2)  # while nothing happens
        assert records.end(store, run, 1, records.End("cancelled", time.time()))
        assert lines.result(MOST_S) == [f"run {run} cancelled"]


def test_a_log_is_one_document_of_the_same_values_everywhere(
    system: System, done: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for more in (["--url", system.url], ["--url", system.url, "--follow"], ["--store", system.up.store.url]):
        assert main(["log", done, "--json", *more]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1] == told[2]
    assert "train" in {entry["kind"] for entry in told[0]}


def test_runs_are_listed_newest_first_in_pages_and_by_state(system: System, done: str) -> None:
    with door(system) as http:
        page = http.get("/v1/runs", params={"limit": 1}).json()
        assert len(page["runs"]) == 1
        with Client(system.url) as client:
            assert done in [row["run"] for row in client.runs()]
        created = [row["created"] for row in http.get("/v1/runs").json()["runs"]]
        assert created == sorted(created, reverse=True)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text) for text in created)
        assert all(row["state"] == "failed" for row in http.get("/v1/runs?state=failed").json()["runs"])
        assert http.get("/v1/runs?state=lost").status_code == 422


def test_the_same_idempotency_key_begins_one_run(system: System, job: Path) -> None:
    headers = {"Content-Type": "application/gzip", "Idempotency-Key": "once"}
    with door(system) as http:
        answers = [http.post("/v1/runs?name=once", content=packed(job), headers=headers) for _ in range(3)]
        assert {answer.json()["run"] for answer in answers} == {"once-1"}
        assert answers[0].status_code == 202
        assert answers[0].headers["Location"] == "/v1/runs/once-1"
        assert http.post("/v1/runs?name=twice", content=packed(job), headers=headers).status_code == 422


def test_a_job_can_be_sent_as_values_and_its_files_must_be_reachable(system: System) -> None:
    job: dict[str, Any] = {"files": ["/etc/passwd", "root://h//x.root"], "labels": [0, 1], "code": {"model.py": MODEL}}
    with door(system) as http:
        answer = http.post("/v1/runs", json=job)
        assert answer.status_code == 422
        assert "'/etc/passwd' did not come with the job" in answer.json()["error"]
        job["files"] = [f"{system.up.store.url}/other/uploads/x.root", "s3://b/y.root"]
        assert "bucket of this service" in http.post("/v1/runs", json=job).json()["error"]
        job["code"] = {"../model.py": MODEL}
        assert "not the name of a file inside a folder" in http.post("/v1/runs", json=job).json()["error"]


def test_a_job_can_be_sent_as_samples(system: System) -> None:
    samples = {
        "s": {"files": ["root://127.0.0.1:1//s.root"], "label": "signal"},
        "b": {"files": "b.txt", "label": "background", "weight": "genWeight"},
    }
    code = {"model.py": MODEL, "b.txt": "root://127.0.0.1:1//b.root"}
    job: dict[str, Any] = {"name": "sampled", "samples": samples, "luminosity": "1/fb", "code": code}
    with door(system) as http:
        answer = http.post("/v1/runs", json=job)
        assert answer.status_code == 202, answer.text
        run = answer.json()["run"]
        assert "the job: the labels are signal = 0, background = 1" in answer.json()["notes"]
        recipe = records.request_of(system.store(), run).recipe
        assert [(file.label, file.sample) for file in recipe.files] == [(0, "s"), (1, "b")]
        assert (recipe.classes, recipe.luminosity) == (("signal", "background"), 1_000.0)
        http.post(f"/v1/runs/{run}/cancel")
        job["samples"] = {**samples, "b": {"files": "root://127.0.0.1:1//*.root", "label": "background"}}
        answer = http.post("/v1/runs", json=job)
        assert answer.status_code == 422
        assert "has a wildcard, and the service does not list servers" in answer.json()["error"]


SECRETS = "/proc/self/environ"
NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("submit.json", json.dumps({"labels": SECRETS}), "not the name of a file inside a folder"),
        ("submit.json", json.dumps({"files": "../files.txt"}), "not the name of a file inside a folder"),
        ("submit.json", json.dumps({"model": "../../../x/m.py"}), "not the name of a file inside a folder"),
        ("submit.json", json.dumps({"params": SECRETS}), "not the name of a file inside a folder"),
        ("submit.json", "[1]", "must be one JSON object"),
        ("submit.json", '{"name": 5}', "'name' is 5; it takes a name"),
        ("submit.json", NESTED, "is nested deeper than"),
        ("submit.json", '{"name": "\ud800"}', "cannot be read as text"),
        (
            "params.json",
            json.dumps({"exclude_branches": "/etc/hostname.txt"}),
            "not the name of a file inside a folder",
        ),
        ("params.json", NESTED, "is nested deeper than"),
        ("params.json", '{"epochs": ' + "9" * 5_000 + "}", "params.json cannot be read"),
        ("labels.txt", "9" * 5_000, "a label is a whole number from -9999 to 9999"),
        ("labels.txt", "x\n1\n", "label 1 is 'x'"),
        ("files.txt", "a\0b\nroot://h//x.root\n", "not a name or address of a file"),
        ("files.txt", "x" * 5_000 + "\ny\n", "not a name or address of a file"),
        ("files.txt", "/etc/hostname\n/etc/nothing-of-that-name\n", "did not come with the job"),
        ("model.py/x.py", "", "lies below another file"),
        ("é" * 190, "", "not the name of a file inside a folder"),
    ],
)
def test_no_file_of_a_folder_leads_out_of_it_or_causes_a_500(system: System, name: str, text: str, why: str) -> None:
    """As a tar, and as code of a job in JSON: no message quotes another file."""
    files = {"files.txt": "root://h//a.root\nroot://h//b.root\n", "labels.txt": "0\n1\n", "model.py": MODEL}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for called, content in {**files, name: text}.items():
            info, data = tarfile.TarInfo(called), content.encode("utf-8", "surrogatepass")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    def taken() -> list[str]:
        return [key for prefix in ("newest/", "uploads/") for key in system.store().keys(prefix)]

    before = taken()
    with door(system) as http:
        answers = [http.post("/v1/runs", content=out.getvalue(), headers={"Content-Type": "application/gzip"})]
        if name not in (*files, "params.json", "submit.json"):
            job = {"files": ["root://h//a.root", "root://h//b.root"], "labels": [0, 1]}
            code = {"code": {"model.py": MODEL, name: text}}
            body = json.dumps({**job, **code})
            answers.append(http.post("/v1/runs", content=body, headers={"Content-Type": "application/json"}))
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert why in answer.json()["error"]
        assert "AWS_" not in answer.text
    assert taken() == before


def test_large_uploads_and_private_addresses_are_refused_by_every_call(tmp_path: Path) -> None:
    """As at a facility: `hepfaas up` allows private addresses, and these variables forbid them."""
    variables = {"HEPFAAS_MOST_UPLOAD_BYTES": "100000", "HEPFAAS_ALLOW_PRIVATE": "0"}
    with System(tmp_path / "up", **variables) as small, door(small) as http:
        job = {"files": ["root://8.8.8.8//a.root", "http://127.0.0.1/b.root"], "labels": [0, 1]}
        code, public = {"model.py": MODEL}, ["root://8.8.8.8//a.root", "root://8.8.8.8//b.root"]
        rule = {
            "prefix": "s3://b/",
            "labels": {"a": 0, "b": 1},
            "job": {"code": code},
            "gate": {"files": job["files"], "fall": 0.1},
        }
        for answer in (
            http.post("/v1/runs", json={**job, "code": code}),
            http.post("/v1/runs", json={**job, "code": code, "files": public, "webhook": "http://127.0.0.1/"}),
            http.put("/v1/rules/night", json=rule),
        ):
            assert answer.status_code == 422
            assert "127.0.0.1, a private address" in answer.json()["error"]
        assert not list(small.store().keys(""))
        large = {"file": ("job.tar.gz", b"x" * 200_000)}
        for answer in (
            http.post("/v1/runs", content=b"x" * 200_000, headers={"Content-Type": "application/gzip"}),
            http.post("/v1/runs", files=large),
            http.post("/upload?name=large", files=large),
        ):
            assert (answer.status_code, answer.json()["error"]) == (413, "the request has more than 100000 bytes")


def test_a_job_can_be_sent_as_the_files_of_a_form(system: System, job: Path) -> None:
    files = [("file", (path.name, path.read_bytes())) for path in job.iterdir() if path.is_file()]
    with door(system) as http:
        answer = http.post("/v1/runs?name=form", files=files)
        assert answer.status_code == 202, answer.text
        with Client(system.url) as client:
            assert client.wait(answer.json()["run"], timeout_s=MOST_S).state == "completed"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archives_with_links_are_refused(system: System, kind: bytes) -> None:
    info = tarfile.TarInfo("model.py")
    info.type, info.linkname = kind, "/etc/passwd"
    check_refused(system, info, "is not a plain file")


@pytest.mark.parametrize("name", ["/etc/cron.d/x", "../../x", "a/../../x"])
def test_archives_that_lead_elsewhere_are_refused(system: System, name: str) -> None:
    check_refused(system, tarfile.TarInfo(name), "not the name of a file inside a folder")


def check_refused(system: System, info: tarfile.TarInfo, why: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(info)
    with door(system) as http:
        answer = http.post("/v1/runs", content=out.getvalue(), headers={"Content-Type": "application/gzip"})
    assert answer.status_code == 422
    assert why in answer.json()["error"]


def test_a_cancelled_run_does_nothing_more(system: System, tmp_path: Path) -> None:
    folder = small_job(tmp_path / "long", seed=7, epochs=5000)
    with Client(system.url) as client:
        run = client.submit(folder)
        wait_for(lambda: client.status(run).values["epochs"][2:], "the third train step")
        status = client.status(run)
        assert status.values["eta_s"] > 0
        assert re.search(r"train  [\d,]+ of 5,000 steps  ETA \d+ s", status.line())
        assert client.cancel(run)["state"] == "cancelled"
        with pytest.raises(RequestError, match="cancelled"):
            client.report(run)
        time.sleep(1)  # the step under way may still end
        before = len(list(client.log(run)))
        time.sleep(1)
        assert len(list(client.log(run))) == before


def test_a_model_that_raises_fails_the_run_with_its_line_and_a_retry_is_a_new_attempt(
    system: System, tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "broken", seed=5)
    (folder / "model.py").write_text("def model(idim):\n    return 1 / 0\n")
    with Client(system.url) as client:
        run = client.submit(folder)
        ended = client.wait(run, timeout_s=MOST_S)
        assert ended.state == "failed"
        assert "division by zero" in ended.error
        assert "model.py" in ended.error
        assert client.retry(run)["attempt"] == 2
        assert client.wait(run, timeout_s=MOST_S).state == "failed"
        client.delete(run)
        with pytest.raises(RequestError, match=f"there is no run '{run}'"):
            client.status(run)
        assert run not in [row["run"] for row in client.runs()]


def wait_for(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + MOST_S
    while not holds():
        assert time.monotonic() < end, f"no {what} in {MOST_S} s"
        time.sleep(0.1)


def test_a_webhook_gets_the_end_of_its_run_with_the_trace_of_the_request(system: System, job: Path) -> None:
    got: list[tuple[dict[str, str], dict[str, Any]]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({key.lower(): value for key, value in self.headers.items()}, json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server, door(system) as http, Client(system.url) as client:
        threading.Thread(target=server.serve_forever).start()
        headers = {"Content-Type": "application/gzip", "traceparent": trace}
        query = {"name": "hooked", "webhook": f"http://127.0.0.1:{server.server_port}/"}
        run = http.post("/v1/runs", params=query, content=packed(job), headers=headers).json()["run"]
        client.wait(run, timeout_s=MOST_S)
        wait_for(lambda: bool(got), "call of the webhook")
        server.shutdown()
        query["webhook"] = "file:///etc/passwd"
        assert http.post("/v1/runs", params=query, content=packed(job), headers=headers).status_code == 422
    assert got[0][0]["ce-type"] == "org.hepfaas.run.completed"
    assert got[0][0]["ce-traceparent"] == trace
    assert got[0][1]["model"] == "hooked/1"


def test_a_run_whose_model_was_deleted_says_so(system: System, job: Path) -> None:
    with Client(system.url) as client, door(system) as http:
        run = client.submit(job, name="forgotten")
        ended = client.wait(run, timeout_s=MOST_S)
        assert ended.state == "completed", ended.error
        versions.delete(system.store(), versions.Version("forgotten", 1))
        for path in (f"/v1/runs/{run}/report", f"/v1/runs/{run}/model", "/model?process_name=forgotten_1"):
            answer = http.get(path)
            assert answer.status_code == 404
            assert re.search("model version 'forgotten/1'.* was deleted", answer.json()["error"])
        assert client.status(run).state == "completed"


def test_the_records_of_a_deleted_run_are_removed_later(system: System, job: Path) -> None:
    with Client(system.url) as client:
        run = client.submit(job, name="gone")
        client.delete(run)
        store = system.store()
        wait_for(lambda: list(store.keys(f"runs/{run}/")) == [f"runs/{run}/deleted.json"], "removal")
        assert client.submit(job, name="gone") == "gone-2"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_can_be_followed_at_once(tmp_path: Path) -> None:
    """With the deadlines of `hepfaas up`: those of the other tests are too short for runs that wait."""
    crowded = System(tmp_path / "up", HEPFAAS_DEADLINE_S="300")
    crowded.options = replace(crowded.options, delivery=Delivery())

    async def follow(number: int) -> str:
        async with AsyncClient(crowded.url) as client:
            run = await client.submit(small_job(tmp_path / f"job{number}", seed=20 + number), name="many")
            return [status.state async for status in client.follow(run, USERS * MOST_S)][-1]

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(follow(number) for number in range(USERS)))

    with crowded:
        assert asyncio.run(all_of_them()) == ["completed"] * USERS


def test_a_missing_resource_is_named(system: System) -> None:
    with door(system) as http:
        assert http.get("/v1/runs/none-1").status_code == 404
        assert http.get("/v1/nothing").json() == {"error": "there is no '/v1/nothing'; /openapi.json lists the paths"}
        assert http.put("/v1/runs").status_code == 405
        assert http.get("/v1/models/none/1").status_code == 404
        assert http.get("/v1/runs/..%2f..%2fetc").status_code == 404


@pytest.mark.slow
def test_a_restarted_system_goes_on_with_every_run(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "again", seed=9, epochs=30)
    with System(tmp_path / "up") as system, Client(system.url) as client:
        run = client.submit(folder)
    assert left_running(tmp_path) == []
    with System(tmp_path / "up") as system, Client(system.url) as client:
        assert client.wait(run, timeout_s=MOST_S).state == "completed"
        card = versions.card_of(system.store(), versions.Version("again", 1))
    assert main(["train", str(folder), "--store", str(tmp_path / "loop")]) == 0
    assert (
        versions.card_of(open_store(f"{tmp_path}/loop/local"), versions.Version("again", 1))["weights"]
        == card["weights"]
    )
    assert left_running(tmp_path) == []


def left_running(folder: Path) -> list[str]:
    """Return the command lines of processes that were started for this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = (path / "environ").read_bytes().decode(errors="replace")
            line = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if (str(folder) in line and "weed" in line) or f"HEPFAAS_TEST={folder}" in variables:
            found.append(line)
    return found
