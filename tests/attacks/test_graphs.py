"""Graphs that read, crash, hang or fill the process that runs them: only the tenant's own requests fail."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from attacks import mutated_graphs as hostile
from hepfaas.errors import RequestError
from hepfaas.models import inference as inference_module
from hepfaas.models import versions
from hepfaas.models.inference import INFERENCE, Graph, WorkerLostError
from hepfaas.models.versions import Version
from hepfaas.platform.roles import owner_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.serving import health_pb2 as health
from hepfaas.serving import open_inference_pb2 as inference
from support.identities import Issuer, Process, function
from support.servers import LIMIT_S

ALL = os.environ.get("HEPFAAS_CHAOS") == "all"
MUTATED = 20_000 if ALL else 150
SEED = 13
REASON = "ended|cannot be computed|cannot compute row|refused"
CACHE = {"HEPFAAS_PREDICT_CACHE_BYTES": "3e6"}
"""Graphs are dropped again, so that memory shows what remains."""

FIXTURES = Path(__file__).parents[1] / "models" / "graphs"


@dataclass
class Site:
    """`predict` and `predict-grpc`, an issuer, and the stores of two tenants: mallory attacks, alice has a model."""

    folder: Path
    issuer: Issuer
    predict: Process
    grpc: Process
    stores: dict[str, Store] = field(default_factory=dict)
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def publish(self, tenant: str, name: str, graph: bytes, features: int, outputs: int) -> None:
        card = {"n_features": features, "outputs": outputs, "foreign": "keras", "labels": [], "parameters": 0}
        store = self.stores[tenant]
        versions.publish(store, Version(name, 1), {**card, "name": name}, {versions.GRAPH: graph})

    def ask(self, tenant: str, name: str, *values: float) -> httpx.Response:
        tensor = {"name": "features", "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}
        return self.clients[tenant].post(f"/v2/models/{name}/infer", json={"inputs": [tensor]})

    def memory_mb(self) -> float:
        return sum(private_mb(process) for process in descendants(self.predict.pid))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("graphs")
    with Issuer() as issuer:
        variables = {"HEPFAAS_ISSUER": issuer.url, "HEPFAAS_AUDIENCE": "inference", **CACHE}
        with (
            function(folder, "predict", **variables) as predict,
            function(folder, "predict-grpc", **variables) as other,
        ):
            site = Site(folder, issuer, predict, other)
            for tenant in ("alice", "mallory"):
                token = issuer.token(tenant, aud="inference", exp=int(time.time()) + 5 * 3600)
                client = httpx.Client(base_url=predict.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
                site.clients[tenant] = client
                site.stores[tenant] = open_store(f"{folder}/store/{owner_of('user', issuer.url, tenant)}")
            site.publish("alice", "good", hostile.harmless(), 2, 1)
            assert site.ask("alice", "good", 1, 2).json()["outputs"][0]["data"] == [1.5]
            yield site
            for client in site.clients.values():
                client.close()


def descendants(process: int) -> list[int]:
    below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in below for one in descendants(int(child)))]


def private_mb(process: int) -> float:
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found[1]) / 1000 if found else 0.0


@contextmanager
def alice_goes_on(site: Site, least: int) -> Iterator[list[int]]:
    """Alice sends requests all the time; each answer must be right, and at least this many must arrive."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answer = site.ask("alice", "good", 1, 2)
            statuses.append(answer.status_code)
            if answer.is_success:
                assert answer.json()["outputs"][0]["data"] == [1.5]

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()
    assert len(statuses) >= least
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("name", "graph", "features", "outputs", "message"),
    [
        ("reads", hostile.reads_memory(), 1, 64, "sparse"),
        ("range", hostile.tensor_out_of_range(), 1, 1, "takes tensor 1000000"),
        ("recursive", hostile.recursive(), 2, 2, "calls itself|calls subgraph"),
        ("large", hostile.takes_memory_at_load(), 1, 1, "at most 1,073,741,824"),
        ("custom", hostile.custom(), 1, 1, "FlexPyFunc"),
        ("nothing", b"", 1, 1, "damaged"),
        ("noise", os.urandom(2_000), 1, 1, "damaged"),
    ],
)
def test_a_damaged_graph_is_refused_with_the_reason(
    site: Site, name: str, graph: bytes, features: int, outputs: int, message: str
) -> None:
    site.publish("mallory", name, graph, features, outputs)
    answer = site.ask("mallory", name, *[0.0] * features)
    assert answer.status_code == 400, answer.text
    assert re.search(message, answer.json()["error"]), answer.text
    assert name in answer.json()["error"]


def test_a_process_that_crashes_costs_its_own_requests(site: Site) -> None:
    site.publish("mallory", "crashes", hostile.endless(), 2, 2)
    with alice_goes_on(site, 10):
        for _ in range(3):
            answer = crashed(site, "crashes")
            assert answer.status_code == 400, answer.text
            assert "the process that ran its graph was ended by SIGSEGV" in answer.json()["error"]
        refused = site.ask("mallory", "crashes", 0, 0)
        assert refused.status_code == 429
        assert "ended its process 3 times within 60 s; it is refused for another" in refused.json()["error"]
    site.publish("mallory", "other", hostile.harmless(), 2, 1)
    assert site.ask("mallory", "other", 1, 2).status_code == 200


def crashed(site: Site, name: str) -> httpx.Response:
    """Request rows that are never computed; the process that tries crashes."""
    answers: list[httpx.Response] = []
    before = set(workers(site))
    asking = threading.Thread(target=lambda: answers.append(site.ask("mallory", name, 1e9, 0)))
    asking.start()
    end = time.monotonic() + LIMIT_S
    while not answers and time.monotonic() < end:
        for process in workers(site):
            if cpu_s(process) > 0.3 and (process not in before or cpu_s(process) > 1):
                os.kill(process, signal.SIGSEGV)
        time.sleep(0.05)
    asking.join()
    return answers[0]


def test_a_graph_that_does_not_end_is_ended_while_others_are_answered(site: Site) -> None:
    site.publish("mallory", "endless", hostile.endless(), 2, 2)
    assert site.ask("mallory", "endless", 0, 0).status_code == 200
    with alice_goes_on(site, 200):
        answer = site.ask("mallory", "endless", 1e9, 0)
    assert answer.status_code == 400, answer.text
    assert "did not answer for 10 s and was ended" in answer.json()["error"]
    assert site.ask("mallory", "endless", 0, 0).status_code == 200


def test_a_graph_that_takes_memory_by_request_meets_the_limit_of_its_process(site: Site) -> None:
    site.publish("mallory", "fills", hostile.takes_memory_by_request(), 1, 1)
    before = site.memory_mb()
    with alice_goes_on(site, 1):
        for size in (6e8, 9e8):  # in float32 more than a worker may have
            answer = site.ask("mallory", "fills", size)
            assert answer.status_code == 400, answer.text
            assert re.search(REASON, answer.json()["error"]), answer.text
    assert site.memory_mb() < before + 100


def test_a_row_that_fails_costs_the_rows_that_came_with_it_nothing(site: Site) -> None:
    site.publish("mallory", "embedding", (FIXTURES / "embedding.tflite").read_bytes(), 16, 1)
    answers: list[tuple[float, int]] = []

    def ask(value: float) -> None:
        answers.append((value, site.ask("mallory", "embedding", value, *[0.0] * 15).status_code))

    threads = [threading.Thread(target=ask, args=(1e6 if number % 3 == 0 else 1.0,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(1.0, 200)] * 20 + [(1e6, 400)] * 10


def test_a_damaged_graph_costs_grpc_nothing_either(site: Site) -> None:
    site.publish("mallory", "splits", hostile.too_many_splits(), 2, 1)
    token = site.issuer.token("mallory", aud="inference")
    with grpc.insecure_channel(site.grpc.url.removeprefix("http://")) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        contents = inference.Contents(fp32_contents=[1, 1])
        tensor = inference.Tensor(name="features", datatype="FP32", shape=[1, 2], contents=contents)
        request = inference.ModelInferRequest(model_name="splits", inputs=[tensor]).SerializeToString()
        with pytest.raises(grpc.RpcError) as error:
            infer(request, timeout=60, metadata=[("authorization", f"Bearer {token}")])
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "model 'splits/1' cannot" in error.value.details()
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = health.HealthCheckResponse.FromString(check(b"", timeout=60))
        assert answer.status == 1


def test_workers_have_no_secret_no_right_and_no_descriptor_but_their_own(site: Site) -> None:
    site.publish("mallory", "mine", hostile.harmless(), 2, 1)
    assert site.ask("mallory", "mine", 1, 2).status_code == 200
    server = fork_server_of(site)
    assert len(workers(site)) >= 2  # one or more for each tenant
    for process in (server, *workers(site)):
        environment = Path(f"/proc/{process}/environ").read_bytes()
        assert b"HEPFAAS" not in environment
        assert site.issuer.url.encode() not in environment
    for worker in workers(site):
        status = Path(f"/proc/{worker}/status").read_text()
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        targets = [str(link.readlink()) for link in Path(f"/proc/{worker}/fd").iterdir()]
        assert sum(target.startswith("socket:") for target in targets) == 1
        assert not [target for target in targets if not target.startswith(OWN)]


OWN = ("socket:", "/dev/null", "/memfd:hepfaas", "/proc/")
"""Descriptors of the channel, of shared memory, and of the paths of the Landlock rules."""


def workers(site: Site) -> list[int]:
    server = fork_server_of(site)
    return [process for process in descendants(server) if process != server]


def fork_server_of(site: Site) -> int:
    servers = [process for process in descendants(site.predict.pid) if is_fork_server(process)]
    return next(process for process in servers if not is_fork_server(parent(process)))


def cpu_s(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_fork_server(process: int) -> bool:
    return b"hepfaas.sandbox.fork_server" in Path(f"/proc/{process}/cmdline").read_bytes()


def test_steps_compute_graphs_in_such_a_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_module, "COMPUTE_S", 0.5)
    with INFERENCE.model(Graph(hostile.endless(), (2,), 2, "the network of model.py")) as model:
        assert model.predict(np.zeros((1, 2), dtype=np.float32)).shape == (1, 2)
        with pytest.raises(WorkerLostError, match="of model.py: the process that ran its graph did not answer"):
            model.predict(np.full((1, 2), 1e9, dtype=np.float32))
        assert model.predict(np.zeros((1, 2), dtype=np.float32)).shape == (1, 2)
    with INFERENCE.model(Graph(hostile.custom(), (1,), 1)) as model, pytest.raises(RequestError, match="FlexPyFunc"):
        model.predict(np.zeros((1, 1), dtype=np.float32))


def test_mutated_graphs_end_no_process_but_workers(site: Site) -> None:
    corpus = [path.read_bytes() for path in sorted(FIXTURES.glob("*.tflite"))]
    processes = set(descendants(site.predict.pid)[:2])
    before = site.memory_mb()
    statuses: dict[int, int] = {}
    with alice_goes_on(site, MUTATED // 10):
        for number, (_, graph) in enumerate(hostile.mutated([hostile.harmless(16), *corpus], MUTATED, SEED)):
            name = f"mutated-{number}"
            site.publish("mallory", name, graph, 16, 1)
            for values in ([0.0] * 16, [1e9, -1.0] * 8):
                status = site.ask("mallory", name, *values).status_code
                assert status in (200, 400, 429), (number, status)
                statuses[status] = statuses.get(status, 0) + 1
    assert processes <= set(descendants(site.predict.pid))
    assert site.memory_mb() < before + 100
    assert set(statuses) >= {200, 400}
