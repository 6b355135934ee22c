"""The Open Inference Protocol over HTTP, and by its official clients over HTTP and gRPC."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import grpc
import httpx
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.inputs import raw_events
from hepfaas.models import versions
from hepfaas.models.served import served_of
from hepfaas.serving import open_inference_pb2 as inference
from support.servers import server_binary
from support.serving import INFER, TOP, Served, same, tensor, typed

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
    metadata = server.get_model_metadata("job", **({} if kind == "http" else {"as_json": True}))
    for binary in (True, False):
        sent = client.InferInput(metadata["inputs"][0]["name"], features.shape, metadata["inputs"][0]["datatype"])
        wanted = client.InferRequestedOutput("scores")
        sent.set_data_from_numpy(features)
        if kind == "http":
            sent.set_data_from_numpy(features, binary_data=binary)
            wanted = client.InferRequestedOutput(metadata["outputs"][0]["name"], binary_data=binary)
        np.save(scores, server.infer("job", [sent], outputs=[wanted], request_id="1").as_numpy("scores"))
    for model, inputs, finding in (("nope", [sent], "has no model 'nope'"),
                                ("job", [client.InferInput("met", [1], "FP32")], "misses input 'lep_pt'")):
        inputs[0].set_data_from_numpy(features if inputs[0] is sent else np.zeros(1, "f4"))
        try:
            server.infer(model, inputs)
        except client.InferenceServerException if hasattr(client, "InferenceServerException") else Exception as error:
            assert finding in str(error), error
        else:
            raise AssertionError(f"{model} was not refused")
"""
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
    api = InferenceRESTClient(RESTConfig(protocol="v2")) if kind == "http" else InferenceGRPCClient(address)
    async with api as client:
        place = (address,) if kind == "http" else ()
        assert await client.is_server_live(*place) and await client.is_server_ready(*place)
        assert await client.is_model_ready(*place, model_name="job")
        async def infer(query):
            return await client.infer(*place, query, **({"model_name": query.model_name} if place else {}))
        for binary in (False, True):
            answer = await infer(request("job", values, binary))
            assert (answer.id, answer.model_name) == ("7", "job"), answer
            np.save(scores, answer.outputs[0].as_numpy())
        wrong = ("nope", values, "has no model 'nope'"), ("job", values[:, :1], "vectors of 3 features")
        for model, sent, finding in wrong:
            try:
                await infer(request(model, sent, False))
            except Exception as error:
                assert finding in str(error), error
            else:
                raise AssertionError(f"{finding}: not refused")

asyncio.run(main())
"""


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


@pytest.mark.parametrize(
    ("path", "body", "status", "finding"),
    [
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
    ],
)
def test_what_is_wrong_is_told_with_what_was_expected(
    served: Served, path: str, body: Any, status: int, finding: str
) -> None:
    answer = served.http.post(path, json=body)
    assert (answer.status_code, finding in answer.json()["error"]) == (status, True), answer.text


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
        datatypes = {one["name"]: one["datatype"] for one in served.http.get(f"/v2/models/{name}").json()["inputs"]}
        assert (datatypes["met"], datatypes["lep_pt"]) == ("INT32", expected)
        met, padded = tensor("met", "INT32", [2], [3, 4.0]), [1, None, 0, 1]
        infer = f"/v2/models/{name}/infer"
        answer = served.http.post(infer, json={"inputs": [met, tensor("lep_pt", expected, [2, 2], padded)]})
        assert answer.json()["outputs"][0]["data"] == scores
        for datatype, data in (("UINT8", [1, 0, 0, 1]), ("INT32", [1, 0, 0, 1]), ("BOOL", [True] * 4)):
            answer = served.http.post(infer, json={"inputs": [met, tensor("lep_pt", datatype, [2, 2], data)]})
            assert answer.status_code == 400
            assert "has no NaN for a slot without a value; send FP32 or FP64" in answer.json()["error"]
        for data, place in (
            ([1, None, 0.5, 1], "value 0 of event 1 is 0.5"),
            ([None, 1, 1, 1], "value 0 of event 0 is m"),
        ):
            answer = served.http.post(infer, json={"inputs": [met, tensor("lep_pt", expected, [2, 2], data)]})
            finding = f"input 'lep_pt': {place}"
            assert (answer.status_code, finding in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("datatype", "data", "finding"),
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
    served: Served, datatype: str, data: list[Any], finding: str
) -> None:
    answer = served.http.post(INFER, json={"inputs": [tensor("features", datatype, [1, 3], data)]})
    assert (answer.status_code, finding in answer.json()["error"]) == (400, True), answer.text
    if datatype == "FP32":
        answer = served.http.post("/json", json={"values": data, "model": "job"})
        assert (answer.status_code, "'values': value " in answer.json()["error"]) == (422, True), answer.text


def test_events_that_take_no_bytes_are_refused_by_a_model_of_jagged_branches_alone(served: Served) -> None:
    model = served_of(served.store, versions.find(served.store, "job"))
    jagged = tuple(branch for branch in served.spec.branches if branch.jagged)
    model.published = replace(model.published, layout=replace(served.spec, branches=jagged))
    with pytest.raises(RequestError, match="the inputs have events and no value at all; give a slot, NaN where"):
        raw_events.vectors_of_tensors(model, {"lep_pt": np.zeros((10**13, 0), np.float32)}, 1_000)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_official_clients_of_the_protocol_work(served: Served, tmp_path: Path, kind: str) -> None:
    python = server_binary(str(TOP / ".cache/peers/tritonclient/bin/python"), "PyPI tritonclient[http,grpc]")
    np.save(tmp_path / "features.npy", served.features)
    address = served.url.removeprefix("http://") if kind == "http" else served.grpc
    command = [python, "-c", TRITON, kind, address, str(tmp_path / "features.npy"), str(tmp_path / "scores.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert same(np.load(tmp_path / "scores.npy")[:, 0], served.scores)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_apis_of_kserve_work(served: Served, tmp_path: Path, kind: str) -> None:
    python = server_binary(str(TOP / ".cache/peers/kserve/bin/python"), "PyPI kserve")
    np.save(tmp_path / "features.npy", served.features)
    address = served.url if kind == "http" else served.grpc
    command = [python, "-c", KSERVE, kind, address, str(tmp_path / "features.npy"), str(tmp_path / "scores.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert same(np.load(tmp_path / "scores.npy").reshape(-1), served.scores)


def test_features_of_raw_values_take_as_much_memory_as_the_operator_allows(served: Served) -> None:
    count = 20_000
    values = {"met": np.zeros(count, "f4"), "lep_pt": np.zeros((count, 1), "f4")}
    tensors = [tensor(name, "FP32", each.shape, each.reshape(-1).tolist()) for name, each in values.items()]
    messages = [
        inference.Tensor(
            name=name, datatype="FP32", shape=each.shape, contents=inference.Contents(fp32_contents=each.reshape(-1))
        )
        for name, each in values.items()
    ]
    finding = f"the features of {count:,} events take {12 * count:,} bytes in memory, and at most 200,000 may be"
    limit = {"HEPFAAS_PREDICT_WAITING_BYTES": "200000"}
    with served.started(**limit) as (_, port):
        answer = httpx.post(f"http://127.0.0.1:{port}{INFER}", json={"inputs": tensors}, timeout=60)
    assert (answer.status_code, finding in answer.json()["error"]) == (413, True), answer.text
    request = inference.ModelInferRequest(model_name="job", inputs=messages).SerializeToString()
    with (
        served.started("predict-grpc", **limit) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            infer(request, timeout=30)
    assert finding in error.value.details()
    model = served_of(served.store, versions.find(served.store, "job"))
    assert len(raw_events.vectors_of_tensors(model, values, 12 * count)) == count
