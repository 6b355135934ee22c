"""The whole service on a real Knative, which ../shared/cluster makes on this machine: `make e2e`."""

import io
import json
import os
import statistics
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.platform.storage import open_store
from jobs import small_job

TOP = Path(__file__).parents[2]
CLUSTER = TOP.parent / "shared/cluster/cluster"
SLOW_S = 1_800
STEPS = ("survey", "prepare", "train", "score", "apply", "evaluate", "publish", "advance")

pytestmark = pytest.mark.timeout(SLOW_S)


def run(*command: str, **options: Any) -> str:
    """What a command says. Fails with what it complained of."""
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=SLOW_S, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def kubectl(*words: str) -> str:
    return run("kubectl", "--namespace", "hepfaas", *words)


class Service:
    """The deployed service, as alice meets it."""

    def __init__(self) -> None:
        path = "{.items[0].status.addresses[?(@.type=='InternalIP')].address}"
        node = run("kubectl", "get", "node", "-o", f"jsonpath={path}")
        self.training = self._client(f"http://{node}:30080", "hepfaas-training")
        self.inference = self._client(f"http://{node}:30081", "hepfaas-inference")

    @staticmethod
    def _client(url: str, audience: str) -> httpx.Client:
        token = run("tests/e2e/token", audience).strip()
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120, trust_env=False)

    def submit(self, folder: Path) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder, ".")
        answer = self.training.post("/v1/runs", content=packed.getvalue(), headers={"Content-Type": "application/gzip"})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])

    def completed(self, name: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Follows a run to its end, which must be a good one."""
        end = time.monotonic() + SLOW_S
        while time.monotonic() < end:
            meanwhile()
            row: dict[str, Any] = self.training.get(f"/v1/runs/{name}").raise_for_status().json()
            if row["state"] in ("completed", "failed", "cancelled"):
                assert row["state"] == "completed", row
                return row
            time.sleep(1)
        raise AssertionError(f"run {name} did not end in {SLOW_S} s")

    def weights(self, row: dict[str, Any]) -> str:
        """Hash of the weights of the model that a run published."""
        answer = self.training.get(f"/v1/models/{row['model']}/card.json").raise_for_status()
        return str(answer.json()["weights"])


def pods(function: str) -> int:
    """How many pods of a function there are, those that end not counted."""
    found = json.loads(kubectl("get", "pods", "-l", f"serving.knative.dev/service={function}", "-o", "json"))
    return sum("deletionTimestamp" not in one["metadata"] for one in found["items"])


def wait_for_zero(*functions: str) -> None:
    end = time.monotonic() + 600
    while any(pods(one) for one in functions):
        assert time.monotonic() < end, f"after 600 s there are pods of {[one for one in functions if pods(one)]}"
        time.sleep(2)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """On a cluster that is there, or is started here and stopped at the end."""
    if os.environ.get("HEPFAAS_E2E") != "1":
        pytest.skip("half an hour on a real Knative: make e2e")
    if not CLUSTER.exists():
        pytest.skip(f"no {CLUSTER}: it makes a Knative on one machine")
    variables = {one.partition("=")[0]: one.partition("=")[2] for one in run(str(CLUSTER), "env").split() if "=" in one}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", variables["KUBECONFIG"])
        patch.setenv("PATH", variables["PATH"].replace("$PATH", os.environ["PATH"]))
        was_up = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True).returncode == 0
        run("tests/e2e/cluster-up")
        try:
            run("make", "deploy", "SITE=local")
            kubectl("wait", "--for=condition=Available", "--timeout=300s", "deployment", "--all")
            yield Service()
        finally:
            if not was_up:
                run(str(CLUSTER), "down")


def test_a_run_scales_from_zero_to_several_and_back_and_gives_the_weights_of_the_embedded_loop(
    service: Service, tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", events=2_000)
    main(["train", str(folder), "--store", str(tmp_path / "store")])
    embedded = versions.card_of(open_store(f"{tmp_path}/store/local"), versions.Version("job", 1))["weights"]
    wait_for_zero(*STEPS)
    seen: list[int] = []
    name = service.submit(folder)
    row = service.completed(name, lambda: seen.append(pods("prepare")))
    assert service.weights(row) == embedded
    assert max(seen) > 1
    assert service.training.get(f"/v1/runs/{name}/ledger").raise_for_status().json()["holds"]
    wait_for_zero(*STEPS)


def test_applying_twice_changes_nothing(service: Service) -> None:
    def versions_of_all() -> dict[str, str]:
        kinds = "ksvc,broker,trigger,pingsource,deployment,statefulset,configmap,secret,serviceaccount,networkpolicy"
        found = json.loads(kubectl("get", kinds, "-l", "app.kubernetes.io/part-of=hepfaas", "-o", "json"))
        return {
            f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get("generation", 0) for one in found["items"]
        }

    before = versions_of_all()
    run("make", "deploy", "SITE=local")
    assert versions_of_all() == before
    assert len(before) > 50


def test_a_new_revision_of_predict_under_load_fails_no_request(service: Service, tmp_path: Path) -> None:
    service.completed(service.submit(small_job(tmp_path / "load")))
    asked = {"events": [{"met": 1.0, "lep_pt": [30.0], "event": 1}]}
    statuses: list[int] = []
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            statuses.append(service.inference.post("/v1/models/load/predict", json=asked).status_code)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for one in askers:
        one.start()
    old = kubectl("get", "ksvc", "predict", "-o", "jsonpath={.status.latestReadyRevisionName}")
    kn = ("kn", "service", "update", "predict", "--namespace", "hepfaas")
    run(*kn, "--env", "HEPFAAS_PREDICT_RATE=100000", "--traffic", f"{old}=100")
    for share in (10, 50, 100):
        run(*kn, "--traffic", f"@latest={share}", *(("--traffic", f"{old}={100 - share}") if share < 100 else ()))
        time.sleep(5)
    stopped.set()
    for one in askers:
        one.join(timeout=120)
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_new_versions_of_all_while_a_run_is_in_flight(service: Service, tmp_path: Path) -> None:
    name = service.submit(small_job(tmp_path / "upgrade", events=2_000))
    for function in STEPS:
        run(
            "kn",
            "service",
            "update",
            function,
            "--namespace",
            "hepfaas",
            "--no-wait",
            "--env",
            f"UPGRADED={time.time()}",
        )
    row = service.completed(name)
    assert service.training.get(f"/v1/runs/{name}/ledger").raise_for_status().json()["holds"]
    assert row["model"].startswith("upgrade/")
    run("make", "deploy", "SITE=local")


@pytest.mark.parametrize("function", ["runs", "predict"])
def test_a_cold_start_takes_seconds(service: Service, function: str) -> None:
    """From the request at zero to the answer, through proxy, gateway and activator; ten times, two minutes each."""
    client, path = (service.training, "/v1/runs") if function == "runs" else (service.inference, "/v1/models")
    seconds = []
    for _ in range(10):
        wait_for_zero(function)
        began = time.monotonic()
        assert client.get(path).status_code == 200
        seconds.append(time.monotonic() - began)
    print(f"{function}: p50 {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s")  # noqa: T201
    assert statistics.median(seconds) < 5
