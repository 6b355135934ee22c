"""Predictions on files: `predict` streams the scores while it reads them."""

import io
import json
from dataclasses import replace
from pathlib import Path

import awkward as ak
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas.datasets.opened import opened
from hepfaas.errors import RequestError
from hepfaas.models import versions
from hepfaas.runs.steps import Predict
from hepfaas.steps.objects import open_scores
from hepfaas.steps.predict import hashes_of, perform
from support.jobs import write_root
from support.servers import XRootD, wait_until
from support.serving import ARROW, PARQUET, PREDICT, Served, same


def test_a_file_streams_back_line_by_line_and_says_that_it_was_all(served: Served, xrootd: XRootD) -> None:
    url = xrootd.serve(served.file)
    answer = served.http.post(PREDICT, json={"files": [url], "entries": [50, 250]})
    *lines, last = map(json.loads, answer.text.splitlines())
    assert last == {"model": "job/1", "files": 1, "events": 200}
    assert [line["entry"] for line in lines] == list(range(50, 250))
    assert same([line["score"] for line in lines], served.scores[50:250])
    request = {"files": [url, url], "entries": [50, 250]}
    answer = served.http.post(PREDICT, json=request, headers={"Accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    with pa.ipc.open_stream(answer.content) as stream:
        table = stream.read_all()
    assert table.schema.metadata == {b"model": b"job/1"}
    assert table["file"].to_pylist() == [0] * 200 + [1] * 200
    assert table["event"].to_pylist() == [*range(50, 250)] * 2
    assert same(table["score"].to_numpy()[200:], served.scores[50:250])
    missing = served.http.post(PREDICT, json={"files": [xrootd.url("nothing.root")]})
    assert missing.status_code == 422
    assert "nothing.root" in missing.json()["error"]
    *lines, last = map(
        json.loads, served.http.post(PREDICT, json={"files": [url, xrootd.url("nothing.root")]}).text.splitlines()
    )
    assert len(lines) == last["events"] == len(served.scores)
    assert "nothing.root" in last["error"]
    with pytest.raises(httpx.RemoteProtocolError):  # a reader of Arrow might not look for an error
        served.http.post(PREDICT, json={"files": [url, xrootd.url("nothing.root")]}, headers={"Accept": ARROW})
    for kind, read in ((ARROW, pa.ipc.open_stream), (PARQUET, lambda data: pq.ParquetFile(io.BytesIO(data)))):
        table = served.http.post(PREDICT, json={"files": [url]}, headers={"Accept": kind})
        assert table.headers["content-type"] == kind
        document = read(table.content)
        assert same((document.read_all() if kind == ARROW else document.read())["score"].to_numpy(), served.scores)


RECORDS = "def preprocessing(record): return {**record, 'met': record.pop('missing_et')}"


def test_files_of_other_formats_have_the_same_scores(served: Served, xrootd: XRootD, tmp_path: Path) -> None:
    """Also those of a model whose records the user's function changes: it is stored with the model."""
    events = served.events[["met", "lep_pt", "event"]][:50]
    pq.write_table(pa.table({name: ak.to_arrow(events[name]) for name in events.fields}), tmp_path / "x.parquet")
    lines = [json.dumps(event) for event in events.tolist()]
    (tmp_path / "x.jsonl").write_text("\n".join([*lines, ""]))
    (tmp_path / "x.txt").write_text("\n".join([*lines, ""]))
    (tmp_path / "old.json").write_text("\n".join(lines).replace('"met"', '"missing_et"') + "\n")
    first = versions.load(served.store, "job")
    spec = replace(served.spec, record_function=RECORDS)
    claimed = versions.claim(served.store, "records", "claim")
    files = {versions.SPEC: json.dumps(spec.to_json()).encode(), versions.GRAPH: first.graph}
    versions.publish(served.store, claimed, {**first.card, "name": "records"}, files)
    for model, name, more in (
        ("job", "x.parquet", {}),
        ("job", "x.jsonl", {}),
        ("job", "x.txt", {"dtype": "json"}),
        ("records", "old.json", {}),
    ):
        values = {"files": [xrootd.serve(tmp_path / name)], **more}
        *scores, last = map(json.loads, served.http.post(f"/v1/models/{model}/predict", json=values).text.splitlines())
        assert last.get("events") == 50, last
        assert same([line["score"] for line in scores], served.scores[:50]), name
    wrong = served.http.post(PREDICT, json={"files": [xrootd.url("x.txt")], "dtype": "xml"})
    assert "'dtype' is 'xml'; it takes root, parquet" in wrong.json()["error"]


def test_a_file_may_name_its_tree_or_have_only_one(served: Served, xrootd: XRootD, tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "only.root") as file:
        file["other"] = {name: served.events[name][:7] for name in ("met", "lep_pt", "event")}
    with uproot.recreate(tmp_path / "both.root") as file:
        file["dir/a"] = {name: served.events[name][:5] for name in ("met", "lep_pt", "event")}
        file["b"] = {name: served.events[name][5:9] for name in ("met", "lep_pt", "event")}
    only, both = (xrootd.serve(tmp_path / f"{name}.root") for name in ("only", "both"))

    def scores(*files: str, **more: str) -> list[float]:
        answer = served.http.post(PREDICT, json={"files": files, **more})
        *lines, last = map(json.loads, answer.text.splitlines())
        assert last["events"] == len(lines)
        return [line["score"] for line in lines]

    assert same(scores(only), served.scores[:7])
    assert same(scores(f"{both}:dir/a", f"{both}:b", only), [*served.scores[:9], *served.scores[:7]])
    assert same(scores(both, f"{both}:dir/a", tree="b"), [*served.scores[5:9], *served.scores[:5]])
    answer = served.http.post(PREDICT, json={"files": [both]})
    assert "has no TTree 'Events'; it has: dir/a, b" in answer.json()["error"]
    body = (tmp_path / "only.root").read_bytes()
    answer = served.http.post(PREDICT, content=body, headers={"Content-Type": "application/x-root"})
    assert same(answer.json()["scores"]["score"], served.scores[:7])


def test_an_instance_without_a_broker_says_that_it_cannot_begin_runs(served: Served, xrootd: XRootD) -> None:
    url = xrootd.serve(served.file)
    answer = served.http.post(PREDICT, json={"files": [url]}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 422
    assert "no broker (K_SINK); ask for fewer events at a time with 'entries'" in answer.json()["error"]


def test_a_predict_step_refuses_a_version_that_is_gone_or_another(served: Served, tmp_path: Path) -> None:
    graph, spec = hashes_of(versions.load(served.store, "job"))
    header = opened(str(served.file), "Events")
    step = Predict(
        file=header.identity,
        tree="Events",
        entries=(0, 50),
        branches=("met", "lep_pt"),
        identifiers=("event",),
        spec=spec,
        graph=graph,
        model="job/1",
        url=str(served.file),
    )
    perform(step, served.store)
    part = open_scores(step.key, served.store)
    assert (part.facts.file, part.facts.entries, part.facts.rows) == (header.identity, (0, 50), 50)
    assert same(pa.Table.from_batches(part.batches())["score"].to_numpy(), served.scores[:50])
    with pytest.raises(RequestError, match="model 'job/1' has changed since the run was requested"):
        perform(replace(step, graph="another"), served.store)
    with pytest.raises(RequestError, match="has no model 'job/9'; it has: job/1"):
        perform(replace(step, model="job/9"), served.store)
    with pytest.raises(RequestError, match="has changed since the run opened it"):
        perform(replace(step, file="another"), served.store)


def test_a_server_that_is_killed_in_the_middle_is_an_error_and_no_row_is_missing(
    served: Served, tmp_path: Path
) -> None:
    write_root(tmp_path / "long.root", 5, 1.0, events=120_000)
    with XRootD() as server:
        body = {"files": [server.serve(tmp_path / "long.root")]}
        with served.http.stream("POST", PREDICT, json=body, timeout=120) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            rows = [json.loads(next(lines))]
            server.kill()
            rows += map(json.loads, lines)
    last = rows.pop()
    assert [row["entry"] for row in rows] == list(range(len(rows)))
    assert last["events"] == len(rows)
    assert "error" in last if len(rows) < 120_000 else "model" in last


def test_who_goes_in_the_middle_of_a_file_leaves_nothing_running(
    served: Served, xrootd: XRootD, tmp_path: Path
) -> None:
    write_root(tmp_path / "left.root", 5, 1.0, events=20_000)
    body = {"files": [xrootd.serve(tmp_path / "left.root")]}

    def left(times: int) -> None:
        for _ in range(times):
            with served.http.stream("POST", PREDICT, json=body) as answer:
                next(answer.iter_lines())

    def threads() -> int:
        child = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()[0]
        return len(list(Path(f"/proc/{child}/task").iterdir()))

    left(5)
    before, pool_threads = threads(), 20  # threads of pools, which come once and stay
    left(40)
    wait_until(lambda: threads() < before + pool_threads, served.process, "the end of what nobody reads")
    assert served.http.post(PREDICT, json=body).text.count("\n") == 20_001
