"""One tenant uses up memory, workers, threads and descriptors of `predict`; others still get answers."""

import asyncio
import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from attacks import mutated_graphs as hostile
from hepfaas.models import versions
from hepfaas.models.served import Loaded, Served
from hepfaas.models.versions import Version
from hepfaas.platform.folder import FolderStore
from hepfaas.platform.roles import owner_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from support.identities import Issuer, Process, function
from support.servers import LIMIT_S

MB = 1_000_000
WAITING = {"HEPFAAS_PREDICT_WAITING_BYTES": str(64 * MB), "HEPFAAS_PREDICT_BODY_BYTES": str(8 * MB)}
INFER = "/v2/models/{}/infer"


DESCRIPTORS = 400
"""Descriptors that `predict` may open."""


@dataclass
class Site:
    """`predict` and the stores of two tenants, each with a model 'good'; mallory attacks."""

    predict: Process
    stores: dict[str, Store] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def publish(self, tenant: str, name: str, graph: bytes, features: int = 2, outputs: int = 1) -> None:
        card = {"n_features": features, "outputs": outputs, "foreign": "keras", "labels": [], "parameters": 0}
        versions.publish(self.stores[tenant], Version(name, 1), {**card, "name": name}, {versions.GRAPH: graph})

    def ask(self, tenant: str, name: str = "good", rows: int = 1, features: int = 2) -> httpx.Response:
        head, body = binary(rows, features)
        headers = {"Authorization": f"Bearer {self.tokens[tenant]}", "Inference-Header-Content-Length": str(head)}
        return httpx.post(f"{self.predict.url}{INFER.format(name)}", content=body, headers=headers, timeout=LIMIT_S)

    def begun(self, tenant: str, name: str, body: bytes, head: int, size: int) -> socket.socket:
        """Open a connection and send a request with the first bytes of a body of this length."""
        connection = socket.create_connection(("127.0.0.1", int(self.predict.url.rpartition(":")[2])), LIMIT_S)
        connection.sendall(
            f"POST {INFER.format(name)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.tokens[tenant]}\r\n"
            f"Inference-Header-Content-Length: {head}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        connection.sendall(body)
        return connection


def binary(rows: int, features: int) -> tuple[int, bytes]:
    """Return the length of the JSON of a request for rows of zeros, and its body."""
    size = 4 * rows * features
    tensor = {"name": "features", "shape": [rows, features], "datatype": "FP32"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    return len(head), head + bytes(size)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("shares")
    with Issuer() as issuer:
        variables = {"HEPFAAS_ISSUER": issuer.url, "HEPFAAS_AUDIENCE": "inference", **WAITING}
        with function(folder, "predict", **variables) as predict:
            site = Site(predict)
            for tenant in ("alice", "mallory"):
                site.tokens[tenant] = issuer.token(tenant, aud="inference", exp=int(time.time()) + 3600)
                site.stores[tenant] = open_store(f"{folder}/store/{owner_of('user', issuer.url, tenant)}")
                site.publish(tenant, "good", hostile.harmless())
                assert site.ask(tenant).status_code == 200
            yield site


def wait_for(site: Site, status: int, tenant: str, name: str, rows: int, features: int = 2) -> None:
    """Send requests until the answer has this status."""
    end = time.monotonic() + LIMIT_S
    while (answer := site.ask(tenant, name, rows, features)).status_code != status:
        assert time.monotonic() < end, answer.text[:300]
        time.sleep(0.05)


def test_bodies_that_never_end_keep_no_other_owner_out(site: Site) -> None:
    with ExitStack() as open_ones:
        for _ in range(8):
            open_ones.enter_context(site.begun("mallory", "good", bytes(8 * MB - 50_000), 100, 8 * MB))
        wait_for(site, 429, "mallory", "good", 400_000)
        for _ in range(3):
            assert site.ask("alice", rows=100_000).status_code == 200
    wait_for(site, 200, "mallory", "good", 400_000)


def test_scores_that_would_fill_the_memory_are_refused_before_they_are_computed(site: Site) -> None:
    site.publish("mallory", "wide", hostile.harmless(1, 100_000), 1, 100_000)
    answer = site.ask("mallory", "wide", rows=50_000, features=1)  # 200 kB would become 20 GB
    assert answer.status_code == 413, answer.text
    assert "50,000 events with 100,000 scores each take 80,000,000,000 bytes as an answer" in answer.json()["error"]
    assert site.ask("mallory", "wide", rows=2, features=1).status_code == 200


def test_an_answer_that_nobody_reads_counts_until_its_client_goes(site: Site) -> None:
    site.publish("mallory", "wide-too", hostile.harmless(1, 100_000), 1, 100_000)
    head, body = binary(24, 1)
    with site.begun("mallory", "wide-too", body, head, len(body)) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        wait_for(site, 429, "mallory", "wide-too", 24, 1)
        assert site.ask("mallory", "wide-too", 24, 1).status_code == 429
        assert site.ask("alice", rows=100_000).status_code == 200
    wait_for(site, 200, "mallory", "wide-too", 24, 1)


@pytest.mark.slow
def test_small_models_do_not_take_all_descriptors(site: Site) -> None:
    servers = [one for one in psutil.Process(site.predict.pid).children() if "functions_framework" in one.cmdline()]
    for one in servers:
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    graph = hostile.harmless()
    for number in range(DESCRIPTORS - 50):
        site.publish("mallory", f"small-{number}", graph)
        assert site.ask("mallory", f"small-{number}").status_code == 200
    assert site.ask("alice").status_code == 200


def test_models_that_are_loaded_at_once_do_not_add_up_in_memory(store: Store) -> None:
    reading: list[int] = []

    class Slow(FolderStore):
        """Records how many graphs are read at a time."""

        def get(self, key: str) -> bytes:
            if not key.endswith(versions.GRAPH):
                return super().get(key)
            reading.append(1)
            time.sleep(0.05)
            most.append(len(reading))
            reading.pop()
            return super().get(key)

    most: list[int] = []

    async def work() -> None:
        loaded = Loaded(250, warm)
        slow = Slow(Path(store.url))
        await asyncio.gather(*(loaded.get(slow, name) for name in "abcdef"))
        assert max(most) == 1
        assert loaded.size_bytes <= 250

    asyncio.run(work())


def test_an_owner_with_many_models_drops_no_models_of_others(store: Store) -> None:
    async def work() -> None:
        loaded = Loaded(250, warm)
        mine = await loaded.get(store.below("alice"), "a")
        for name in "abcdef":
            await loaded.get(store, name)
        assert loaded.now(store.below("alice"), "a") is mine

    asyncio.run(work())


async def warm(served: Served) -> None:
    """The outputs of these versions do not matter here."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return the store of an owner with six models of 100 bytes, and below it alice's store with one."""
    store = open_store(str(tmp_path))
    for owner, names in ((store, "abcdef"), (store.below("alice"), "a")):
        for name in names:
            card = {"name": name, "n_features": 1, "outputs": 1, "foreign": "keras"}
            versions.publish(owner, Version(name, 1), card, {versions.GRAPH: b"x" * 100})
    return store
