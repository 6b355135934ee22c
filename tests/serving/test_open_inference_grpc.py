"""The Open Inference Protocol over gRPC."""

import json

import awkward as ak
import grpc
import httpx
import numpy as np
import pytest
from hepfaas.serving import health_pb2 as health
from hepfaas.serving import open_inference_pb2 as inference
from support.servers import free_port
from support.serving import INFER, PREDICT, Served, memory_mb, same, tensor


def test_grpc_takes_raw_values_typed_and_tells_its_health(served: Served) -> None:
    count = 9
    pt = ak.to_numpy(ak.fill_none(ak.pad_none(served.events["lep_pt"][:count], 2), np.nan))
    tensors = [
        inference.Tensor(
            name=name,
            datatype="FP64" if name == "met" else "FP32",
            shape=values.shape,
            contents=inference.Contents(**{field: values.reshape(-1).tolist()}),
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
            response_deserializer=inference.ModelInferResponse.FromString,
        )
        answer = infer(inference.ModelInferRequest(model_name="job", inputs=tensors), timeout=30)
        assert same(np.frombuffer(answer.raw_output_contents[0], "<f4"), served.scores[:count])
        wrong = [inference.Tensor(name="features", datatype="FP32", shape=[2, 3])]
        with pytest.raises(grpc.RpcError) as error:
            infer(inference.ModelInferRequest(model_name="job", inputs=wrong), timeout=30)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details() == "input 'features' has 0 values, and shape [2, 3]"
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in ("", "inference.GRPCInferenceService"):
            request = health.HealthCheckRequest(service=name).SerializeToString()
            assert check(request, timeout=30) == health.HealthCheckResponse(status=1).SerializeToString()
        with pytest.raises(grpc.RpcError) as error:
            check(health.HealthCheckRequest(service="other").SerializeToString(), timeout=30)
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_small_whole_number_of_grpc_that_is_none_is_refused(served: Served) -> None:
    contents = inference.Contents(int_contents=[1, 300, 1])
    wrong = inference.Tensor(name="features", datatype="INT8", shape=[1, 3], contents=contents)
    with grpc.insecure_channel(served.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            infer(inference.ModelInferRequest(model_name="job", inputs=[wrong]).SerializeToString(), timeout=30)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the contents of input 'features': value 1 is 300; it takes whole numbers" in error.value.details()


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
            tensors = [inference.Tensor(name=one["name"], datatype="FP32", shape=one["shape"]) for one in inputs]
            request = inference.ModelInferRequest(model_name="job", inputs=tensors).SerializeToString()
            if shape[0] == 0:
                infer(request, timeout=30)
            else:
                with pytest.raises(grpc.RpcError) as error:
                    infer(request, timeout=30)
                assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert memory_mb(served.process, "VmHWM") < before + 30
    one = [tensor("met", "FP32", [1], [1.0]), tensor("lep_pt", "FP32", [1, 0], [])]
    answer = served.http.post(INFER, json={"inputs": one})
    events = {"met": [1.0], "lep_pt": [[]]}
    expected = served.http.post(PREDICT, json={"events": events}).json()["scores"]["score"]
    assert answer.json()["outputs"][0]["data"] == expected


def test_each_call_of_grpc_is_a_line_of_the_log_and_counted(served: Served) -> None:
    metrics = free_port()
    before = (served.folder / "log").read_text()
    with (
        served.started("predict-grpc", HEPFAAS_METRICS_PORT=str(metrics)) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        call(inference.ModelMetadataRequest(name="job").SerializeToString(), timeout=30)
        with pytest.raises(grpc.RpcError):
            call(inference.ModelMetadataRequest(name="nope").SerializeToString(), timeout=30)
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30)
        metrics_text = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=30).text
    for name, status in (("ModelMetadata", "OK"), ("ModelMetadata", "NOT_FOUND"), ("Check", "OK")):
        assert f'hepfaas_requests_total{{call="{name}",status="{status}"}} 1.0' in metrics_text
    assert "hepfaas_model_loads 1.0" in metrics_text
    log = (served.folder / "log").read_text().removeprefix(before).splitlines()
    lines = [line for line in map(json.loads, log) if line.get("call") == "ModelMetadata"]
    assert [(line["function"], line["status"]) for line in lines] == [
        ("predict-grpc", "OK"),
        ("predict-grpc", "NOT_FOUND"),
    ]
    assert "no model 'nope'" in lines[1]["outcome"]
