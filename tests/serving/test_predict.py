"""The function `predict` in a process of its own: every call, what it refuses, and that scores are right."""

import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import grpc
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas.datasets.root import opened
from hepfaas.errors import RequestError
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import Spec
from hepfaas.inputs import raw_events
from hepfaas.models import versions
from hepfaas.models.served import served_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.steps import Predict
from hepfaas.serving.app import MOST_PATH
from hepfaas.serving.open_inference_grpc import health, inference
from hepfaas.serving.tfaas_proto import message
from hepfaas.steps.objects import open_scores
from hepfaas.steps.predict import hashes_of, perform
from hepfaas.training.prepared import Part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support import documents as examples
from support.bodies import Body, changed
from support.jobs import small_job, write_root
from support.servers import LIMIT_S, XRootD, free_port, is_open, server_binary, wait_until

TOP = Path(__file__).parents[2]
ALL = os.environ.get("HEPFAAS_CHAOS") == "all"
BODIES, DAMAGED = (20_000, 100_000) if ALL else (300, 600)
HOLD = [].append
PREDICT, INFER = "/v1/models/job/predict", "/v2/models/job/infer"
ARROW, PARQUET, ROOT = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet", "application/x-root"


class Served:
    """A trained model, what it says of its own file by `hepfaas predict`, and the function that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = small_job(folder / "job", selected_branches=["met", "lep_pt"]) / "signal.root"
        self._hepfaas("train", str(folder / "job"))
        self._hepfaas("predict", "job", str(self.file), "--out", str(folder / "reference.root"))
        with uproot.open(folder / "reference.root") as file:
            self.scores: NDArray[np.float32] = file["scores"]["score"].array(library="np")
        with uproot.open(self.file) as file:
            self.events = file["Events"].arrays()
        self.store: Store = open_store(f"{folder}/store/local")
        published = versions.load(self.store, "job")
        self.spec: Spec = published.spec
        self.features = matrix({branch.name: self.events[branch.name] for branch in self.spec.branches}, self.spec)

    def _hepfaas(self, *words: str) -> None:
        command = [sys.executable, "-m", "hepfaas", *words, "--store", f"{self.folder}/store"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    @contextmanager
    def started(self, name: str = "predict", **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """The function in a process of its own, and its port."""
        port, main = free_port(), str(TOP / "functions" / name / "main.py")
        variables = {
            "HEPFAAS_STORE": f"{self.folder}/store",
            "HEPFAAS_ALLOW_PRIVATE": "1",
            "HEPFAAS_PREDICT_BODY_BYTES": "3000000",
            "XRD_CONNECTIONRETRY": "1",
            "XRD_CONNECTIONWINDOW": "2",
            "XRD_STREAMERRORWINDOW": "0",
            "XRD_REQUESTTIMEOUT": "5",
            "FUNCTION_TARGET": "predict",
            "FUNCTION_SOURCE": main,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKERS": "1",
            **settings,
        }
        command = [sys.executable, *(("-m", "functions_framework") if name == "predict" else (main,))]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log)
        try:
            wait_until(lambda: is_open(port), process, name)
            yield process, port
        finally:
            process.terminate()
            process.wait(timeout=LIMIT_S)
        assert process.returncode == 0

    def __enter__(self) -> "Served":
        with ExitStack() as stack:
            self.process, port = stack.enter_context(self.started())
            other = stack.enter_context(self.started("predict-grpc"))[1]
            self.url, self.grpc = f"http://127.0.0.1:{port}", f"127.0.0.1:{other}"
            self.http = stack.enter_context(httpx.Client(base_url=self.url, timeout=60))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def columns(self, *, of: int | None = None) -> dict[str, Any]:
        """The file's events as JSON values, by branch."""
        return {name: ak.to_list(self.events[name][:of]) for name in self.events.fields}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("predict")) as started:
        yield started


def same(found: Any, scores: NDArray[np.float32]) -> bool:
    return np.array_equal(np.asarray(found, dtype=np.float32), scores)


def test_raw_events_as_json_get_the_scores_of_the_file_they_are_from(served: Served) -> None:
    columns = served.columns()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for events in (columns, rows):
        answer = served.http.post(PREDICT, json={"events": events})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["model"] == "job/1"
        assert same(found["scores"]["score"], served.scores)
        assert found["scores"]["event"] == columns["event"]


def test_documents_of_events_get_documents_of_scores(served: Served) -> None:
    sent = documents(served.events, served.file)
    del sent["application/json"]
    read = {
        ARROW: lambda data: pa.ipc.open_stream(data).read_all()["score"].to_numpy(),
        PARQUET: lambda data: pq.read_table(io.BytesIO(data))["score"].to_numpy(),
        ROOT: lambda data: uproot.open(io.BytesIO(data))["scores"]["score"].array(library="np"),
    }
    for kind, body in sent.items():
        for wanted in sent:
            answer = served.http.post(PREDICT, content=body, headers={"Content-Type": kind, "Accept": wanted})
            assert (answer.status_code, answer.headers["content-type"]) == (200, wanted)
            assert same(read[wanted](answer.content), served.scores)


def test_the_open_inference_protocol_takes_vectors_and_raw_values_in_json_and_binary(served: Served) -> None:
    count = len(served.scores)
    features = {"name": "features", "shape": list(served.features.shape), "datatype": "FP32"}
    answer = served.http.post(INFER, json={"id": "7", "inputs": [{**features, "data": served.features.tolist()}]})
    output = answer.json()["outputs"][0]
    assert (answer.json()["id"], answer.json()["model_version"], output["shape"]) == ("7", "1", [count, 1])
    assert same(output["data"], served.scores)
    padded = ak.to_numpy(ak.fill_none(ak.pad_none(served.events["lep_pt"], 3), np.nan)).astype("<f4")
    tensors = {"met": ak.to_numpy(served.events["met"]).astype("<f4"), "lep_pt": padded, "features": served.features}
    for names in (("features",), ("met", "lep_pt")):
        blobs = {name: tensors[name].tobytes() for name in names}
        inputs = [
            {
                "name": name,
                "shape": tensors[name].shape,
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(blob)},
            }
            for name, blob in blobs.items()
        ]
        wanted = {"outputs": [{"name": "scores", "parameters": {"binary_data": True}}]}
        head = json.dumps({"inputs": inputs, **wanted}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        answer = served.http.post(INFER, content=head + b"".join(blobs.values()), headers=length)
        at = int(answer.headers["inference-header-content-length"])
        assert same(np.frombuffer(answer.content[at:], "<f4"), served.scores)
    assert [one["name"] for one in served.http.get("/v2/models/job").json()["inputs"]] == ["features", "met", "lep_pt"]


def test_clients_of_tfaas_are_answered_as_they_were(served: Served) -> None:
    http, row, columns = served.http, served.features[0].tolist(), served.spec.columns
    expected = served.scores[:1]
    sent = {"keys": ["x", "y", "z"], "values": row, "model": "job"}
    assert same(http.post("/json", json=sent).json(), expected)
    turned = {"keys": columns[::-1], "values": row[::-1], "model": "job"}
    assert same(http.post("/predict/json", json=turned).json(), expected)
    partly = http.post("/json", json={**turned, "keys": [*columns[:2], "other"]})
    assert partly.status_code == 422
    assert "give all 3 or none" in partly.json()["error"]
    assert http.post("/json", json={"values": row}).status_code == 422
    assert http.post("/params", json={"name": "job"}).content == b""
    assert same(http.post("/json", json={"values": row}).json(), expected)
    proto = message("Row")(key=columns, value=row, model="job")
    answer = message("Predictions").FromString(http.post("/proto", content=proto.SerializeToString()).content)
    assert [(one.label, np.float32(one.probability)) for one in answer.prediction] == [("1", served.scores[0])]
    frame = message("DataFrame")(row=[message("Row")(value=some.tolist()) for some in served.features[:3]])
    answer = http.post("/predict/proto?message=DataFrame", content=frame.SerializeToString())
    found = message("Predictions").FromString(answer.content)
    assert same([one.probability for one in found.prediction], served.scores[:3])
    assert http.get("/status").json()["postRequests"] > 4
    listed = http.get("/models").json()
    assert [one["name"] for one in listed] == ["job"]
    assert http.get("/params/job").json()["inputNode"] == listed[0]["input_node"]


def test_a_file_streams_back_line_by_line_and_says_that_it_was_all(served: Served, xrootd: XRootD) -> None:
    url = xrootd.serve(served.file)
    answer = served.http.post(PREDICT, json={"files": [url], "entries": [50, 250]})
    *lines, last = map(json.loads, answer.text.splitlines())
    assert last == {"model": "job/1", "files": 1, "events": 200}
    assert [line["entry"] for line in lines] == list(range(50, 250))
    assert same([line["score"] for line in lines], served.scores[50:250])
    asked = {"files": [url, url], "entries": [50, 250]}
    answer = served.http.post(PREDICT, json=asked, headers={"Accept": ARROW})
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
        found = read(table.content)
        assert same((found.read_all() if kind == ARROW else found.read())["score"].to_numpy(), served.scores)


def test_an_instance_without_a_broker_says_that_it_cannot_begin_runs(served: Served, xrootd: XRootD) -> None:
    url = xrootd.serve(served.file)
    answer = served.http.post(PREDICT, json={"files": [url]}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 422
    assert "no broker (K_SINK); ask for fewer events at a time with 'entries'" in answer.json()["error"]


def test_a_predict_step_refuses_a_version_that_is_gone_or_another(served: Served, tmp_path: Path) -> None:
    graph, spec = hashes_of(versions.load(served.store, "job"))
    found = opened(str(served.file), "Events")
    step = Predict(
        found.identity, "Events", (0, 50), ("met", "lep_pt"), ("event",), spec, graph, "job/1", str(served.file)
    )
    perform(step, served.store)
    part = open_scores(step.key, served.store)
    assert (part.facts.file, part.facts.entries, part.facts.rows) == (found.identity, (0, 50), 50)
    assert same(pa.Table.from_batches(part.batches())["score"].to_numpy(), served.scores[:50])
    with pytest.raises(RequestError, match="model 'job/1' is not what it was"):
        perform(replace(step, graph="another"), served.store)
    with pytest.raises(RequestError, match="has no model 'job/9'; it has: job/1"):
        perform(replace(step, model="job/9"), served.store)
    with pytest.raises(RequestError, match="has changed since the run opened it"):
        perform(replace(step, file="another"), served.store)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (PREDICT, {"events": {"met": [1.0]}}, 422, "no branch 'lep_pt'; it has: met"),
        (PREDICT, {"events": {"met": [1.0], "lep_pt": [["x"]]}}, 422, "branch 'lep_pt': value 0 of event 0 is \"x\""),
        (PREDICT, {"events": {"met": [1.0, 2.0], "lep_pt": [[1.0]]}}, 422, "'lep_pt' has 1 events and 'met' has 2"),
        (PREDICT, {"events": {"met": [1.0], "lep_pt": [1.0]}}, 422, "branch 'lep_pt' is jagged"),
        (PREDICT, {"events": {"met": [[1.0]], "lep_pt": [[1.0]]}}, 422, "branch 'met' is flat"),
        (PREDICT, {"events": [1]}, 422, "no object from branch to value"),
        (PREDICT, {}, 422, "'events' is missing"),
        (PREDICT, {"files": ["/etc/passwd"]}, 422, "'passwd' is no address"),
        (PREDICT, {"files": ["root://x//a.root"], "entries": [3, 1]}, 422, "[first, one behind the last]"),
        (PREDICT, {"files": ["root://x//a.root"], "trees": "x"}, 422, "unknown key 'trees'"),
        ("/v1/models/nope/predict", {"events": {}}, 404, "no model 'nope'; it has: job/1"),
        ("/v1/models/job/versions/9/predict", {"events": {}}, 404, "no model 'job/9'"),
        (INFER, {"inputs": []}, 400, "'inputs' is missing"),
        (INFER, {"inputs": [{"name": "feature", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}, 400, "closest"),
        (INFER, {"inputs": [{"name": "met", "shape": [1], "datatype": "FP32", "data": [1]}]}, 400, "misses input"),
        (INFER, {"inputs": [{"name": "features", "shape": [1], "datatype": "FP32", "data": [1]}]}, 400, "shape [1]"),
        (INFER, {"inputs": [{"name": "features", "shape": [3], "datatype": "FP32", "data": [1]}]}, 400, "1 values"),
        (
            INFER,
            {"inputs": [{"name": "features", "shape": [1], "datatype": "STRING", "data": [1]}]},
            400,
            "it takes BOOL",
        ),
        (INFER, {"inputs": [{"name": "x", "shape": [1], "datatype": ["FP32"], "data": [1]}]}, 400, "it takes BOOL"),
        *(
            (
                INFER,
                {"inputs": [{"name": "features", "shape": shape, "datatype": "FP32", "data": [1, 2, 3]}]},
                400,
                "list of sizes",
            )
            for shape in ([-1], [-5, 3], [-1, 3], [1.0, 3], ["1", 3], [None, 3], [[1], 3], [2**70, 3], "3", None)
        ),
        ("/json", {"values": [1, 2], "model": "job"}, 422, "shape [events, 3]; what was sent has shape [1, 2]"),
        ("/json", {"keys": True, "values": [1, 2, 3], "model": "job"}, 422, "it takes a list of names"),
        ("/json", {"values": ["a", 1, 2], "model": "job"}, 422, "'values': value 0 is \"a\""),
        ("/json", {"values": [1, 2], "model": "../job"}, 404, "there is no model '../job'"),
        ("/json", [], 422, "the body is no JSON object"),
        ("/nothing", {}, 404, "docs/reference/predict.md"),
        ("/v2", {}, 405, "/v2 takes GET"),
    ],
)
def test_what_is_wrong_is_told_with_what_was_expected(
    served: Served, path: str, body: Any, status: int, said: str
) -> None:
    answer = served.http.post(path, json=body)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


def typed(served: Served, met: str, lep_pt: str) -> str:
    """The same model, trained on branches of other types as it were: its name."""
    name = f"job-{met}-{lep_pt}"
    if not versions.newest(served.store, name):
        types, first = {"met": met, "lep_pt": lep_pt}, versions.load(served.store, "job")
        branches = (
            replace(branch, type=types[branch.name], low=0.0, high=100.0, width=branch.width)
            for branch in served.spec.branches
        )
        spec = json.dumps(replace(served.spec, branches=tuple(branches)).to_json()).encode()
        claimed = versions.claim(served.store, name, "claim")
        files = {versions.SPEC: spec, versions.GRAPH: first.graph}
        versions.publish(served.store, claimed, {**first.card, "name": name}, files)
    return name


def chunked(values: list[Any], type_: pa.DataType) -> pa.ChunkedArray:
    """In chunks, one without events and one that was cut out of a longer one."""
    parts = [pa.array(values[:1], type_), pa.array([], type_), pa.array([*values, *values], type_)[1 : len(values)]]
    return pa.chunked_array(parts, type_)


def dictionaries(values: list[Any], type_: pa.DataType) -> pa.ChunkedArray:
    """Lists of numbers that are numbers of a dictionary."""
    lists = pa.array(values, pa.list_(type_))
    return pa.chunked_array([pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())])


FLAT = [
    *((type_, [3, 0, 70, 5]) for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64())),
    *((type_, [1.5, 41.1, 0, -3]) for type_ in (pa.float16(), pa.float32(), pa.float64())),
    (pa.dictionary(pa.int32(), pa.float64()), [1.5, 41.1, 0, 1.5]),
]
LISTS = [
    *((kind(type_), [[3, 1], [], [70], [5, 2]]) for kind in (pa.list_, pa.large_list) for type_, _ in FLAT[:9]),
    *((pa.list_(type_, 2), [[3, 1], [4, 0], [70, 7], [5, 2]]) for type_ in (pa.float32(), pa.int64())),
    (pa.list_(pa.field("item", pa.float32(), nullable=False)), [[3.5, 1], [], [70.25], [5, 2]]),
]


def events_of(table: pa.Table) -> dict[str, Any]:
    """As JSON: halves as floats of Python's own."""
    return {name: json.loads(json.dumps(table[name].to_pylist(), default=float)) for name in table.column_names}


def in_documents(table: pa.Table) -> dict[str, bytes]:
    """A table in each form."""
    table = table.unify_dictionaries()  # a file has one of a column
    arrow, file, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    return {ARROW: arrow.getvalue(), "application/vnd.apache.arrow.file": file.getvalue(), PARQUET: parquet.getvalue()}


def scored(served: Served, name: str, body: bytes, kind: str) -> dict[str, Any]:
    answer = served.http.post(f"/v1/models/{name}/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    scores: dict[str, Any] = answer.json()["scores"]
    return scores


def check_is_as_json(served: Served, name: str, table: pa.Table) -> None:
    expected = scored(served, name, json.dumps({"events": events_of(table)}).encode(), "application/json")
    assert len(expected["score"]) == table.num_rows
    for kind, body in in_documents(table).items():
        assert scored(served, name, body, kind) == expected, (kind, table.schema)


@pytest.mark.parametrize("types", [("float32", "float32"), ("float64", "float16"), ("int32", "int32")])
def test_whatever_pyarrow_writes_gets_the_scores_of_its_events_as_json(served: Served, types: tuple[str, str]) -> None:
    name, count = typed(served, *types), 4
    is_whole = types[0].startswith("int")
    flat = [one for one in FLAT if not is_whole or pa.types.is_integer(one[0])]
    lists = [one for one in LISTS if not is_whole or pa.types.is_integer(one[0].value_type)]
    numbers = chunked([7, 1, 2, 3], pa.uint32())
    for number in range(max(len(flat), len(lists))):
        (met, values), (lep_pt, some) = flat[number % len(flat)], lists[number % len(lists)]
        columns = {"met": chunked(values, met), "lep_pt": chunked(some, lep_pt), "event": numbers}
        assert len(columns["met"]) == len(columns["lep_pt"]) == count
        check_is_as_json(served, name, pa.table(columns))
    extended = {"met": [1.0, 2.0, 3.0, 4.0], "lep_pt": [[3, 1], [], [70], [5, 2]]}
    check_is_as_json(served, name, ak.to_arrow_table(ak.Array(extended), extensionarray=True))
    check_is_as_json(
        served,
        name,
        pa.table({"met": [1, 2, 3, 4], "lep_pt": dictionaries([[3, 1], [], [70], [5, 2]], pa.int64())}),
    )


def test_null_is_nan_among_floats_and_an_empty_list_stays_one(served: Served) -> None:
    for met in (pa.float16(), pa.float32(), pa.float64(), pa.int64()):
        for lep_pt in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int16())):
            columns = {"met": pa.array([1, None, 3], met), "lep_pt": pa.array([[], [None, 4], [7]], lep_pt)}
            check_is_as_json(served, "job", pa.table(columns))
    check_is_as_json(served, "job", pa.table({"met": [1.0, 2.0], "lep_pt": [[], []]}))  # a list of no type


def test_a_table_without_events_gets_no_scores(served: Served) -> None:
    typeless = {"met": [], "lep_pt": [], "event": []}
    fields = {"met": pa.float32(), "lep_pt": pa.list_(pa.float32()), "event": pa.int64()}
    for table in (pa.table(typeless), pa.table(typeless, pa.schema(fields)), pa.schema(fields).empty_table()):
        for kind, body in in_documents(table).items():
            assert scored(served, "job", body, kind)["score"] == []
            for accept in (ARROW, PARQUET, ROOT):
                headers = {"Content-Type": kind, "Accept": accept}
                assert served.http.post(PREDICT, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("met", "lep_pt", "event", "said"),
    [
        (
            None,
            pa.array([None, [50.0, 60.0], [70.0]]),
            None,
            "column 'lep_pt': event 0 is null; it takes a list for each event",
        ),
        (None, pa.nulls(3), None, "column 'lep_pt': event 0 is null"),
        (pa.nulls(3), None, None, "column 'met' has type null; it takes a number for each event, of numbers"),
        (pa.array(["1", "2", "3"]), None, None, "column 'met' has type string; it takes a number"),
        (pa.array([[1], [2], [3]]), None, None, "column 'met' has type list<item: int64>; it takes a number"),
        (pa.array([True, None, False]), None, None, "column 'met' has type bool; it takes a number"),
        (pa.array([1, 2, 3], pa.timestamp("s")), None, None, "column 'met' has type timestamp[s]; it takes a number"),
        (pa.array([1, 2, 3], pa.decimal128(9)), None, None, "column 'met' has type decimal128(9, 0); it takes"),
        (pa.array([1, 1e300, 3]), None, None, "column 'met': event 1 is 1e+300; it takes numbers up to 3.4e+38"),
        (pa.array([{"x": 1}] * 3), None, None, "column 'met' has type struct<x: int64>; it takes a number"),
        (None, pa.array([1.0, 2.0, 3.0]), None, "column 'lep_pt' has type double; it takes a list for each event"),
        (None, pa.array([[["1"]]] * 3), None, "column 'lep_pt' has type list<item: list<item: string>>; it takes a"),
        (None, pa.array([[None]] * 3), None, "column 'lep_pt' has type list<item: null>; it takes a list"),
        (None, pa.array([[1]] * 3, pa.list_view(pa.int8())), None, "column 'lep_pt' has type list_view<item: int8>;"),
        (None, pa.array([[], [1, 1e300], []]), None, "column 'lep_pt': value 1 of event 1 is 1e+300"),
        (None, None, pa.array(["a", "b", "c"]), "column 'event' has type string; it takes a whole number for each"),
        (None, None, pa.array([[1], [2], [3]]), "column 'event' has type list<item: int64>; it takes a whole number"),
        (None, None, pa.array([1, 2, 3], pa.timestamp("us")), "column 'event' has type timestamp[us]; it takes a"),
        (
            None,
            None,
            pa.array([1, None, 3]),
            "column 'event': event 1 is missing (null or NaN); it takes whole numbers",
        ),
        (None, None, pa.array([1, 1.5, 3]), "column 'event': event 1 is 1.5; it takes whole numbers"),
    ],
)
def test_columns_of_other_types_are_refused_by_name(
    served: Served, met: Any, lep_pt: Any, event: Any, said: str
) -> None:
    columns = {
        "met": pa.array([1.0, 2.0, 3.0]),
        "lep_pt": pa.array([[1.0], [2.0], [3.0]]),
        "event": pa.array([1, 2, 3]),
    }
    given = {"met": met, "lep_pt": lep_pt, "event": event}
    table = pa.table({name: values if given[name] is None else given[name] for name, values in columns.items()})
    body = in_arrow(table)
    for accept in ("application/json", ROOT):
        headers = {"Content-Type": ARROW, "Accept": accept}
        answer = served.http.post(PREDICT, content=body, headers=headers)
        assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text


def in_arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def test_two_columns_of_one_name_are_refused(served: Served) -> None:
    twice = pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([[1.0]])], names=["met", "met", "lep_pt"])
    answer = served.http.post(PREDICT, content=in_arrow(twice), headers={"Content-Type": ARROW})
    assert (answer.status_code, answer.json()["error"].partition(";")[0]) == (422, "the table has 2 columns 'met'")


def test_the_number_of_an_event_in_a_table_is_given_back_in_its_type(served: Served) -> None:
    for event, expected in ((pa.array([2**63, 1], pa.uint64()), pa.uint64()), (pa.array([5.0, 1.0]), pa.int64())):
        table = pa.table({"met": [1.0, 2.0], "lep_pt": [[], [1.0]], "event": event})
        headers = {"Content-Type": ARROW, "Accept": ARROW}
        answer = served.http.post(PREDICT, content=in_arrow(table), headers=headers)
        found = pa.ipc.open_stream(answer.content).read_all()["event"]
        assert (found.type, found.to_pylist()) == (expected, [int(one) for one in event.to_pylist()])


@pytest.mark.parametrize(
    ("met", "lep_pt", "event", "said"),
    [
        ([1.7], [[]], [1], "branch 'met': event 0 is 1.7; it takes whole numbers from -2147483648 to 2147483647"),
        (["1"], [[]], [1], "branch 'met': event 0 is \"1\"; it takes whole numbers"),
        ([True], [[]], [1], "branch 'met': event 0 is true; it takes whole numbers"),
        ([None], [[]], [1], "branch 'met': event 0 is null; it takes whole numbers"),
        ([2**31], [[]], [1], "branch 'met': event 0 is 2147483648; it takes whole numbers"),
        ([1, 2], [[7], [1, 300]], [1, 2], "branch 'lep_pt': value 1 of event 1 is 300; it takes whole numbers from 0"),
        ([1, 2], [[7], None], [1, 2], "branch 'lep_pt' is jagged: each event has a list of values"),
        ([1], [[[1]]], [1], "branch 'lep_pt': an event has one list of values"),
        ([1], [[[1, "x"]]], [1], "branch 'lep_pt': value 1 is \"x\""),
        ([1], [[]], [1.5], "branch 'event': event 0 is 1.5; it takes whole numbers"),
    ],
)
def test_raw_events_of_another_type_are_refused_by_their_place(
    served: Served, met: Any, lep_pt: Any, event: Any, said: str
) -> None:
    name = typed(served, "int32", "uint8")
    answer = served.http.post(
        f"/v1/models/{name}/predict", json={"events": {"met": met, "lep_pt": lep_pt, "event": event}}
    )
    assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text


def tensor(name: str, datatype: str, shape: Any, data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_whole_numbers_of_jagged_branches_come_as_floats_with_nan_behind(served: Served) -> None:
    for type_, expected in (
        ("uint8", "FP32"),
        ("bool", "FP32"),
        ("int16", "FP32"),
        ("int32", "FP64"),
        ("int64", "FP64"),
    ):
        name = typed(served, "int32", type_)
        events = {"met": [3, 4], "lep_pt": [[True], [False, True]] if type_ == "bool" else [[1], [0, 1]]}
        scores = served.http.post(f"/v1/models/{name}/predict", json={"events": events}).json()["scores"]["score"]
        told = {one["name"]: one["datatype"] for one in served.http.get(f"/v2/models/{name}").json()["inputs"]}
        assert (told["met"], told["lep_pt"]) == ("INT32", expected)
        met, padded = tensor("met", "INT32", [2], [3, 4.0]), [1, None, 0, 1]
        infer = f"/v2/models/{name}/infer"
        answer = served.http.post(infer, json={"inputs": [met, tensor("lep_pt", expected, [2, 2], padded)]})
        assert answer.json()["outputs"][0]["data"] == scores
        for datatype, data in (("UINT8", [1, 0, 0, 1]), ("INT32", [1, 0, 0, 1]), ("BOOL", [True] * 4)):
            answer = served.http.post(infer, json={"inputs": [met, tensor("lep_pt", datatype, [2, 2], data)]})
            assert answer.status_code == 400
            assert "has no NaN for a slot without a value; send FP32 or FP64" in answer.json()["error"]
        for data, said in (
            ([1, None, 0.5, 1], "value 0 of event 1 is 0.5"),
            ([None, 1, 1, 1], "value 0 of event 0 is m"),
        ):
            answer = served.http.post(infer, json={"inputs": [met, tensor("lep_pt", expected, [2, 2], data)]})
            assert (answer.status_code, f"input 'lep_pt': {said}" in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("FP32", ["0.5", 1, 1], "the data of input 'features': value 0 is \"0.5\"; it takes numbers"),
        ("FP32", [1, None, 1], "the data of input 'features': value 1 is null; it takes numbers"),
        ("FP32", [1, 1, True], "the data of input 'features': value 2 is true; it takes numbers"),
        ("FP32", [1, 1, 1e39], "the data of input 'features': value 2 is 1e+39; it takes numbers"),
        ("FP16", [1, 1, 70000], "the data of input 'features': value 2 is 70000; it takes numbers up to 6.55e+04"),
        ("INT32", [1, 1.7, 1], "the data of input 'features': value 1 is 1.7; it takes whole numbers"),
        ("INT8", [1, 1, 200], "the data of input 'features': value 2 is 200; it takes whole numbers from -128 to 127"),
        ("FP64", [1, 1, 1e300], "input 'features': value 2 is 1e+300; it takes numbers up to 3.4e+38 (float32)"),
    ],
)
def test_vectors_of_another_type_are_refused_by_their_place(
    served: Served, datatype: str, data: list[Any], said: str
) -> None:
    answer = served.http.post(INFER, json={"inputs": [tensor("features", datatype, [1, 3], data)]})
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text
    if datatype == "FP32":
        answer = served.http.post("/json", json={"values": data, "model": "job"})
        assert (answer.status_code, "'values': value " in answer.json()["error"]) == (422, True), answer.text


def test_a_shape_without_values_takes_no_memory(served: Served) -> None:
    wide = [[0, 60_000_000], [0, 10**13], [10**13, 0], [60_000_000, 0]]
    before = memory_mb(served.process, "VmHWM")
    with grpc.insecure_channel(served.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for shape in wide:
            inputs = [
                tensor("met", "FP32", shape[:1] if shape[0] == 0 else [0], []),
                tensor("lep_pt", "FP32", shape, []),
            ]
            answer = served.http.post(INFER, json={"inputs": inputs})
            assert answer.status_code == (200 if shape[0] == 0 else 400), answer.text
            tensors = [inference("Tensor")(name=one["name"], datatype="FP32", shape=one["shape"]) for one in inputs]
            asked = inference("ModelInferRequest")(model_name="job", inputs=tensors).SerializeToString()
            if shape[0] == 0:
                infer(asked, timeout=30)
            else:
                with pytest.raises(grpc.RpcError) as told:
                    infer(asked, timeout=30)
                assert told.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert memory_mb(served.process, "VmHWM") < before + 30
    one = [tensor("met", "FP32", [1], [1.0]), tensor("lep_pt", "FP32", [1, 0], [])]
    answer = served.http.post(INFER, json={"inputs": one})
    events = {"met": [1.0], "lep_pt": [[]]}
    expected = served.http.post(PREDICT, json={"events": events}).json()["scores"]["score"]
    assert answer.json()["outputs"][0]["data"] == expected


def test_events_that_take_no_bytes_are_refused_by_a_model_of_jagged_branches_alone(served: Served) -> None:
    model = served_of(served.store, versions.find(served.store, "job"))
    jagged = tuple(branch for branch in served.spec.branches if branch.jagged)
    model.published = replace(model.published, layout=replace(served.spec, branches=jagged))
    with pytest.raises(RequestError, match="the inputs have events and no value at all; give a slot, NaN where"):
        raw_events.features_of_tensors(model, {"lep_pt": np.zeros((10**13, 0), np.float32)})


def test_a_small_whole_number_of_grpc_that_is_none_is_refused(served: Served) -> None:
    contents = inference("Contents")(int_contents=[1, 300, 1])
    wrong = inference("Tensor")(name="features", datatype="INT8", shape=[1, 3], contents=contents)
    with grpc.insecure_channel(served.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as told:
            infer(inference("ModelInferRequest")(model_name="job", inputs=[wrong]).SerializeToString(), timeout=30)
    assert told.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the contents of input 'features': value 1 is 300; it takes whole numbers" in told.value.details()


def test_what_is_not_there_is_told_by_the_name_that_was_asked_for(served: Served) -> None:
    http = served.http
    for path, said in (
        ("/v2/models/job/versions/nothing", "has no model 'job/nothing'; it has: job/1"),
        ("/v2/models/job/versions/%C2%B2", "model 'job' has no version '²'; give its number or an alias"),
        ("/v1/models/nope/aliases", "has no model 'nope'; it has: job/1"),
    ):
        answer = http.get(path)
        assert (answer.status_code, said in answer.json()["error"]) == (404, True), answer.text
    for length in ("9" * 5_000, "9" * 18):
        answer = http.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": length})
        assert (answer.status_code, "it is the length of the JSON" in answer.json()["error"]) == (400, True)


def test_a_long_path_is_cut_in_the_log(served: Served) -> None:
    assert served.http.get(f"/{'long' * 1_000}").status_code == 404
    end = time.monotonic() + LIMIT_S
    while not (lines := [one for one in (served.folder / "log").read_text().splitlines() if "longlong" in one]):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(json.loads(lines[0])["path"]) == MOST_PATH


def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(served: Served) -> None:
    for content in (b" " * 4_000_000, (b" " * 500_000 for _ in range(8))):
        assert served.http.post("/json", content=content).status_code == 413


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


def test_many_at_once_each_get_their_own_scores(served: Served) -> None:
    def ask(event: int) -> float:
        values = served.features[event].tolist()
        return float(served.http.post("/json", json={"values": values, "model": "job"}).json()[0])

    with ThreadPoolExecutor(16) as askers:
        assert same(list(askers.map(ask, range(len(served.scores)))), served.scores)
    metrics = served.http.get("/metrics").text
    assert re.search(r'hepfaas_requests_total\{call="row",status="200"\} \d', metrics)
    assert "hepfaas_model_loads 1" in metrics or "hepfaas_model_loads" in metrics


def test_versions_are_swapped_under_load_and_no_request_fails(served: Served) -> None:
    store, first = served.store, versions.load(served.store, "job")
    files = {versions.SPEC: store.get(f"models/job/1/{versions.SPEC}"), versions.GRAPH: first.graph}
    answers: list[int] = []
    swapped = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=60) as http:
            while not swapped.is_set():
                sent = {"values": served.features[0].tolist(), "model": "swapped"}
                answers.append(http.post("/json", json=sent).status_code)

    def published(number: int) -> versions.Version:
        claimed = versions.claim(store, "swapped", f"claim {number}")
        versions.publish(store, claimed, {**first.card, "name": "swapped", "version": number}, files)
        return claimed

    def answers_with(number: int) -> bool:
        return bool(served.http.get("/v2/models/swapped").json()["versions"] == [str(number)])

    before = published(1)
    with ThreadPoolExecutor(4) as askers:
        asking = [askers.submit(ask) for _ in range(4)]
        for number in range(2, 5):
            now = published(number)
            versions.delete(store, before)
            before = now
            wait_until(partial(answers_with, number), served.process, f"version {number}")
        swapped.set()
        for one in asking:
            one.result(timeout=60)
    assert set(answers) == {200}
    assert len(answers) > 100


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
    before, some = threads(), 20  # threads of pools, which come once and stay
    left(40)
    wait_until(lambda: threads() < before + some, served.process, "the end of what nobody reads")
    assert served.http.post(PREDICT, json=body).text.count("\n") == 20_001


TRITON = """
import sys, numpy as np
kind, address, features, scores = sys.argv[1:]
if kind == "http":
    import tritonclient.http as client
else:
    import tritonclient.grpc as client
with client.InferenceServerClient(address) as server:
    assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("job")
    features = np.load(features)
    told = server.get_model_metadata("job", **({} if kind == "http" else {"as_json": True}))
    for binary in (True, False):
        sent = client.InferInput(told["inputs"][0]["name"], features.shape, told["inputs"][0]["datatype"])
        wanted = client.InferRequestedOutput("scores")
        sent.set_data_from_numpy(features)
        if kind == "http":
            sent.set_data_from_numpy(features, binary_data=binary)
            wanted = client.InferRequestedOutput(told["outputs"][0]["name"], binary_data=binary)
        np.save(scores, server.infer("job", [sent], outputs=[wanted], request_id="1").as_numpy("scores"))
    for model, inputs, said in (("nope", [sent], "has no model 'nope'"),
                                ("job", [client.InferInput("met", [1], "FP32")], "misses input 'lep_pt'")):
        inputs[0].set_data_from_numpy(features if inputs[0] is sent else np.zeros(1, "f4"))
        try:
            server.infer(model, inputs)
        except client.InferenceServerException if hasattr(client, "InferenceServerException") else Exception as error:
            assert said in str(error), error
        else:
            raise AssertionError(f"{model} was not refused")
"""


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_official_clients_of_the_protocol_work(served: Served, tmp_path: Path, kind: str) -> None:
    python = server_binary(str(TOP / ".cache/peers/tritonclient/bin/python"), "PyPI tritonclient[http,grpc]")
    np.save(tmp_path / "features.npy", served.features)
    address = served.url.removeprefix("http://") if kind == "http" else served.grpc
    command = [python, "-c", TRITON, kind, address, str(tmp_path / "features.npy"), str(tmp_path / "scores.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert same(np.load(tmp_path / "scores.npy")[:, 0], served.scores)


KSERVE = """
import asyncio, sys, numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
kind, address, features, scores = sys.argv[1:]

def request(model, features, binary):
    tensor = InferInput("features", list(features.shape), "FP32")
    tensor.set_data_from_numpy(features, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="7")

async def main():
    values = np.load(features)
    made = InferenceRESTClient(RESTConfig(protocol="v2")) if kind == "http" else InferenceGRPCClient(address)
    async with made as client:
        place = (address,) if kind == "http" else ()
        assert await client.is_server_live(*place) and await client.is_server_ready(*place)
        assert await client.is_model_ready(*place, model_name="job")
        async def infer(asked):
            return await client.infer(*place, asked, **({"model_name": asked.model_name} if place else {}))
        for binary in (False, True):
            answer = await infer(request("job", values, binary))
            assert (answer.id, answer.model_name) == ("7", "job"), answer
            np.save(scores, answer.outputs[0].as_numpy())
        wrong = ("nope", values, "has no model 'nope'"), ("job", values[:, :1], "vectors of 3 features")
        for model, sent, said in wrong:
            try:
                await infer(request(model, sent, False))
            except Exception as error:
                assert said in str(error), error
            else:
                raise AssertionError(f"{said}: not refused")

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_inference_clients_of_kserve_work(served: Served, tmp_path: Path, kind: str) -> None:
    python = server_binary(str(TOP / ".cache/peers/kserve/bin/python"), "PyPI kserve")
    np.save(tmp_path / "features.npy", served.features)
    address = served.url if kind == "http" else served.grpc
    command = [python, "-c", KSERVE, kind, address, str(tmp_path / "features.npy"), str(tmp_path / "scores.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert same(np.load(tmp_path / "scores.npy").reshape(-1), served.scores)


def test_grpc_takes_raw_values_typed_and_tells_its_health(served: Served) -> None:
    count = 9
    pt = ak.to_numpy(ak.fill_none(ak.pad_none(served.events["lep_pt"][:count], 2), np.nan))
    tensors = [
        inference("Tensor")(
            name=name,
            datatype="FP64" if name == "met" else "FP32",
            shape=values.shape,
            contents=inference("Contents")(**{field: values.reshape(-1).tolist()}),
        )
        for name, values, field in (
            ("met", ak.to_numpy(served.events["met"][:count]), "fp64_contents"),
            ("lep_pt", pt, "fp32_contents"),
        )
    ]
    with grpc.insecure_channel(served.grpc) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=inference("ModelInferResponse").FromString,
        )
        answer = infer(inference("ModelInferRequest")(model_name="job", inputs=tensors), timeout=30)
        assert same(np.frombuffer(answer.raw_output_contents[0], "<f4"), served.scores[:count])
        wrong = [inference("Tensor")(name="features", datatype="FP32", shape=[2, 3])]
        with pytest.raises(grpc.RpcError) as told:
            infer(inference("ModelInferRequest")(model_name="job", inputs=wrong), timeout=30)
        assert told.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert told.value.details() == "input 'features' has 0 values, and shape [2, 3]"
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in ("", "inference.GRPCInferenceService"):
            asked = health("HealthCheckRequest")(service=name).SerializeToString()
            assert check(asked, timeout=30) == health("HealthCheckResponse")(status=1).SerializeToString()
        with pytest.raises(grpc.RpcError) as told:
            check(health("HealthCheckRequest")(service="other").SerializeToString(), timeout=30)
        assert told.value.code() == grpc.StatusCode.NOT_FOUND


def test_each_call_of_grpc_is_a_line_of_the_log_and_counted(served: Served) -> None:
    metrics = free_port()
    before = (served.folder / "log").read_text()
    with (
        served.started("predict-grpc", HEPFAAS_METRICS_PORT=str(metrics)) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        call(inference("ModelMetadataRequest")(name="job").SerializeToString(), timeout=30)
        with pytest.raises(grpc.RpcError):
            call(inference("ModelMetadataRequest")(name="nope").SerializeToString(), timeout=30)
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30)
        told = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=30).text
    for name, status in (("ModelMetadata", "OK"), ("ModelMetadata", "NOT_FOUND"), ("Check", "OK")):
        assert f'hepfaas_requests_total{{call="{name}",status="{status}"}} 1.0' in told
    assert "hepfaas_model_loads 1.0" in told
    said = (served.folder / "log").read_text().removeprefix(before).splitlines()
    lines = [line for line in map(json.loads, said) if line.get("call") == "ModelMetadata"]
    assert [(line["function"], line["status"]) for line in lines] == [
        ("predict-grpc", "OK"),
        ("predict-grpc", "NOT_FOUND"),
    ]
    assert "no model 'nope'" in lines[1]["outcome"]


def test_it_stays_ready_for_others_when_a_default_model_is_deleted(served: Served) -> None:
    for key in list(served.store.keys("models/job/1/")):
        served.store.create(key.replace("/job/", "/default/"), served.store.get(key))
    with served.started(HEPFAAS_PREDICT_MODELS="default") as (process, port), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}"
        assert http.get(f"{url}/v2/health/ready").status_code == 200
        assert http.delete(f"{url}/v1/models/default/versions/1").status_code == 204
        wait_until(lambda: http.get(f"{url}/v2/models/default/ready").status_code == 404, process, "that it is gone")
        assert http.get(f"{url}/v2/health/ready").status_code == 200


def test_it_is_ready_when_the_default_models_are_in_memory(served: Served) -> None:
    with served.started(HEPFAAS_PREDICT_MODELS="job, job/1") as (_, port), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}"
        assert http.get(f"{url}/v2/health/ready").status_code == 200
        assert "hepfaas_model_loads 1.0" in http.get(f"{url}/metrics").text
    with served.started(HEPFAAS_PREDICT_MODELS="job,later") as (_, port), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}"
        refused = http.get(f"{url}/v2/health/ready")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "default model 'later' cannot be served: " in refused.json()["error"]
        assert http.get(f"{url}/v2/health/live").status_code == 200
        assert http.get(f"{url}/v2/models/job/ready").status_code == 200
    with (
        served.started("predict-grpc", HEPFAAS_PREDICT_MODELS="later") as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name, status in (("", 1), ("inference.GRPCInferenceService", 2)):
            asked = health("HealthCheckRequest")(service=name).SerializeToString()
            assert check(asked, timeout=30) == health("HealthCheckResponse")(status=status).SerializeToString()


def memory_mb(process: subprocess.Popen[bytes], what: str = "VmRSS") -> float:
    """Of the worker, the only child."""
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    assert found
    return int(found[1]) / 1000


def test_what_is_too_much_is_refused_and_afterwards_all_is_as_before(served: Served) -> None:
    rows = 200_000
    blob = np.random.default_rng(1).random((rows, 3), dtype=np.float32).tobytes()
    size = {"binary_data_size": len(blob)}
    tensor = {"name": "features", "shape": [rows, 3], "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    told = {"Inference-Header-Content-Length": str(len(head))}
    sent = threading.Event()

    statuses: list[int] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not sent.is_set():
                answer = http.post(INFER, content=head + blob, headers=told)
                statuses.append(answer.status_code)
                assert answer.status_code != 429 or answer.headers["retry-after"] == "1"

    limits = {"HEPFAAS_PREDICT_WAITING_BYTES": "12000000", "HEPFAAS_PREDICT_REQUESTS": "10"}
    with served.started(**limits) as (process, port), ThreadPoolExecutor(16) as askers:
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}{INFER}", content=head + blob, headers=told, timeout=60).status_code == 200
        before = memory_mb(process)
        asking = [askers.submit(ask, url) for _ in range(16)]
        began = time.monotonic()
        while time.monotonic() < began + (60 if 429 not in statuses else 4):  # clients of a busy machine are slow
            time.sleep(0.1)
        sent.set()
        for one in asking:
            one.result(timeout=60)
        assert {200, 429} <= set(statuses) <= {200, 429, 503}
        assert memory_mb(process, "VmHWM") < before + 200
        assert httpx.post(f"{url}{INFER}", content=head + blob, headers=told, timeout=60).status_code == 200


def bombs(folder: Path) -> dict[str, bytes]:
    """Small bodies of very many events, by their media types."""
    rows = 9_000_000
    ones = np.ones(rows, dtype=np.float32)
    lists = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), ones)
    table = pa.table({"met": ones, "lep_pt": lists})
    found = {}
    for kind, new in ((ARROW, pa.ipc.new_stream), ("application/vnd.apache.arrow.file", pa.ipc.new_file)):
        out = io.BytesIO()
        with new(out, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=1_000_000)
        found[kind] = out.getvalue()
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    found[PARQUET] = out.getvalue()
    with uproot.recreate(folder / "bomb.root", compression=uproot.ZSTD(1)) as file:
        tree = file.mktree("Events", {"met": "float32", "lep_pt": "var * float32"})
        some = ak.unflatten(ones[: rows // 9], np.ones(rows // 9, dtype=np.int64))
        for _ in range(9):
            tree.extend({"met": ones[: rows // 9], "lep_pt": some})
    found[ROOT] = (folder / "bomb.root").read_bytes()
    found["application/json"] = b'{"events": {"met": [], "lep_pt": [' + b"[]," * 3_500_000 + b"[]]}}"
    return found


def test_small_bodies_of_many_events_are_refused_before_they_are_decoded(served: Served, tmp_path: Path) -> None:
    bodies = bombs(tmp_path)
    with (
        served.started(HEPFAAS_PREDICT_BODY_BYTES="64000000") as (process, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        for kind, body in documents(served.events, served.file).items():
            assert http.post(PREDICT, content=body, headers={"Content-Type": kind}).status_code == 200, kind
        before = memory_mb(process)
        for kind, body in bodies.items():
            answer = http.post(PREDICT, content=body, headers={"Content-Type": kind})
            assert answer.status_code == 413, (kind, len(body), answer.text[:1_000])
            assert "at most 256,000,000 may be (HEPFAAS_PREDICT_WAITING_BYTES)" in answer.json()["error"]
            assert "many events in 'files' become a run" in answer.json()["error"]
            assert memory_mb(process, "VmHWM") < before + 60 + 3 * len(body) / 1e6, kind


def test_metrics_are_for_those_who_ask_an_instance_itself(served: Served) -> None:
    assert served.http.get("/metrics").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded"):
        assert served.http.get("/metrics", headers={header: "for=10.0.0.1"}).status_code == 404


def test_probes_ask_at_one_place_whatever_stands_before_other_paths(served: Served) -> None:
    with served.started(HEPFAAS_PREDICT_BASE="/inference") as (_, port), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}"
        for path in ("/v2/health/ready", "/v2/health/live", "/inference/v2/health/ready", "/inference/v2"):
            assert http.get(f"{url}{path}").status_code == 200, path
        assert http.get(f"{url}/v2").status_code == 404


VECTORS = """
import asyncio, json, sys
from hepfaas.platform.settings import Settings
from hepfaas.serving.app import PredictApp
from starlette.requests import Request

async def main():
    app = PredictApp(Settings(sys.argv[1]))
    for path, body in json.loads(sys.argv[2]).items():
        async def receive():
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        answer = await app.answer(Request(scope, receive))
        assert answer.status_code == 200, answer.body

asyncio.run(main())
print(" ".join({name.partition(".")[0] for name in sys.modules}))
"""


def test_vectors_are_answered_without_what_reads_events(served: Served) -> None:
    row = served.features[0].tolist()
    tensor = {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": row}
    asked = {"/json": {"values": row, "model": "job"}, INFER: {"inputs": [tensor]}}
    command = [sys.executable, "-c", VECTORS, f"{served.folder}/store", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "ai_edge_litert" not in loaded  # graphs run in other processes
    assert not loaded & {"awkward", "uproot", "pyarrow", "pandas", "tensorflow", "boto3"}


def documents(events: ak.Array, file: Path) -> dict[str, bytes]:
    """The events in every form that they may be sent in, by its media type."""
    table = ak.to_arrow_table(events, extensionarray=False)
    arrow, parquet = io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    columns = {name: ak.to_list(events[name]) for name in events.fields}
    return {
        "application/json": json.dumps({"events": columns}).encode(),
        ARROW: arrow.getvalue(),
        PARQUET: parquet.getvalue(),
        ROOT: file.read_bytes(),
    }


def test_vectors_are_those_that_training_saw_bit_for_bit(served: Served) -> None:
    stored = np.zeros_like(served.features)
    identity, seen = opened(str(served.file), "Events").identity, 0
    for key in served.store.keys("steps/prepare/"):
        data = served.store.get(key)
        part = Part(lambda start, stop, data=data: data[start:stop], len(data))
        if part.facts.file == identity:
            with pa.ipc.open_file(data) as file:
                table = file.read_all()
            features = table["features"].combine_chunks().flatten().to_numpy()
            stored[table["entry"].to_numpy()] = features.reshape(table.num_rows, -1)
            seen += table.num_rows
    assert seen == len(stored)
    model = served_of(served.store, versions.find(served.store, "job"))
    for kind, body in documents(served.events, served.file).items():
        found = raw_events.features_of(model, raw_events.events_in(model, kind, body, "Events", HOLD), HOLD)
        assert found.tobytes() == stored.tobytes(), kind


TEXTS = st.text(max_size=8) | st.sampled_from(["features", "met", "lep_pt", "job", "FP32", "scores", "\ud800"])
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner), max_leaves=8)
NUMBERS = st.lists(st.floats(width=32) | LEAVES, max_size=4)
TENSORS = st.fixed_dictionaries(
    {"name": TEXTS, "shape": st.lists(st.integers(-1, 4), max_size=3) | ANY, "datatype": TEXTS | st.just("FP32")},
    optional={"data": NUMBERS | ANY, "parameters": st.dictionaries(st.just("binary_data_size"), st.integers() | ANY)},
)
REQUESTS = st.fixed_dictionaries({"inputs": st.lists(TENSORS | ANY, max_size=3)}, optional={"outputs": ANY, "id": ANY})
EVENTS = st.dictionaries(st.sampled_from(["met", "lep_pt", "event"]), NUMBERS | ANY, max_size=3)
ASKED = st.fixed_dictionaries({}, optional={"events": EVENTS | st.lists(EVENTS, max_size=3) | ANY, "files": ANY})
ROWS = st.fixed_dictionaries({}, optional={"keys": ANY, "values": NUMBERS | ANY, "model": TEXTS | ANY})
PATHS = {
    INFER: REQUESTS | ANY,
    PREDICT: ASKED | ANY,
    "/json": ROWS | ANY,
    "/params": ANY,
    "/v1/models/job/predict?tree=%00": ASKED,
}
KINDS = st.sampled_from(["application/json", ARROW, "application/vnd.apache.arrow.file", PARQUET, ROOT, "text/x", ""])


def damaged(data: st.DataObject, served: Served) -> bytes:
    """A document of events of which something was changed, or cut off."""
    table = ak.to_arrow_table(served.events[:9], extensionarray=False)
    out = io.BytesIO()
    kind = data.draw(st.sampled_from(["arrow", "parquet", "root", "proto"]))
    if kind == "arrow":
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    elif kind == "parquet":
        pq.write_table(table, out)
    elif kind == "root":
        out.write(served.file.read_bytes())
    else:
        out.write(message("Row")(key=["a"], value=[1.0, 2.0], model="job").SerializeToString())
    whole = bytearray(out.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    return bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)


@pytest.mark.timeout(3000)
def test_what_nobody_would_send_is_no_fault_of_ours(served: Served) -> None:
    @settings(max_examples=BODIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.sampled_from([*PATHS, "/proto", "/proto?message=DataFrame"]), KINDS)
    def sent(data: st.DataObject, path: str, kind: str) -> None:
        if "proto" in path or kind not in ("application/json", ""):
            body = data.draw(st.binary(max_size=99)) if data.draw(st.booleans()) else damaged(data, served)
        else:
            body = json.dumps(data.draw(PATHS[path])).encode()
        headers = {"Content-Type": kind}
        if data.draw(st.integers(0, 4)) == 0:
            headers["Inference-Header-Content-Length"] = data.draw(st.sampled_from(["0", "7", "-1", "x", "99999999"]))
        answer = served.http.post(path, content=body, headers=headers)
        assert answer.status_code < 500 or answer.status_code == 503, (answer.text, body)
        assert "Traceback" not in answer.text

    sent()
    assert served.process.poll() is None


def valid_bodies(served: Served) -> list[Body]:
    """A request of every kind, to be changed into those that nobody would send."""
    events, rows = served.events[:9], served.features[:3]
    path, tree = f"{PREDICT}?tree=Events", {"name": "features", "shape": rows.shape, "datatype": "FP32"}
    blob, size = rows.tobytes(), {"parameters": {"binary_data_size": rows.nbytes}}
    raw = [
        {"name": "met", "shape": [1], "datatype": "FP32", "data": [1.0]},
        {"name": "lep_pt", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]},
    ]
    columns = {name: ak.to_list(events[name]) for name in events.fields}
    objects = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    json_of: list[tuple[str, Any]] = [
        (PREDICT, {"events": columns}),
        (PREDICT, {"events": objects[:2]}),
        (PREDICT, {"files": ["/etc/passwd", "file:///etc/passwd"], "tree": "Events", "entries": [0, 9]}),
        (INFER, {"id": "1", "inputs": [{**tree, "data": rows.tolist()}], "outputs": [{"name": "scores"}]}),
        (INFER, {"inputs": raw, "parameters": {"binary_data_output": True}}),
        ("/json", {"keys": served.spec.columns, "values": rows[0].tolist(), "model": "job"}),
        ("/predict/json", {"values": rows[0].tolist(), "model": "job"}),
        ("/params", {"name": "job"}),
    ]
    found = [Body(place, json.dumps(body).encode(), {"Content-Type": "application/json"}) for place, body in json_of]
    head = json.dumps({"inputs": [{**tree, **size}], "parameters": {"binary_data_output": True}}).encode()
    found += [Body(INFER, head + blob, {"Inference-Header-Content-Length": str(len(head))})] * 3
    kinds = documents(events, served.file)
    kinds["application/vnd.apache.arrow.file"] = kinds[ARROW]
    found += [Body(path, body, {"Content-Type": kind}) for kind, body in kinds.items()]
    row = message("Row")(key=served.spec.columns, value=rows[0].tolist(), model="job")
    found += [Body("/proto", row.SerializeToString(), {"Content-Type": "application/protobuf"})] * 2
    frame = message("DataFrame")(row=[row, row]).SerializeToString()
    found.append(Body("/predict/proto?message=DataFrame", frame, {}))
    for kind in ("PNG", "JPEG"):
        out = io.BytesIO()
        Image.fromarray(np.arange(48, dtype="u1").reshape(4, 4, 3)).save(out, kind)
        form = httpx.Request("POST", served.url, data={"model": "job"}, files={"image": out.getvalue()})
        found.append(Body("/image", form.read(), {"Content-Type": form.headers["Content-Type"]}))
    return found


def tree_of(folder: Path) -> set[Path]:
    """All that lies in a folder."""
    return {path for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.timeout(3000)
def test_valid_requests_that_were_damaged_are_answered_and_leave_nothing_behind(served: Served, tmp_path: Path) -> None:
    seed = int(os.environ.get("HEPFAAS_SEED", time.time_ns() % 2**32 if ALL else 1))
    rows = valid_bodies(served)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    kept = set(served.store.keys(""))
    with served.started(TMPDIR=str(inner)) as (process, port):
        url = f"http://127.0.0.1:{port}"

        def send(numbers: range) -> Counter[int]:
            statuses: Counter[int] = Counter()
            with httpx.Client(base_url=url, timeout=60) as http:
                for number in numbers:
                    one = changed(random.Random(f"{seed} {number}"), rows)
                    try:
                        answer = http.post(one.path, content=one.body, headers=one.headers)
                    except (httpx.InvalidURL, UnicodeEncodeError):
                        continue  # the client itself refuses
                    assert answer.status_code < 500, (seed, number, one, answer.text)
                    assert "Traceback" not in answer.text, (seed, number)
                    statuses[answer.status_code] += 1
            return statuses

        for row in rows:
            assert httpx.post(f"{url}{row.path}", content=row.body, headers=row.headers).status_code in (200, 422)
        send(range(-200, 0))
        before = memory_mb(process)
        with ThreadPoolExecutor(4) as senders:
            statuses = sum(senders.map(send, (range(first, DAMAGED, 4) for first in range(4))), Counter())
        assert memory_mb(process) < before + 100, (seed, before, memory_mb(process))
        assert process.poll() is None
        sys.stdout.write(f"{dict(statuses)}, {before:.0f} MB before, {memory_mb(process):.0f} after\n")
    assert {200, 422} <= set(statuses), seed
    assert tree_of(tmp_path) == set()
    left = {key for key in set(served.store.keys("")) - kept if not key.startswith("default/")}
    assert left == set(), seed


def test_every_example_of_the_document_does_what_it_says(served: Served, xrootd: XRootD, tmp_path: Path) -> None:
    table = ak.to_arrow_table(served.events, extensionarray=False)
    pq.write_table(table, tmp_path / "events.parquet")
    with pa.OSFile(str(tmp_path / "events.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "signal.root").write_bytes(served.file.read_bytes())
    commands = examples.commands("reference/predict.md")
    assert len(commands) > 15
    examples.run(commands, tmp_path, URL=served.url, FILE=xrootd.serve(served.file))
