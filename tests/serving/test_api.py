"""The /v1 calls of `predict`: scores of raw events, errors, aliases and deletion of versions."""

import time
from pathlib import Path
from typing import Any

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hepfaas.models import versions
from support import documents as examples
from support.servers import XRootD, wait_until
from support.serving import INFER, PREDICT, Served, same


def test_raw_events_as_json_get_the_scores_of_the_file_they_are_from(served: Served) -> None:
    columns = served.columns()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for events in (columns, rows):
        answer = served.http.post(PREDICT, json={"events": events})
        assert answer.status_code == 200, answer.text
        result = answer.json()
        assert result["model"] == "job/1"
        assert same(result["scores"]["score"], served.scores)
        assert result["scores"]["event"] == columns["event"]


@pytest.mark.parametrize(
    ("path", "body", "status", "finding"),
    [
        (PREDICT, {"events": {"met": [1.0]}}, 422, "no branch 'lep_pt'; it has: met"),
        (PREDICT, {"events": {"met": [1.0], "lep_pt": [["x"]]}}, 422, "branch 'lep_pt': value 0 of event 0 is \"x\""),
        (PREDICT, {"events": {"met": [1.0, 2.0], "lep_pt": [[1.0]]}}, 422, "'lep_pt' has 1 events and 'met' has 2"),
        (PREDICT, {"events": {"met": [1.0], "lep_pt": [1.0]}}, 422, "branch 'lep_pt' is jagged"),
        (PREDICT, {"events": {"met": [[1.0]], "lep_pt": [[1.0]]}}, 422, "branch 'met' is flat"),
        (PREDICT, {"events": [1]}, 422, "not an object from branch to value"),
        (PREDICT, {}, 422, "'events' is missing"),
        (PREDICT, {"files": ["/etc/passwd"]}, 422, "'passwd' is not an address"),
        (PREDICT, {"files": ["root://x//a.root"], "entries": [3, 1]}, 422, "[first, one after the last]"),
        (PREDICT, {"files": ["root://x//a.root"], "trees": "x"}, 422, "unknown key 'trees'"),
        ("/v1/models/nope/predict", {"events": {}}, 404, "no model 'nope'; it has: job/1"),
        ("/v1/models/job/versions/9/predict", {"events": {}}, 404, "no model 'job/9'"),
        ("/nothing", {}, 404, "docs/reference/predict.md"),
        ("/v2", {}, 405, "/v2 takes GET"),
    ],
)
def test_what_is_wrong_is_told_with_what_was_expected(
    served: Served, path: str, body: Any, status: int, finding: str
) -> None:
    answer = served.http.post(path, json=body)
    assert (answer.status_code, finding in answer.json()["error"]) == (status, True), answer.text


def test_what_is_not_there_is_told_by_the_name_that_was_asked_for(served: Served) -> None:
    http = served.http
    for path, finding in (
        ("/v2/models/job/versions/nothing", "has no model 'job/nothing'; it has: job/1"),
        ("/v2/models/job/versions/%C2%B2", "model 'job' has no version '²'; give its number or an alias"),
        ("/v1/models/nope/aliases", "has no model 'nope'; it has: job/1"),
    ):
        answer = http.get(path)
        assert (answer.status_code, finding in answer.json()["error"]) == (404, True), answer.text
    for length in ("9" * 5_000, "9" * 18):
        answer = http.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": length})
        assert (answer.status_code, "it is the length of the JSON" in answer.json()["error"]) == (400, True)


def test_an_alias_points_elsewhere_and_a_deleted_version_answers_no_longer_than_five_seconds(served: Served) -> None:
    http, first = served.http, versions.load(served.store, "job")
    for number in (2, 3):
        files = {versions.SPEC: served.store.get(f"models/job/1/{versions.SPEC}"), versions.GRAPH: first.graph}
        claimed = versions.claim(served.store, "job", f"claim {number}")
        assert claimed.number == number
        versions.publish(served.store, claimed, {**first.card, "version": number}, files)
    infer = {"inputs": [{"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [0.5, 0.5, 0.5]}]}

    def answering(name: str = "production") -> str:
        return str(http.post(f"/v2/models/job/versions/{name}/infer", json=infer).json().get("model_version"))

    for number in (2, 1):
        assert http.put("/v1/models/job/aliases/production", json={"version": number}).status_code == 200
        wait_until(lambda wanted=str(number): answering() == wanted, served.process, "the alias")
    assert http.get("/v1/models/job/aliases").json() == {"aliases": {"production": 1}}
    assert http.put("/v1/models/job/aliases/production", json={"version": 9}).status_code == 404
    assert http.put("/v1/models/job/aliases/7", json={"version": 1}).status_code == 422
    assert http.delete("/v1/models/job/aliases/production").status_code == 204
    assert http.delete("/v1/models/job/aliases/production").status_code == 404
    assert answering("3") == "3"
    assert http.delete("/v1/models/job/versions/3").status_code == 204
    began = time.monotonic()
    wait_until(lambda: answering("3") == "None", served.process, "the deletion")
    assert time.monotonic() - began < 5
    assert http.get("/v2/models/job").status_code == 200
    assert http.delete("/v1/models/job/versions/2").status_code == 204
    wait_until(lambda: http.get("/v2/models/job").json()["versions"] == ["1"], served.process, "the deletion")
    assert versions.claim(served.store, "job", "another").number == 4


def test_every_example_of_the_document_does_what_it_says(served: Served, xrootd: XRootD, tmp_path: Path) -> None:
    table = ak.to_arrow_table(served.events, extensionarray=False)
    pq.write_table(table, tmp_path / "events.parquet")
    with pa.OSFile(str(tmp_path / "events.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "signal.root").write_bytes(served.file.read_bytes())
    commands = examples.commands("reference/predict.md")
    assert len(commands) > 15
    examples.run(commands, tmp_path, URL=served.url, FILE=xrootd.serve(served.file))
