"""Rows of many requests are computed together, each gets its own, and a failure costs nobody else anything."""

import asyncio
import gc
import os
import signal
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import UnavailableError
from hepfaas.models import batching as module
from hepfaas.models.batching import Batching, OverloadedError, RefusedError
from hepfaas.models.inference import ROWS, Graph, GraphError, Inference, WorkerLostError
from hepfaas.sandbox.processes import ForkServer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.graphs import doubling, picking

LONG = 60.0
OUT_OF_RANGE = 9


@dataclass(eq=False)
class Model:
    graph: Graph
    owner: str = "one"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def model() -> Model:
    return Model(Graph(doubling(3), (3,), 3))


def rows(count: int, value: float = 1.0) -> NDArray[np.float32]:
    return np.full((count, 3), value, dtype=np.float32)


def later(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def within(server: ForkServer, work: Callable[[Batching], Awaitable[Any]], **limits: Any) -> Any:
    """Return what the work gives, done with a `Batching` that is closed again."""
    usual = {"workers": 1, "most_workers": 8, "most_bytes": 1_000_000, "cache_bytes": 1_000_000, "most_s": LONG}

    async def done() -> Any:
        batching = Batching(Inference(server=lambda: server), **{**usual, **limits})
        try:
            return await asyncio.wait_for(work(batching), LONG)
        finally:
            batching.close()

    return asyncio.run(done())


def worker_processes(server: ForkServer) -> list[int]:
    process = server._process
    assert process
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=20), st.integers(1, 3))
def test_each_request_gets_its_own_rows(server: ForkServer, sizes: list[int], workers: int) -> None:
    batches: list[int] = []
    model = Model(Graph(doubling(3), (3,), 3))

    async def work(batching: Batching) -> list[NDArray[np.float32]]:
        batching.computed = batches.append
        asked = (batching.predict(model, rows(size, number), later()) for number, size in enumerate(sizes))
        return await asyncio.gather(*asked)

    answers = within(server, work, workers=workers, most_bytes=10_000_000)
    for number, (size, scores) in enumerate(zip(sizes, answers, strict=True)):
        assert np.array_equal(scores, rows(size, 2 * number))
    assert sum(batches) == sum(sizes)
    assert max(batches) <= ROWS


def test_requests_that_queue_up_form_one_batch_and_a_lone_one_does_not_wait(server: ForkServer, model: Model) -> None:
    batches: list[int] = []

    async def work(batching: Batching) -> None:
        await batching.load(model, later())
        batching.computed = batches.append
        await asyncio.gather(*(batching.predict(model, rows(2), later()) for _ in range(11)))
        await batching.predict(model, rows(3), later())

    within(server, work)
    assert batches == [2, 20, 3]


def test_bytes_that_wait_are_bounded_and_one_owner_has_half(server: ForkServer, model: Model) -> None:
    other = Model(Graph(doubling(3), (3,), 3), "other")

    async def work(batching: Batching) -> None:
        first = [batching.predict(one, rows(1), later()) for one in (model, other)]  # computed at once
        waiting = batching.predict(model, rows(40), later())
        with pytest.raises(OverloadedError, match="480 bytes of features wait already"):
            batching.predict(model, rows(40), later())
        others = batching.predict(other, rows(40), later())
        with pytest.raises(OverloadedError, match="960 bytes"):
            batching.predict(other, rows(5), later())
        await asyncio.gather(*first, waiting, others)
        assert batching.waiting_bytes == 0

    within(server, work, most_bytes=1_000)


def test_an_owner_whose_work_would_wait_too_long_is_refused(server: ForkServer, model: Model) -> None:
    async def work(batching: Batching) -> None:
        await batching.predict(model, rows(1), later())  # from now on its speed is known
        first = batching.predict(model, rows(1), later())
        second = batching.predict(model, rows(1), later())
        with pytest.raises(OverloadedError, match="s waits already"):
            batching.predict(model, rows(1), later())
        await asyncio.gather(first, second)
        assert batching.waiting_s == 0

    within(server, work, most_s=1e-9)


def test_a_request_past_its_deadline_is_not_computed(server: ForkServer, model: Model) -> None:
    batches: list[int] = []

    async def work(batching: Batching) -> None:
        await batching.load(model, later())
        batching.computed = batches.append
        first = batching.predict(model, rows(1), later())
        late = batching.predict(model, rows(5), later(-1))
        gone = batching.predict(model, rows(7), later())
        gone.cancel()
        await first
        with pytest.raises(UnavailableError, match="waited past its deadline"):
            await late

    within(server, work)
    assert batches == [1]


def test_a_row_that_fails_costs_the_other_requests_of_its_batch_nothing(server: ForkServer) -> None:
    model = Model(Graph(picking(1, [5, 6, 7]), (1,), 1, "model 'x/1'"))

    def row(value: float) -> NDArray[np.float32]:
        return np.full((1, 1), value, dtype=np.float32)

    async def work(batching: Batching) -> list[Any]:
        values = [0, 1, OUT_OF_RANGE, 2, OUT_OF_RANGE, 1]
        asked = [batching.predict(model, row(value), later()) for value in values]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = within(server, work)
    for number, score in ((0, 5), (1, 6), (3, 7), (5, 6)):
        assert answers[number] == score
    for number in (2, 4):
        assert isinstance(answers[number], GraphError)
        assert str(answers[number]).startswith(
            "model 'x/1' cannot compute row 0, counted from 0: operation GATHER: gather index out of bounds; a feature "
            "lies outside of the range that an Embedding"
        )


def test_the_row_that_fails_is_named_however_the_rows_are_cut(server: ForkServer) -> None:
    model = Model(Graph(picking(1, [5, 6, 7]), (1,), 1, "model 'x/1'"))
    features = np.zeros((3 * ROWS, 1), dtype=np.float32)
    features[[ROWS + 17, 2 * ROWS + 1]] = OUT_OF_RANGE

    async def work(batching: Batching) -> list[Any]:
        return await asyncio.gather(
            batching.predict(model, features, later()), batching.predict(model, features[:5], later()),
            return_exceptions=True,
        )  # fmt: skip

    failed, good = within(server, work)
    assert isinstance(failed, GraphError)
    with Inference(server=lambda: server).model(model.graph) as alone, pytest.raises(GraphError) as caught:
        alone.predict(features)
    for error in (failed, caught.value):
        assert f"cannot compute row {ROWS + 17:,}, counted from 0" in str(error)
    np.testing.assert_array_equal(good, np.full((5, 1), 5))


def test_a_worker_that_is_killed_is_replaced_and_its_model_is_refused_after_three(
    server: ForkServer, model: Model
) -> None:
    other = Model(Graph(doubling(3), (3,), 3), "other")

    async def work(batching: Batching) -> None:
        await batching.load(other, later())
        (others,) = worker_processes(server)
        for _ in range(3):
            await batching.load(model, later())
            (process,) = set(worker_processes(server)) - {others}
            os.kill(process, signal.SIGSTOP)
            lost = batching.predict(model, rows(1), later())
            os.kill(process, signal.SIGKILL)
            with pytest.raises(WorkerLostError, match="was ended by SIGKILL"):
                await lost
        with pytest.raises(RefusedError, match="ended its process 3 times within 60 s; it is refused for another 60 s"):
            await batching.predict(model, rows(1), later())
        assert np.array_equal(await batching.predict(other, rows(1), later()), rows(1, 2))

    within(server, work)


def test_a_worker_that_hangs_is_ended_and_others_are_computed_meanwhile(
    server: ForkServer, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPUTE_S", 0.1)
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    other = Model(Graph(doubling(3), (3,), 3), "other")

    async def work(batching: Batching) -> None:
        await batching.load(model, later())
        (process,) = worker_processes(server)
        os.kill(process, signal.SIGSTOP)
        lost = batching.predict(model, rows(1), later())
        assert np.array_equal(await batching.predict(other, rows(1), later()), rows(1, 2))
        with pytest.raises(WorkerLostError, match="did not answer for 0 s and was ended"):
            await lost
        assert np.array_equal(await batching.predict(model, rows(1), later()), rows(1, 2))

    within(server, work)


def test_more_workers_than_permitted_are_never_alive(server: ForkServer) -> None:
    models = [Model(Graph(doubling(3), (3,), 3), f"owner {number}") for number in range(6)]

    async def work(batching: Batching) -> None:
        for model in models:
            assert np.array_equal(await batching.predict(model, rows(2), later()), rows(2, 2))
            assert batching.n_workers <= 2

    within(server, work, most_workers=2)


def test_a_worker_forgets_graphs_that_do_not_fit(server: ForkServer) -> None:
    models = [Model(Graph(doubling(3), (3,), 3)) for _ in range(4)]
    size = models[0].graph.size_bytes

    async def work(batching: Batching) -> None:
        for model in [*models, *models]:
            assert np.array_equal(await batching.predict(model, rows(2), later()), rows(2, 2))
        ((worker, _),) = batching._owners["one"].idle.items()
        assert list(worker.loaded) == [model.graph.number for model in models[2:]]

    within(server, work, cache_bytes=2 * size)


def test_a_row_larger_than_the_usual_memory_is_computed(server: ForkServer) -> None:
    wide = Model(Graph(doubling(3_000_000), (3_000_000,), 3_000_000))

    async def work(batching: Batching) -> None:
        features = np.arange(3_000_000, dtype=np.float32)[None]
        assert np.array_equal(await batching.predict(wide, features, later()), 2 * features)

    within(server, work, most_bytes=100_000_000)


def test_nothing_holds_a_model_that_nobody_serves(server: ForkServer) -> None:
    async def work(batching: Batching) -> weakref.ref[Graph]:
        model = Model(Graph(doubling(3), (3,), 3))
        await batching.predict(model, rows(1), later())
        return weakref.ref(model.graph)

    async def forgotten(batching: Batching) -> bool:
        graph = await work(batching)
        gc.collect()
        return graph() is None

    assert within(server, forgotten)


def test_closing_ends_the_workers(server: ForkServer, model: Model) -> None:
    async def work(batching: Batching) -> None:
        await batching.load(model, later())

    within(server, work)
    end = later()
    while worker_processes(server) and time.monotonic() < end:
        time.sleep(0.01)
    assert not worker_processes(server)
