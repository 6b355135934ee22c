"""An instance of `predict` as operators see it: readiness, limits, metrics, log and imports."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
from hepfaas.serving import health_pb2 as health
from hepfaas.serving.app import MOST_PATH
from support.servers import LIMIT_S, wait_until
from support.serving import INFER, Served, memory_mb

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
            request = health.HealthCheckRequest(service=name).SerializeToString()
            assert check(request, timeout=30) == health.HealthCheckResponse(status=status).SerializeToString()


def test_it_stays_ready_for_others_when_a_default_model_is_deleted(served: Served) -> None:
    for key in list(served.store.keys("models/job/1/")):
        served.store.create(key.replace("/job/", "/default/"), served.store.get(key))
    with served.started(HEPFAAS_PREDICT_MODELS="default") as (process, port), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}"
        assert http.get(f"{url}/v2/health/ready").status_code == 200
        assert http.delete(f"{url}/v1/models/default/versions/1").status_code == 204
        wait_until(lambda: http.get(f"{url}/v2/models/default/ready").status_code == 404, process, "that it is gone")
        assert http.get(f"{url}/v2/health/ready").status_code == 200


def test_probes_ask_at_one_place_whatever_stands_before_other_paths(served: Served) -> None:
    with served.started(HEPFAAS_PREDICT_BASE="/inference") as (_, port), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}"
        for path in ("/v2/health/ready", "/v2/health/live", "/inference/v2/health/ready", "/inference/v2"):
            assert http.get(f"{url}{path}").status_code == 200, path
        assert http.get(f"{url}/v2").status_code == 404


def test_metrics_are_for_those_who_ask_an_instance_itself(served: Served) -> None:
    assert served.http.get("/metrics").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded"):
        assert served.http.get("/metrics", headers={header: "for=10.0.0.1"}).status_code == 404


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


def test_what_is_too_much_is_refused_and_afterwards_all_is_as_before(served: Served) -> None:
    rows = 200_000
    blob = np.random.default_rng(1).random((rows, 3), dtype=np.float32).tobytes()
    size = {"binary_data_size": len(blob)}
    tensor = {"name": "features", "shape": [rows, 3], "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    sent = threading.Event()

    statuses: list[int] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not sent.is_set():
                answer = http.post(INFER, content=head + blob, headers=headers)
                statuses.append(answer.status_code)
                assert answer.status_code != 429 or answer.headers["retry-after"] == "1"

    limits = {"HEPFAAS_PREDICT_WAITING_BYTES": "12000000", "HEPFAAS_PREDICT_REQUESTS": "10"}
    with served.started(**limits) as (process, port), ThreadPoolExecutor(16) as askers:
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}{INFER}", content=head + blob, headers=headers, timeout=60).status_code == 200
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
        assert httpx.post(f"{url}{INFER}", content=head + blob, headers=headers, timeout=60).status_code == 200


def test_vectors_are_answered_without_what_reads_events(served: Served) -> None:
    row = served.features[0].tolist()
    tensor = {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": row}
    requests = {"/json": {"values": row, "model": "job"}, INFER: {"inputs": [tensor]}}
    command = [sys.executable, "-c", VECTORS, f"{served.folder}/store", json.dumps(requests)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "ai_edge_litert" not in loaded  # graphs run in other processes
    assert not loaded & {"awkward", "uproot", "pyarrow", "pandas", "tensorflow", "boto3"}
