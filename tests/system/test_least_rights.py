"""All functions with the keys that they have on the cluster: a job is trained, and `predict` does all that it offers
and can write nothing else."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from hepfaas.client import Client
from hepfaas.platform.roles import owner_of
from hepfaas.platform.stores import open_store
from support.jobs import small_job, write_root
from support.rights import OWNER, GuardedSystem, store_policies
from support.servers import LIMIT_S, XRootD, free_port, is_open, s3_client, wait_until

pytestmark = pytest.mark.slow

GROUP = owner_of("group", "https://issuer.example", "/cms/mlaas")
UNREADABLE = owner_of("user", "https://issuer.example", "名")
EVENTS = 1_200
NET = """
import sys, keras
net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
net.save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedSystem]:
    with GuardedSystem(tmp_path_factory.mktemp("deployed"), HEPFAAS_PREDICT_STREAM_EVENTS="1000") as started:
        yield started


@pytest.fixture(scope="module")
def http(deployed: GuardedSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    job = small_job(tmp_path_factory.mktemp("job") / "job")
    with Client(deployed.url) as service:
        for _ in range(2):
            assert service.wait(service.submit(job, name="job"), timeout_s=300).state == "completed"
            (job / "params.json").write_text(json.dumps({**json.loads((job / "params.json").read_text()), "epochs": 1}))
    port = free_port()
    process = deployed.predict(port)
    try:
        wait_until(lambda: is_open(port), process, "predict")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client:
            yield client
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=LIMIT_S)


def completed(deployed: GuardedSystem, run: str) -> None:
    end = time.monotonic() + 300
    while (ended := deployed.end_of(run, OWNER)) is None:
        assert time.monotonic() < end, f"run '{run}' has not ended"
        time.sleep(0.2)
    assert ended.state == "completed", ended.error


def test_a_long_prediction_and_one_that_is_asked_for_become_runs(
    deployed: GuardedSystem, http: httpx.Client, xrootd: XRootD, tmp_path: Path
) -> None:
    write_root(tmp_path / "rights.root", 5, 0.5, EVENTS)
    url = xrootd.serve(tmp_path / "rights.root")
    for headers in ({}, {"Prefer": "respond-async"}, {"Idempotency-Key": "once"}):
        entries = {"entries": [0, 100]} if "Prefer" in headers else {}
        answer = http.post("/v1/models/job/predict", json={"files": [url], **entries}, headers=headers)
        assert answer.status_code == 202, answer.text
        completed(deployed, answer.json()["run"])


def test_a_model_from_elsewhere_is_taken(http: httpx.Client, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", NET, str(tmp_path / "net.keras")], check=True, capture_output=True, timeout=200
    )
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(tmp_path / "net.keras", "net/net.keras")
    headers = {"Content-Type": "application/octet-stream"}
    answer = http.post("/upload", content=packed.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert len(http.post("/json", json={"model": "net", "values": [1, 2, 3]}).json()) == 1


def test_aliases_defaults_and_deletions(http: httpx.Client) -> None:
    for number in (1, 2, 1):
        moved = http.put("/v1/models/job/aliases/best", json={"version": number})
        assert moved.json() == {"aliases": {"best": number}}
    assert http.delete("/v1/models/job/aliases/best").status_code == 204
    assert http.post("/params", json={"name": "job"}).status_code == 200
    assert http.delete("/v1/models/job/versions/2").status_code == 204
    assert http.delete("/delete/job").status_code == 200
    assert http.get("/v2/models/job").status_code == 404


@pytest.mark.parametrize("owner", [OWNER, GROUP, UNREADABLE])
def test_its_key_writes_where_it_must_and_nowhere_else(deployed: GuardedSystem, owner: str) -> None:
    client = s3_client(deployed.guarded.as_("predict"))
    root = open_store(deployed.up.store.url)

    def is_written(key: str) -> bool:
        try:
            client.put_object(Bucket="hepfaas", Key=key, Body=b"x", IfNoneMatch="*")
        except client.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in ("AccessDenied", "PreconditionFailed"):
                raise
            return bool(code == "PreconditionFailed")  # what an earlier test has written is there, and could be
        root.delete(key)
        return True

    assert [key for key in wanted(owner) if not is_written(key)] == []
    assert [key for key in others(owner) if is_written(key)] == []


def wanted(owner: str) -> list[str]:
    """Keys that `predict` writes."""
    mine = ("models/m/aliases/best/7", "models/m/3/deleted", "default/1", "uploads/ab/model.pb", "asked/m-scores-1")
    return [f"asked/{owner}/m-scores-1", *(f"{owner}/{key}" for key in mine)]


def others(owner: str) -> list[str]:
    """Keys that functions read or list and `predict` does not write, with names that a policy might take for others."""
    named = ("models", "default", "uploads", "asked")
    mine = [
        f"steps/train/{'0' * 64}",
        "runs/m-1/request.json",
        "runs/m-1/attempts/1/end.json",
        "newest/1-m-1",
        "blobs/ab",
        *(f"{room}/{name}/1.json" for room in ("rules", "folders", "credentials", "idempotency") for name in named),
        *(f"steps/train/{name}/zz" for name in named),
        *(f"runs/{name}/request.json" for name in named),
    ]
    roots = ("active", "deleted", "waiting", "probe")
    return [
        *(f"{room}/{owner}/{name}" for room in roots for name in ("m-1", *named)),
        *(f"{owner}/{key}" for key in mine),
    ]


def patterns_of_aws() -> dict[str, list[str]]:
    """Patterns of keys by action, in the policy of `predict`."""
    found: dict[str, list[str]] = {}
    for statement in store_policies().aws("predict", "hepfaas")["Statement"]:
        for action in statement["Action"]:
            found[action] = [one.removeprefix("arn:aws:s3:::hepfaas/") for one in statement["Resource"]]
    return found


@pytest.mark.parametrize("owner", [OWNER, GROUP, UNREADABLE])
def test_the_policy_of_aws_lets_it_write_no_more(owner: str) -> None:
    """`*` and `?` of AWS are those of fnmatch: any characters, `/` among them, and one."""
    patterns = patterns_of_aws()

    def may(action: str, key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in patterns[action])

    assert [key for key in wanted(owner) if not may("s3:PutObject", key)] == []
    files = [f"{owner}/models/m/3/{file}" for file in ("card.json", "model.tflite", "claim")]
    assert [key for key in (*others(owner), *files) if may("s3:PutObject", key)] == []
    assert [
        key for key in (*others(owner), *wanted(owner)) if may("s3:DeleteObject", key) and "/models/m/" not in key
    ] == []
    assert all(may("s3:DeleteObject", key) for key in files)
