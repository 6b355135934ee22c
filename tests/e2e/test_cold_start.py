"""What a request waits for when nothing of its function runs: `make e2e` prints a table."""

import json
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field

import pytest
from support.deployed import FUNCTIONS, Service, kn_update, kubectl, run, wait_for_zero

TIMES = 10
ASK = """
import sys, time, urllib.error, urllib.request
began = time.time()
request = urllib.request.Request(f"http://{sys.argv[1]}.hepfaas.svc.cluster.local/healthz")
try:
    status = urllib.request.urlopen(request, timeout=120).status
except urllib.error.HTTPError as error:
    status = error.code
print(status, began, time.time() - began)
"""


@dataclass
class Watched:
    """When what is to be seen of a function's new pod was seen, in seconds since 1970: a node has one clock."""

    function: str
    times: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> "Watched":
        words = ["get", "pods", "-l", f"serving.knative.dev/service={self.function}", "-w", "-o", "json"]
        self._process = subprocess.Popen(
            ["kubectl", "-n", "hepfaas", *words, "--output-watch-events"], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        time.sleep(1)  # until it watches
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait(timeout=30)
        self._reader.join(timeout=30)

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._see(json.loads(line)["object"])

    def _see(self, pod: dict[str, dict[str, list[dict[str, dict[str, str]]]]]) -> None:
        now = time.time()
        self.times.setdefault("pod", now)
        for one in pod["status"].get("containerStatuses", []):
            if "running" in one.get("state", {}):
                self.times.setdefault(str(one["name"]), now)
        for condition in pod["status"].get("conditions", []):
            if (condition["type"], condition["status"]) == ("Ready", "True"):
                self.times.setdefault("ready", now)


@pytest.fixture
def soon_at_zero(service: Service) -> None:
    """Functions go to zero after seconds, not minutes, until the manifests are applied again."""
    key = "autoscaling.knative.dev"
    for name in FUNCTIONS:
        kept = ("--annotation-revision", f"{key}/scale-to-zero-pod-retention-period=0s")
        kn_update(name, "--annotation-revision", f"{key}/window=6s", *kept)
    yield
    gone = {f"{key}/window": None, f"{key}/scale-to-zero-pod-retention-period": None}  # kn takes none away
    for name in FUNCTIONS:
        patch = json.dumps({"spec": {"template": {"metadata": {"annotations": gone}}}})
        kubectl("patch", "ksvc", name, "--type=merge", "-p", patch)
    run("make", "deploy", "SITE=local")


@pytest.mark.usefixtures("soon_at_zero")
def test_a_request_at_zero_is_answered() -> None:
    """From the request at zero to the answer, through gateway and activator, as asked from within the cluster.

    Told for each function, as medians: until its pod is there, its container runs, it is ready, the answer has come.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in FUNCTIONS}
    for _ in range(TIMES):
        for name in FUNCTIONS:
            wait_for_zero(name)
            with Watched(name) as watched:
                said = kubectl("exec", "deployment/identity-provider", "--", "python", "-c", ASK, name).split()
                status, began, took = int(said[0]), float(said[1]), float(said[2])
                assert status < 500 or name == "predict-grpc", (name, status)  # it has 502 for plain HTTP
                time.sleep(1)  # until readiness has been told
            seen = [watched.times[key] - began for key in ("pod", "user-container", "ready")]
            found[name].append([took, *seen])
    for name, rows in found.items():
        answer, pod, container, ready = (statistics.median(column) for column in zip(*rows, strict=True))
        parts = f"pod {pod:.2f}, container {container:.2f}, ready {ready:.2f}"
        print(f"{name:13} answer {answer:.2f} s (worst {max(row[0] for row in rows):.2f}): {parts}")  # noqa: T201
