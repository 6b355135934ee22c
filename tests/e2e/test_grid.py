"""Files of a federation on a real Knative: read through the cache, and what a run makes of pods that are killed."""

import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.platform.stores import open_store
from support.deployed import Service, kubectl, pods_of, run, wait_for_zero
from support.jobs import MODEL, PARAMS, small_job
from support.servers import XRootD

CACHE, ORIGIN = "root://xrootd-cache.hepfaas.svc.cluster.local", "root://10.231.0.1"  # 1094 is the default port
"""The doors of the federation in manifests/overlays/local/sources.json; the second is this machine."""
LISTED = "root://data.hepfaas.test//store"
CLASSES = ("signal", "background")
EVENTS = 2_000
KILLED = ("survey", "prepare", "train", "score", "evaluate", "publish", "advance", "runs")
BROKER = ("eventing.knative.dev/brokerRole=ingress", "eventing.knative.dev/brokerRole=filter")
BROKER_CHANNEL = "messaging.knative.dev/role=dispatcher"


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("grid") / "grid", events=EVENTS)


@pytest.fixture(scope="module")
def embedded(folder: Path) -> str:
    """Hash of the weights that the embedded loop makes of the same files."""
    store = folder.parent / "store"
    main(["train", str(folder), "--store", str(store)])
    return str(versions.card_of(open_store(f"{store}/local"), versions.Version("grid", 1))["weights"])


@pytest.fixture(scope="module")
def job(folder: Path) -> Iterator[dict[str, Any]]:
    """The same, its files named by addresses of a federation whose origin this machine is: of no name that the cache
    has kept from an earlier time."""
    with XRootD(port=1094) as origin:
        served = [origin.serve(folder / f"{name}.root", f"{name}-{uuid.uuid4().hex}.root") for name in CLASSES]
        files = [f"{LISTED}/{url.rpartition('/')[2]}" for url in served]
        yield {"name": "grid", "files": files, "labels": [1, 0], "code": {"model.py": MODEL}, "params": PARAMS}


def bytes_given() -> Counter[str]:
    """Bytes that the cache has given since its start, from its disk and from the origin, by its own metrics."""
    text = run("kubectl", "get", "--raw", "/api/v1/namespaces/hepfaas/pods/xrootd-cache-0:9932/proxy/metrics")
    lines = [line for line in text.splitlines() if line.startswith("xrootd_cache_bytes_total{")]
    return Counter({line.split('"')[1]: int(line.split()[1]) for line in lines})


def settled() -> Counter[str]:
    """The same, once nothing is added any more: a cache tells of a file when it is closed, and every ten seconds."""
    end, given, since = time.monotonic() + 300, bytes_given(), time.monotonic()
    while time.monotonic() < since + 30:
        assert time.monotonic() < end
        time.sleep(2)
        if (now := bytes_given()) != given:
            given, since = now, time.monotonic()
    return given


def test_the_second_read_of_a_file_is_the_caches(service: Service, job: dict[str, Any], embedded: str) -> None:
    by_cache = {"open": {CACHE: 2}, "survey": {CACHE: 2 * EVENTS}, "prepare": {CACHE: 2 * EVENTS}}
    given = [settled()]
    for user in ("ada", "bob"):
        with Service(user) as one:
            row = one.completed(one.submit(job))
            assert row["served_by"] == by_cache
            assert one.weights(row) == embedded
        wait_for_zero("survey", "prepare")  # they close their files
        given.append(settled())
    first, second = given[1] - given[0], given[2] - given[1]
    print(f"first read: {dict(first)}, second: {dict(second)}")  # noqa: T201
    assert first["origin"] > 0
    assert second["disk"] >= first["origin"]
    assert second["origin"] == second["past"] == 0


def test_a_cache_killed_in_the_midst_is_left_for_the_origin(
    service: Service, job: dict[str, Any], embedded: str
) -> None:
    killed = False

    def kill() -> None:
        nonlocal killed
        row = carol.training.get(f"/v1/runs/{name}").json()
        if not killed and row.get("served_by", {}).get("survey"):
            kubectl("scale", "statefulset", "xrootd-cache", "--replicas=0")
            kubectl("delete", "pod", "xrootd-cache-0", "--grace-period=0", "--force", "--ignore-not-found")
            killed = True

    try:
        with Service("carol") as carol:
            name = carol.submit(job)
            row = carol.completed(name, kill)
            log = carol.training.get(f"/v1/runs/{name}/log").text
            assert carol.ledger_holds(name)
            assert carol.weights(row) == embedded
    finally:
        kubectl("scale", "statefulset", "xrootd-cache", "--replicas=1")
        kubectl("rollout", "status", "statefulset", "xrootd-cache", "--timeout=120s")
    assert killed
    assert row["served_by"]["prepare"].get(ORIGIN, 0) > 0, row["served_by"]
    assert all(sum(row["served_by"][kind].values()) == 2 * EVENTS for kind in ("survey", "prepare"))
    left = [line for line in log.splitlines() if "xrootd-cache" in line]
    print("\n".join(left))  # noqa: T201
    assert left


def test_a_host_that_is_not_on_the_list_is_refused_with_the_list(service: Service, job: dict[str, Any]) -> None:
    elsewhere = [f"root://elsewhere.example//store/{name}.root" for name in CLASSES]
    answer = service.training.post("/v1/runs", json={**job, "files": elsewhere})
    assert answer.status_code == 403
    assert f"{LISTED}/" in answer.json()["error"]


class Killer:
    """Kills a pod every few seconds: of what has been killed least so far, by the choice of a seed."""

    def __init__(self, seed: int) -> None:
        self._chooser, self._next = random.Random(seed), 0.0
        self.killed: Counter[str] = Counter()

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        found = [
            *((f"serving.knative.dev/service={name}", "hepfaas") for name in KILLED),
            ("app.kubernetes.io/name=xrootd-cache", "hepfaas"),
            *((label, "knative-eventing") for label in (*BROKER, BROKER_CHANNEL)),
        ]
        there = {label: (one, where) for label, where in found if (one := pods_of(label, where))}
        fewest = min(self.killed[label] for label in there)
        label = self._chooser.choice([label for label in there if self.killed[label] == fewest])
        several, where = there[label]
        pod = self._chooser.choice(several)["metadata"]["name"]
        run("kubectl", "-n", where, "delete", "pod", pod, "--grace-period=0", "--force", "--ignore-not-found")
        self.killed[label] += 1
        self._next = time.monotonic() + self._chooser.uniform(2, 6)


def test_whatever_pods_are_killed_a_run_ends_with_the_same_weights(
    service: Service, job: dict[str, Any], embedded: str
) -> None:
    """As many runs, each by another user, as it takes to kill a pod of every kind; five at most."""
    seed = int(os.environ.get("HEPFAAS_SEED", random.randrange(10_000)))
    kill = Killer(seed)
    print(f"seed {seed}")  # noqa: T201
    for number in range(5):
        with Service(f"user{number}-{seed}") as user:
            name = user.submit(job)
            row = user.completed(name, kill, patient=True)
            assert user.weights(row) == embedded
            assert user.ledger_holds(name)
        print(json.dumps(dict(kill.killed)))  # noqa: T201
        if len(kill.killed) == len(KILLED) + 1 + len(BROKER) + 1:
            return
    raise AssertionError(f"not every kind of pod was there to be killed: {dict(kill.killed)}")
