"""Rows of many requests are computed together, each gets its own, and what cannot be in time is not computed."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import UnavailableError
from hepfaas.models.batching import BATCH_ROWS, Batching, OverloadedError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

LONG = 60.0


class Doubling:
    """A model that doubles; its runtime waits until it may go on, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began = threading.Event()
        self.error: Exception | None = None

    def runtime(self) -> "Doubling":
        return self

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        self.began.set()
        assert self.may_go_on.wait(LONG)
        if self.error:
            raise self.error
        self.batches.append(len(features))
        return features * 2


class Apart:
    """A model whose runtime is an object of its own."""

    def runtime(self) -> Doubling:
        return Doubling()


def rows(count: int, value: float = 1.0) -> NDArray[np.float32]:
    return np.full((count, 3), value, dtype=np.float32)


def within(
    work: Callable[[Batching], Awaitable[Any]], threads: int = 1, most_bytes: int = 1_000_000, most_s: float = LONG
) -> Any:
    """What the work gives, done with a `Batching` that is closed again."""

    async def done() -> Any:
        batching = Batching(threads, most_bytes, most_s)
        try:
            return await asyncio.wait_for(work(batching), LONG)
        finally:
            batching.close()

    return asyncio.run(done())


def later(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 1_500), min_size=1, max_size=20), st.integers(1, 3))
def test_each_request_gets_its_own_rows(sizes: list[int], threads: int) -> None:
    model = Doubling()

    async def work(batching: Batching) -> list[NDArray[np.float32]]:
        return await asyncio.gather(
            *(batching.predict(model, rows(size, number), later()) for number, size in enumerate(sizes))
        )

    for number, (size, found) in enumerate(zip(sizes, within(work, threads), strict=True)):
        assert np.array_equal(found, rows(size, 2 * number))
    assert sum(model.batches) == sum(sizes)
    assert all(batch <= max(BATCH_ROWS, *sizes) for batch in model.batches)


async def held(batching: Batching, model: Doubling) -> "asyncio.Task[Any]":
    """A request that is being computed and does not end before the model may go on."""
    model.may_go_on.clear()
    first = asyncio.create_task(batching.predict(model, rows(1), later()))
    assert await asyncio.to_thread(model.began.wait, LONG)
    return first


def test_what_queues_meanwhile_is_one_batch_and_a_lone_request_waits_for_none() -> None:
    model = Doubling()

    async def work(batching: Batching) -> None:
        first = await held(batching, model)
        others = [asyncio.create_task(batching.predict(model, rows(2), later())) for _ in range(10)]
        await asyncio.sleep(0)
        model.may_go_on.set()
        await asyncio.gather(first, *others)

    within(work)
    assert model.batches == [1, 20]


def test_more_than_may_wait_is_refused_and_a_request_larger_than_that_is_taken_when_none_waits() -> None:
    model = Doubling()

    async def work(batching: Batching) -> None:
        first = await held(batching, model)
        second = asyncio.create_task(batching.predict(model, rows(100), later()))
        await asyncio.sleep(0)
        assert batching.waiting_bytes == 1200
        with pytest.raises(OverloadedError, match="1,200 bytes of features wait already"):
            await batching.predict(model, rows(1), later())
        model.may_go_on.set()
        await asyncio.gather(first, second)
        assert batching.waiting_bytes == 0
        await batching.predict(model, rows(1), later())

    within(work, most_bytes=600)


def test_more_work_than_may_wait_is_refused_as_the_computing_of_late_has_taken() -> None:
    model = Doubling()

    async def work(batching: Batching) -> None:
        first = await held(batching, model)
        await asyncio.sleep(0.05)
        model.may_go_on.set()
        await first
        model.began.clear()
        first = await held(batching, model)  # a row takes some 25 ms, as far as is known
        second = asyncio.create_task(batching.predict(model, rows(100), later()))
        await asyncio.sleep(0)
        assert 1.0 < batching.waiting_s < LONG
        with pytest.raises(OverloadedError, match=r"work for \d+\.\d s waits already"):
            await batching.predict(model, rows(1), later())
        model.may_go_on.set()
        await asyncio.gather(first, second)
        assert batching.waiting_s == 0
        await batching.predict(model, rows(1), later())

    within(work, most_s=1.0)


def test_a_request_past_its_deadline_is_not_computed() -> None:
    model = Doubling()

    async def work(batching: Batching) -> None:
        first = await held(batching, model)
        late = asyncio.create_task(batching.predict(model, rows(5), later(0.01)))
        gone = asyncio.create_task(batching.predict(model, rows(7), later()))
        await asyncio.sleep(0.05)
        gone.cancel()
        model.may_go_on.set()
        await first
        with pytest.raises(UnavailableError, match="waited past its deadline"):
            await late

    within(work)
    assert model.batches == [1]


def test_an_error_answers_who_asked_and_nobody_else() -> None:
    broken, model = Doubling(), Doubling()
    broken.error = ValueError("no")

    async def work(batching: Batching) -> Any:
        return await asyncio.gather(
            batching.predict(broken, rows(1), later()),
            batching.predict(model, rows(1), later()),
            return_exceptions=True,
        )

    one, other = within(work)
    assert one is broken.error
    assert np.array_equal(other, rows(1, 2))


def test_a_model_that_nobody_serves_any_more_leaves_memory() -> None:
    async def work(batching: Batching) -> None:
        model = Apart()
        await batching.predict(model, rows(1), later())
        gone = weakref.ref(model)
        del model
        end = later()
        while gone() is not None and time.monotonic() < end:
            gc.collect()
            await asyncio.sleep(0.01)
        assert gone() is None

    within(work)
