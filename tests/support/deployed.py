"""The service deployed on a real Knative: requests to it, its pods, and changes of it."""

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

TOP = Path(__file__).parents[2]
CLUSTER = TOP / "tests" / "cluster" / "cluster"
SLOW_S = 1_800
PORTS = {"training": 30080, "inference": 30081}
STEPS = ("survey", "prepare", "train", "score", "apply", "evaluate", "publish")
FUNCTIONS = (*STEPS, "advance", "runs", "intake", "predict", "predict-grpc")


def run(*command: str, **options: Any) -> str:
    """Return the output of a command; fail with its error output if it fails."""
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=SLOW_S, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def kubectl(*words: str) -> str:
    return run("kubectl", "--namespace", "hepfaas", *words)


def kn_update(function: str, *words: str) -> None:
    """Create a new revision of a function."""
    run("kn", "service", "update", function, "--namespace", "hepfaas", *words)


class Service:
    """A user's clients of the deployed service, as a context manager."""

    def __init__(self, user: str = "alice") -> None:
        path = "{.items[0].status.addresses[?(@.type=='InternalIP')].address}"
        self._node, self._user = run("kubectl", "get", "node", "-o", f"jsonpath={path}"), user
        self.training, self.inference = (self._client(api) for api in PORTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.training.close()
        self.inference.close()

    def _client(self, api: str) -> httpx.Client:
        token = run("tests/e2e/token", f"hepfaas-{api}", self._user).strip()
        url, headers = f"http://{self._node}:{PORTS[api]}", {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)

    def submit(self, job: Path | dict[str, Any]) -> str:
        """Submit a folder or a JSON job; return the run's name."""
        if isinstance(job, dict):
            answer = self.training.post("/v1/runs", json=job)
        else:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(job, ".")
            headers = {"Content-Type": "application/gzip"}
            query = {"name": job.name}
            answer = self.training.post("/v1/runs", params=query, content=packed.getvalue(), headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])

    def completed(
        self, name: str, meanwhile: Callable[[], None] = lambda: None, patient: bool = False
    ) -> dict[str, Any]:
        """Follow a run until it is completed and return its status. patient: go on after a 5xx answer."""
        end = time.monotonic() + SLOW_S
        while time.monotonic() < end:
            meanwhile()
            answer = self.training.get(f"/v1/runs/{name}")
            if not (patient and answer.status_code >= 500):
                status: dict[str, Any] = answer.raise_for_status().json()
                if status["state"] in ("completed", "failed", "cancelled"):
                    assert status["state"] == "completed", status
                    return status
            time.sleep(1)
        raise AssertionError(f"run {name} did not end in {SLOW_S} s")

    def weights(self, status: dict[str, Any]) -> str:
        """Return the hash of the weights of the model that a run published."""
        answer = self.training.get(f"/v1/models/{status['model']}/card.json").raise_for_status()
        return str(answer.json()["weights"])

    def ledger_holds(self, name: str) -> bool:
        """Return whether the ledger of a run counts every event of every phase once."""
        return bool(self.training.get(f"/v1/runs/{name}/ledger").raise_for_status().json()["holds"])


def pods_of(selector: str, namespace: str = "hepfaas") -> list[dict[str, Any]]:
    """Return the pods with these labels, without those that terminate."""
    listed = json.loads(run("kubectl", "--namespace", namespace, "get", "pods", "-l", selector, "-o", "json"))
    return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]


def n_pods(function: str) -> int:
    """Return the number of pods of a function."""
    return len(pods_of(f"serving.knative.dev/service={function}"))


def wait_for_zero(*functions: str) -> None:
    end = time.monotonic() + 600
    while running := [function for function in functions if n_pods(function)]:
        assert time.monotonic() < end, f"after 600 s there are still pods of {running}"
        time.sleep(2)
