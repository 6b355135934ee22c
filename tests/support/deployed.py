"""The service deployed on a real Knative: how tests reach it, look at its pods, and change it."""

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
    """What a command says. Fails with what it complained of."""
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=SLOW_S, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def kubectl(*words: str) -> str:
    return run("kubectl", "--namespace", "hepfaas", *words)


def kn_update(function: str, *words: str) -> None:
    """A new revision of a function."""
    run("kn", "service", "update", function, "--namespace", "hepfaas", *words)


class Service:
    """The deployed service, as one of its users meets it, while the `with` lasts."""

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
        """Submits a folder, or what is said in JSON."""
        if isinstance(job, dict):
            answer = self.training.post("/v1/runs", json=job)
        else:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(job, ".")
            headers = {"Content-Type": "application/gzip"}
            named = {"name": job.name}
            answer = self.training.post("/v1/runs", params=named, content=packed.getvalue(), headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])

    def completed(
        self, name: str, meanwhile: Callable[[], None] = lambda: None, patient: bool = False
    ) -> dict[str, Any]:
        """Follows a run to its end, which must be a good one. patient: asks again where the service was away."""
        end = time.monotonic() + SLOW_S
        while time.monotonic() < end:
            meanwhile()
            answer = self.training.get(f"/v1/runs/{name}")
            if not (patient and answer.status_code >= 500):
                row: dict[str, Any] = answer.raise_for_status().json()
                if row["state"] in ("completed", "failed", "cancelled"):
                    assert row["state"] == "completed", row
                    return row
            time.sleep(1)
        raise AssertionError(f"run {name} did not end in {SLOW_S} s")

    def weights(self, row: dict[str, Any]) -> str:
        """Hash of the weights of the model that a run published."""
        answer = self.training.get(f"/v1/models/{row['model']}/card.json").raise_for_status()
        return str(answer.json()["weights"])

    def holds(self, name: str) -> bool:
        """Whether the ledger of a run counts every event of every phase once."""
        return bool(self.training.get(f"/v1/runs/{name}/ledger").raise_for_status().json()["holds"])


def pods_of(selector: str, namespace: str = "hepfaas") -> list[dict[str, Any]]:
    """Pods of these labels, those that end not counted."""
    found = json.loads(run("kubectl", "--namespace", namespace, "get", "pods", "-l", selector, "-o", "json"))
    return [one for one in found["items"] if "deletionTimestamp" not in one["metadata"]]


def pods(function: str) -> int:
    """How many pods of a function there are."""
    return len(pods_of(f"serving.knative.dev/service={function}"))


def wait_for_zero(*functions: str) -> None:
    end = time.monotonic() + 600
    while any(pods(one) for one in functions):
        assert time.monotonic() < end, f"after 600 s there are pods of {[one for one in functions if pods(one)]}"
        time.sleep(2)
