"""A function whose event loop is frozen must fail the liveness probe of its manifest, so that kubelet restarts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
from hepfaas.serving import health_pb2 as health
from support.rendered import Thing, of_kind
from support.servers import LIMIT_S, TOP, free_port, is_open, wait_until

FREEZES = """
import runpy, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1000))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""A signal handler runs in the main thread, which runs the event loop, and so blocks the loop."""


def probe_of(name: str) -> Thing:
    """Return a function's liveness probe in the base manifests."""
    container = of_kind("base", "Service", "serving.knative.dev")[name]["spec"]["template"]["spec"]["containers"][0]
    found: Thing = container["livenessProbe"]
    return found


@contextmanager
def started(tmp_path: Path, *command: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    environ = {**os.environ, "HEPFAAS_STORE": str(tmp_path / "store"), "PORT": str(port), **variables}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: is_open(port), process, command[-1])
        yield process, port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=LIMIT_S)


def is_alive_by_grpc(port: int, probe: Thing, timeout_s: float) -> bool:
    """Probe as kubelet does: grpc.health.v1.Health/Check must return SERVING."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=health.HealthCheckResponse.FromString,
        )
        try:
            answer = call(health.HealthCheckRequest(service=probe.get("service", "")), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == 1)


def test_a_frozen_predict_grpc_is_restarted(tmp_path: Path) -> None:
    probe = probe_of("predict-grpc")
    assert probe["grpc"]["port"] == 8080  # Knative sets it only for HTTP and TCP, and Kubernetes refuses 0
    with started(tmp_path, "-c", FREEZES, str(TOP / "functions/predict-grpc/main.py")) as (process, port):
        assert is_alive_by_grpc(port, probe["grpc"], LIMIT_S)
        os.kill(process.pid, signal.SIGUSR1)
        assert not is_alive_by_grpc(port, probe["grpc"], 2)
        assert process.poll() is None


def test_predict_answers_its_liveness_probe_while_its_store_is_away(tmp_path: Path) -> None:
    """A restart does not repair the store, so liveness probes the process and readiness the store."""
    probe = probe_of("predict")
    away = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_DEFAULT_REGION": "us-east-1"}
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "HEPFAAS_STORE": "s3://hepfaas"}
    source = str(TOP / "functions/predict/main.py")
    variables = {"FUNCTION_TARGET": "predict", "FUNCTION_SOURCE": source, "HOST": "127.0.0.1", "WORKERS": "1"}
    with started(tmp_path, "-m", "functions_framework", **variables, **away, **keys) as (_, port):
        answer = httpx.get(f"http://127.0.0.1:{port}{probe['httpGet']['path']}", timeout=LIMIT_S)
        assert answer.status_code < 400
