"""The whole service on a real Knative: its scale, its upgrades: `make e2e`."""

import json
import threading
import time
from pathlib import Path

from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.platform.stores import open_store
from support.deployed import STEPS, Service, kn_update, kubectl, n_pods, run, wait_for_zero
from support.jobs import small_job


def test_a_run_scales_from_zero_to_several_and_back_and_gives_the_weights_of_the_embedded_loop(
    service: Service, tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", events=2_000)
    main(["train", str(folder), "--store", str(tmp_path / "store")])
    embedded = versions.card_of(open_store(f"{tmp_path}/store/local"), versions.Version("job", 1))["weights"]
    wait_for_zero(*STEPS)
    seen: list[int] = []
    name = service.submit(folder)
    row = service.completed(name, lambda: seen.append(n_pods("prepare")))
    assert service.weights(row) == embedded
    assert max(seen) > 1
    assert service.ledger_holds(name)
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
    asked = {"events": [{"met": 1.0, "nlep_pt": 1, "lep_pt": [30.0], "event": 1}]}
    statuses: list[int] = []
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            statuses.append(service.inference.post("/v1/models/load/predict", json=asked).status_code)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for one in askers:
        one.start()
    old = kubectl("get", "ksvc", "predict", "-o", "jsonpath={.status.latestReadyRevisionName}")
    kn_update("predict", "--env", "HEPFAAS_PREDICT_RATE=100000", "--traffic", f"{old}=100")
    for share in (10, 50, 100):
        rest = ("--traffic", f"{old}={100 - share}") if share < 100 else ()
        kn_update("predict", "--traffic", f"@latest={share}", *rest)
        time.sleep(5)
    stopped.set()
    for one in askers:
        one.join(timeout=120)
    print(f"{len(statuses)} requests while the traffic moved")  # noqa: T201
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_new_versions_of_all_while_a_run_is_in_flight(service: Service, tmp_path: Path) -> None:
    name = service.submit(small_job(tmp_path / "upgrade", events=2_000))
    for function in (*STEPS, "advance"):
        kn_update(function, "--no-wait", "--env", f"UPGRADED={time.time()}")
    row = service.completed(name)
    assert service.ledger_holds(name)
    assert row["model"].startswith("upgrade/")
    run("make", "deploy", "SITE=local")
