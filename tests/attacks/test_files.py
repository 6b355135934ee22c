"""Files and bodies that unpack to gigabytes, and workers that such files have taken over."""

import asyncio
import collections
import json
import re
import signal
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uproot
from attacks import hostile_workers
from hepfaas.datasets.byte_source import MemorySource
from hepfaas.datasets.event_file import EventFile
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.errors import RequestError
from hepfaas.features.jagged import unpacked
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.models import inference, versions
from hepfaas.models.inference import ConfinedModel, Graph, GraphError
from hepfaas.models.versions import Version
from hepfaas.platform import hosts
from hepfaas.platform.settings import Settings
from hepfaas.platform.stores import open_store
from hepfaas.sandbox import processes
from hepfaas.sandbox.processes import ForkServer, Memory
from hepfaas.sandbox.tasks import TaskWorker, WorkerLostError
from hepfaas.serving.app import PredictApp
from starlette.requests import Request
from support.graphs import doubling
from support.identities import Process, function
from support.servers import LIMIT_S

BOMB_BYTES, MEMORY_MB = 600_000_000, 300
"""Unpacked size of a body, and memory limit of the process that reads it."""

TESTS = Path(__file__).parents[1]


def peak_mb(process: int | str) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1000


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT file of 2 MB with one basket, whose header is correct and whose zlib stream unpacks to 600 MB."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.root"
    noise = np.random.default_rng(1).integers(0, 2**60, 250_000)
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        file.mktree("Events", {"met": "int64"}).extend({"met": noise})
    with uproot.open(path) as file:
        key = file["Events"]["met"].basket_key(0)
        start = key.fSeekKey + key.fKeylen
    packer, data = zlib.compressobj(6), bytearray(path.read_bytes())
    stream = b"".join([*(packer.compress(bytes(10_000_000)) for _ in range(BOMB_BYTES // 10_000_000)), packer.flush()])
    assert data[start : start + 2] == b"ZL"
    assert len(stream) < int.from_bytes(data[start + 3 : start + 6], "little")
    data[start + 9 : start + 9 + len(stream)] = stream
    path.write_bytes(data)
    return path


def publish(folder: Path) -> None:
    """Put a model of one branch into the store of a folder."""
    spec = FeatureSpec((FeatureBranch("met", jagged=False, low=0.0, high=1.0, width=1, type="int64"),))
    store = open_store(f"{folder}/store/local")
    card = {"name": "m", "n_features": 1, "outputs": 1, "labels": [0, 1], "recipe": {"tree": "Events"}}
    files = {versions.SPEC: json.dumps(spec.to_json()).encode(), versions.GRAPH: doubling(1)}
    versions.publish(store, Version("m", 1), card, files)


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run `predict` with a model of one branch."""
    folder = tmp_path_factory.mktemp("files")
    publish(folder)
    with function(folder, "predict", HEPFAAS_WORKER_MEMORY_MB=str(MEMORY_MB)) as process:
        yield process


def test_a_body_that_unpacks_to_gigabytes_meets_the_limit_of_its_process(predict: Process, bomb: Path) -> None:
    def ask() -> httpx.Response:
        headers = {"Content-Type": "application/x-root"}
        url = f"{predict.url}/v1/models/m/predict"
        return httpx.post(url, content=bomb.read_bytes(), headers=headers, timeout=60)

    events = httpx.post(f"{predict.url}/v1/models/m/predict", json={"events": {"met": [1, 2]}}, timeout=60)
    assert events.json()["scores"]["score"] == [2, 4]
    fronts = [*map(int, Path(f"/proc/{predict.pid}/task/{predict.pid}/children").read_text().split()), predict.pid]
    before = {process: peak_mb(process) for process in fronts}
    answer = ask()
    assert answer.status_code in (413, 422), answer.text
    assert "takes more memory to read than is available" in answer.json()["error"]
    for process in fronts:
        assert peak_mb(process) < before[process] + 150


def test_a_file_that_unpacks_to_gigabytes_fails_its_step_and_nothing_else(bomb: Path) -> None:
    reading = Reading(memory=Memory(MEMORY_MB, 2 * MEMORY_MB))
    file = opened(str(bomb), "Events", reading)
    before = peak_mb("self")
    with pytest.raises(RequestError, match="bomb.root"):
        read(str(bomb), file.identity, "Events", branches=["met"], entries=EntryRange(0, file.entries), reading=reading)
    assert peak_mb("self") < before + 60


def test_a_host_whose_name_resolves_slowly_holds_up_no_other_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    app = PredictApp(Settings(str(tmp_path / "store")))
    resolving, resolved = threading.Event(), threading.Event()

    def slow(host: str, port: int | None) -> tuple[str, ...]:
        resolving.set()
        resolved.wait(20)
        return ("127.0.0.1",)

    monkeypatch.setattr(hosts, "addresses", slow)

    def request(method: str, path: str, body: bytes) -> Request:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        return Request(scope, receive)

    async def asked() -> tuple[int, bool, int]:
        body = json.dumps({"files": ["https://slow.example/x.root"]}).encode()
        files = asyncio.create_task(app.answer(request("POST", "/v1/models/m/predict", body)))
        await asyncio.to_thread(resolving.wait, 20)
        live = await app.answer(request("GET", "/v2/health/live", b""))
        waits = not files.done()
        resolved.set()
        return live.status_code, waits, (await files).status_code

    assert asyncio.run(asked()) == (200, True, 422)


@pytest.fixture(scope="module")
def hostile_server() -> Iterator[ForkServer]:
    """Run a fork server with the programs of `hostile_workers`."""
    path = processes.ENVIRONMENT["PYTHONPATH"]
    processes.ENVIRONMENT["PYTHONPATH"] = f"{path}:{TESTS}"
    server = ForkServer()
    server.start()
    processes.ENVIRONMENT["PYTHONPATH"] = path
    yield server
    server.close()


@pytest.mark.parametrize("attack", [*hostile_workers.ANSWERS, "silence", "trickle", "callbacks without end"])
def test_answers_of_a_worker_that_was_taken_over_cost_its_own_call(hostile_server: ForkServer, attack: str) -> None:
    before = peak_mb("self")
    source = MemorySource(b"x" * 100)
    file = EventFile.__new__(EventFile)  # its worker does not answer `open`
    file.source, file._name = source, "x.root"
    with TaskWorker(hostile_server, "attacks.hostile_workers", Memory()) as worker:
        file._worker = worker
        with pytest.raises(RequestError) as error:
            worker.call("read", {"attack": attack}, back={"fetch": file._fetch}, limit_s=1)
        if attack not in ("an error that is no text", "an error of another kind"):
            assert isinstance(error.value, WorkerLostError)
            assert worker.closed
    assert len(str(error.value)) < 3_000
    assert peak_mb("self") < before + 200


@pytest.mark.parametrize(
    ("names", "flags", "arrays"),
    [
        (["a"], [False], []),
        (["a"], [True], [np.ones(3)]),
        (["a"], [False], [np.ones((2, 2))]),
        (["a"], [False], [np.ones(2, dtype=complex)]),
        (["a"], [True], [np.ones(3), np.array([-1, 4])]),
        (["a"], [True], [np.ones(3), np.array([2**62, 2**62])]),
        (["a"], [True], [np.ones(3), np.array([1, 1])]),
        (["a"], [True], [np.ones(3), np.array([1.5, 1.5])]),
        (["a", "b"], [False, False], [np.ones(3), np.ones(2)]),
        (["a", "b"], [False], [np.ones(3)]),
    ],
)
def test_arrays_of_a_worker_that_was_taken_over_are_checked(names: Any, flags: Any, arrays: Any) -> None:
    with pytest.raises(ValueError, match="branch|counts|arrays"):
        unpacked(names, flags, arrays)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_an_inference_worker_that_was_taken_over_costs_its_own_rows(
    hostile_server: ForkServer, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "WORKER", "attacks.hostile_inference")
    model = ConfinedModel(hostile_server, Graph(doubling(3), (3,), 3, "model 'x/1'"), Memory())
    features = np.ones((rows, 3), dtype=np.float32)
    if rows == 1:  # more answers than requests: at worst the scores belong to its own rows
        assert model.predict(features).shape == (1, 3)
    else:
        with pytest.raises(GraphError, match="model 'x/1'") as error:
            model.predict(features)
        assert len(str(error.value)) < 3_000
    model.close()


def test_an_inference_worker_that_reads_nothing_does_not_stop_its_function(
    hostile_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "WORKER", "attacks.hostile_inference")

    def stopped(number: int, frame: object) -> None:
        raise AssertionError("the function waits for its worker")

    before = signal.signal(signal.SIGALRM, stopped)
    signal.alarm(LIMIT_S)
    features = np.ones((5, 3), dtype=np.float32)
    model = ConfinedModel(hostile_server, Graph(doubling(3), (3,), 3, "model 'x/1'"), Memory())
    try:
        with pytest.raises(GraphError, match="model 'x/1'"):
            collections.deque((model.predict(features) for _ in range(10_000)), maxlen=0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        model.close()
