"""Predictions on many events become runs: asked for by predict, begun by advance, done range by range."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas import Client
from hepfaas.cli import main
from hepfaas.errors import RequestError
from hepfaas.orchestration import records
from hepfaas.platform.stores import open_store
from hepfaas.views import overview
from support.jobs import write_root
from support.servers import XRootD
from support.system import System

MOST_S = 300
EVENTS = 6_000
STREAMED = 1_000
PREDICT = "/v1/models/job/predict"
QUICK = {
    "XRD_CONNECTIONWINDOW": "1",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_STREAMERRORWINDOW": "0",
    "XRD_REQUESTTIMEOUT": "3",
}
TABLES: dict[str, Callable[[bytes], Any]] = {
    "application/vnd.apache.arrow.stream": lambda data: pa.ipc.open_stream(data).read_all(),
    "application/vnd.apache.parquet": lambda data: pq.read_table(io.BytesIO(data)),
}


class Predicting(System):
    """A system with a model, whose functions meet planned faults, and a file of 60 ranges behind XRootD."""

    def __init__(self, folder: Path, trained: Path) -> None:
        self.faults = folder / "faults"
        (self.faults / "met").mkdir(parents=True)
        variables = {
            **QUICK,
            "HEPFAAS_DEADLINE_S": "3",
            "HEPFAAS_HASHED_BYTES": "1",  # files are read by ranges, so that a door can be away
            "HEPFAAS_PREDICT_STREAM_EVENTS": str(STREAMED),
            "HEPFAAS_FAULTS": str(self.faults),
        }
        super().__init__(folder / "up", **variables)
        self.file = folder / "many.root"
        write_root(self.file, 5, 0.5, EVENTS)
        self.trained = trained

    def __enter__(self) -> "Predicting":
        super().__enter__()
        here, there = open_store(f"{self.trained}/store/local"), self.store()
        for key in here.keys(""):
            there.create(key, here.get(key))
        self.http = httpx.Client(base_url=self.url, timeout=60)
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()
        super().__exit__(*error)

    def plan(self, *faults: tuple[str, str, int]) -> None:
        """What happens from now on: site, kind, at which call."""
        for path in (self.faults / "met").iterdir():
            path.unlink()
        planned = [
            {"id": str(number), "site": f"hepfaas.{site}", "kind": kind, "nth": nth}
            for number, (site, kind, nth) in enumerate(faults)
        ]
        (self.faults / "plan.json").write_text(json.dumps(planned))

    def happened(self) -> int:
        """How many of them have."""
        planned = json.loads((self.faults / "plan.json").read_text())
        return sum((self.faults / "met" / f"{one['id']}.{one['nth']}").exists() for one in planned)

    def ask(self, *urls: str, headers: dict[str, str] | None = None, **values: Any) -> httpx.Response:
        return self.http.post(PREDICT, json={"files": urls, **values}, headers=headers)

    def begun(self, *urls: str, **values: Any) -> str:
        """A prediction run on these files."""
        answer = self.ask(*urls, **values)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])

    def completed(self, run: str) -> str:
        """Its scores as lines, once it has completed, without the last, which says it was all."""
        with Client(self.url) as client:
            ended = client.wait(run, timeout_s=MOST_S)
            assert ended.state == "completed", ended.error
            ledger = client.ledger(run)
            assert (ledger["holds"], ledger["events"]) == (True, EVENTS), ledger
        *lines, last = self.http.get(f"/v1/runs/{run}/scores").text.splitlines()
        assert json.loads(last) == {"model": "job/1", "files": 1, "events": EVENTS}
        return "\n".join(lines)

    def n_scored(self) -> int:
        """Parts that are there."""
        return sum(1 for _ in self.store().keys("steps/predict/"))

    def forget_scores(self) -> None:
        """So that another run computes them anew."""
        store = self.store()
        sums = [key for key in store.keys("steps/sum/") if b'"n_surplus"' in store.get(key)]
        for key in [*list(store.keys("steps/predict/")), *sums]:
            store.delete(key)


@pytest.fixture(scope="module")
def door() -> Iterator[XRootD]:
    with XRootD() as server:
        yield server


@pytest.fixture(scope="module")
def predicting(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predicting]:
    with Predicting(tmp_path_factory.mktemp("predicting"), trained) as started:
        yield started


@pytest.fixture(scope="module")
def url(predicting: Predicting, door: XRootD) -> str:
    return door.serve(predicting.file)


@pytest.fixture(scope="module")
def at_once(predicting: Predicting, url: str) -> str:
    """The lines that predict streams for the same events, asked for in pieces that are short."""
    lines: list[str] = []
    for start in range(0, EVENTS, STREAMED):
        answer = predicting.ask(url, entries=[start, start + STREAMED])
        assert answer.status_code == 200, answer.text
        *rows, last = answer.text.splitlines()
        assert json.loads(last)["events"] == len(rows) == STREAMED
        lines += rows
    return "\n".join(lines)


@pytest.fixture(scope="module")
def done(predicting: Predicting, url: str, at_once: str) -> str:
    """A run that has completed, with the scores of the synchronous answer."""
    run = predicting.begun(url)
    assert predicting.completed(run) == at_once
    return run


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + MOST_S
    while not is_so():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.05)


def test_many_events_become_a_run_with_the_scores_of_the_answer_at_once(
    predicting: Predicting, done: str, at_once: str
) -> None:
    for kind, read in TABLES.items():
        answer = predicting.http.get(f"/v1/runs/{done}/scores", headers={"Accept": kind})
        assert answer.headers["content-type"].startswith(kind)
        table = read(answer.content)
        rows = [json.loads(line) for line in at_once.splitlines()]
        assert table["entry"].to_pylist() == [row["entry"] for row in rows] == list(range(EVENTS))
        assert table["event"].to_pylist() == [row["event"] for row in rows]
        assert table["score"].to_numpy().tolist() == np.float32([row["score"] for row in rows]).tolist()


def test_a_run_of_predictions_tells_where_it_is_and_what_it_made(predicting: Predicting, url: str, done: str) -> None:
    predicting.forget_scores()
    answer = predicting.ask(url)
    run = answer.json()["run"]
    assert answer.headers["Location"] == f"/v1/runs/{run}" == answer.json()["links"]["self"]
    assert answer.json()["model"] == "job/1"
    seen: list[dict[str, Any]] = []
    with Client(predicting.url) as client:
        early = predicting.http.get(f"/v1/runs/{run}/scores")
        client.wait(run, lambda status: seen.append(dict(status.values)), MOST_S)
        status = client.status(run).values
        assert "predict" in "".join(client.log(run))
    assert early.status_code == 404
    assert {"pending", "unfinished"} >= {values["state"] for values in seen}
    progress = [values for values in seen if values.get("phase") == "predict"]
    assert progress[-1]["events_of_phase"] == EVENTS
    assert progress[-1]["files_of_phase"] == 1
    assert any("eta_s" in values for values in progress)
    assert (status["kind"], status["phase"]) == ("prediction", "finished")
    assert status["scores"] == {"events": EVENTS, "surplus_events": status["scores"]["surplus_events"]}
    for what in ("report", "model"):
        answer = predicting.http.get(f"/v1/runs/{run}/{what}")
        assert (answer.status_code, "it is a prediction" in answer.json()["error"]) == (404, True)
    refused = predicting.http.get(f"/v1/runs/{run}/scores", headers={"Accept": "application/x-root"})
    assert refused.status_code == 406
    assert "application/x-ndjson" in refused.json()["error"]
    assert predicting.http.get("/v1/runs/job-1/scores").status_code == 404


def test_who_reaches_predict_alone_follows_his_run_there(
    predicting: Predicting, url: str, done: str, at_once: str
) -> None:
    def followed(door: str) -> None:
        with Client(door) as client, httpx.Client(base_url=door, timeout=60) as http:
            answer = http.post(PREDICT, json={"files": [url]})
            assert answer.status_code == 202, answer.text
            run = answer.json()["run"]
            assert client.wait(run, timeout_s=MOST_S).values["scores"]["events"] == EVENTS
            for link in {*answer.json()["links"].values(), answer.headers["Location"]}:
                assert http.get(link).status_code == 200, link
            assert client.ledger(run)["holds"]
            assert http.get(f"/v1/runs/{run}/scores").text.splitlines()[:-1] == at_once.splitlines()
            columns = list(client.predict("job", [url], timeout_s=MOST_S))
            assert np.concatenate([part["entry"] for part in columns]).tolist() == list(range(EVENTS))
            assert http.get(f"/v1/runs/{run}/scores", headers={"Accept": "application/x-root"}).status_code == 406
            assert "GET /models lists them" in http.get("/v2/models/a b").json()["error"]
            assert http.get("/models").status_code == 200

    async def by_itself() -> None:
        async with predicting.up.replicas.lent("predict") as door:
            await asyncio.to_thread(followed, door)

    predicting.run(by_itself)


def test_the_command_writes_the_files_of_the_command_without_a_service(
    predicting: Predicting, url: str, done: str, tmp_path: Path
) -> None:
    short = tmp_path / "short.root"
    write_root(short, 6, 0.5, 300)
    with XRootD() as door:
        for source in (url, door.serve(short)):
            for ending in ("root", "parquet", "csv", "json"):
                mine, theirs = tmp_path / f"mine.{ending}", tmp_path / f"theirs.{ending}"
                words = ["predict", "job", source, "--out"]
                assert main([*words, str(mine), "--store", predicting.up.store.url]) == 0
                assert main([*words, str(theirs), "--url", predicting.url]) == 0
                if ending == "root":
                    with uproot.open(mine) as one, uproot.open(theirs) as other:
                        for name, values in one["scores"].arrays(library="np").items():
                            stored = other["scores"][name].array(library="np")
                            assert (stored.dtype, stored.tolist()) == (values.dtype, values.tolist())
                elif ending == "parquet":
                    assert pq.read_table(mine) == pq.read_table(theirs)
                else:
                    assert mine.read_bytes() == theirs.read_bytes()


def test_the_examples_of_the_document_do_what_they_say(
    predicting: Predicting, url: str, done: str, at_once: str, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "predict.md").read_text()
    section = text[text.index("### Many events") : text.index("## Open Inference Protocol")]
    commands = re.findall(r"^    ((?:curl|hepfaas) .*)$", section, re.M)
    assert len(commands) == 4
    names = {"job-scores-2718281828": done, "root://…": url, "hepfaas ": f"{sys.executable} -m hepfaas "}
    said = []
    for command in commands:
        for name, value in names.items():
            command = command.replace(name, value)
        shell = ["bash", "-euo", "pipefail", "-c", command]
        variables = {**os.environ, "URL": predicting.url}
        said.append(subprocess.run(shell, env=variables, cwd=tmp_path, capture_output=True, timeout=MOST_S, check=True))
    status, scores, ledger, _ = (one.stdout.decode() for one in said)
    assert json.loads(status)["state"] == "completed"
    assert scores.splitlines()[:-1] == at_once.splitlines()
    assert json.loads(ledger)["holds"]
    with uproot.open(tmp_path / "scores.root") as file:
        assert file["scores"].num_entries == EVENTS


def test_a_run_that_is_asked_for_twice_is_one(predicting: Predicting, url: str, done: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"Prefer": "respond-async", "Idempotency-Key": "mine", "traceparent": trace}
    predicting.http.put("/v1/models/job/aliases/production", json={"version": 1}).raise_for_status()
    body = {"files": [url], "entries": [0, 50]}
    path = "/v1/models/job/versions/production/predict"
    answers = [predicting.http.post(path, json=body, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert answers[0].headers["Preference-Applied"] == "respond-async"
    (run,) = {answer.json()["run"] for answer in answers}
    assert answers[0].json()["model"] == "job/1"
    with Client(predicting.url) as client:
        assert client.wait(run, timeout_s=MOST_S).values["scores"]["events"] == 50
        assert client.ledger(run)["events"] == 50
        assert records.request_of(predicting.store(), run).trace == trace
        client.delete(run)
        with pytest.raises(RequestError, match="there is no run"):
            client.status(run)
    other = predicting.ask(url, headers=headers, entries=[0, 60])
    assert (other.status_code, "'mine' was used" in other.json()["error"]) == (422, True)


@pytest.mark.slow
def test_events_that_are_lost_or_doubled_and_killed_functions_change_nothing(
    predicting: Predicting, url: str, done: str, at_once: str
) -> None:
    predicting.forget_scores()
    faults = (
        ("orchestration.requesting.Asking.ask:send", "doubled", 1),
        ("orchestration.submitting.Submitting._activate:create", "killed after", 1),
        ("orchestration.advancing.Advancing._send:send", "doubled", 2),
        ("steps.predict.perform:create", "killed after", 5),
        ("steps.predict.perform:create", "killed before", 15),
        ("steps.predict.perform:create", "answer lost", 20),
        ("steps.sum.perform:create", "killed before", 2),
        ("orchestration.stepping.Stepping._tell:send", "request lost", 3),
    )
    predicting.plan(*faults)
    run = predicting.begun(url)
    assert predicting.completed(run) == at_once
    assert predicting.happened() == len(faults)
    predicting.plan()


def test_a_wish_whose_event_never_went_out_is_begun_by_the_ping(predicting: Predicting, url: str, done: str) -> None:
    with Client(predicting.url) as client:
        before = next(client.runs())["run"]
    predicting.plan(("orchestration.requesting.Asking.ask:send", "killed before", 1))
    headers = {"Prefer": "respond-async", "Idempotency-Key": "killed"}
    assert predicting.ask(url, headers=headers, entries=[0, 70]).status_code == 503
    assert predicting.happened() == 1
    with Client(predicting.url) as client:
        wait_for(lambda: next(client.runs())["run"] != before, "run")
        run = next(client.runs())["run"]
        assert client.wait(run, timeout_s=MOST_S).values["scores"]["events"] == 70
    assert list(predicting.root.keys("asked/")) == []
    assert predicting.ask(url, headers=headers, entries=[0, 70]).json()["run"] == run


@pytest.mark.slow
def test_a_door_that_is_away_for_a_while_is_waited_for(
    predicting: Predicting, door: XRootD, url: str, done: str, at_once: str
) -> None:
    predicting.forget_scores()
    run = predicting.begun(url)
    wait_for(lambda: predicting.n_scored() >= 5, "part")
    door.kill()
    assert predicting.n_scored() < EVENTS / 100
    wait_for(lambda: overview.status(predicting.store(), run).retries is not None, "retry")
    door.start()
    assert predicting.completed(run) == at_once


@pytest.mark.slow
def test_a_door_that_stays_away_fails_the_run_with_its_name_and_a_retry_goes_on(
    predicting: Predicting, tmp_path: Path
) -> None:
    lost = tmp_path / "lost.root"
    write_root(lost, 7, 0.5, EVENTS)
    before = predicting.n_scored()
    with XRootD() as door, Client(predicting.url) as client:
        url = door.serve(lost)
        run = predicting.begun(url)
        wait_for(lambda: predicting.n_scored() >= before + 3, "part")
        door.kill()
        ended = client.wait(run, timeout_s=MOST_S)
        assert ended.state == "failed"
        assert url in ended.error, ended.error
        assert predicting.http.get(f"/v1/runs/{run}/scores").status_code == 404
        door.start()
        assert client.retry(run)["attempt"] == 2
        assert len(predicting.completed(run).splitlines()) == EVENTS
