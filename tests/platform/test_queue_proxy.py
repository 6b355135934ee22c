"""The queue-proxy of the tests before a function: time limit and queue, as in a pod."""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.queue_proxy import QueueProxy, program
from support.servers import LIMIT_S, free_port, is_open, server_binary, wait_until

SLEEPER = """
import time

def sleep(request):
    began = time.time()
    time.sleep(float(request.args["s"]))
    return {"began": began, "ended": time.time()}
"""


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a function with four threads that sleeps as requested and answers with start and end."""
    program()
    source, port = tmp_path_factory.mktemp("sleeper") / "main.py", free_port()
    source.write_text(SLEEPER)
    framework = server_binary("functions-framework", "PyPI functions-framework")
    command = [framework, "--target", "sleep", "--source", str(source), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "WORKERS": "1", "THREADS": "4"}, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_open(port), process, "functions-framework")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def asked_to_sleep(url: str, seconds: float) -> httpx.Response:
    return httpx.get(url, params={"s": seconds}, timeout=LIMIT_S)


def two_at_once(url: str, seconds: float) -> list[httpx.Response]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: asked_to_sleep(url, seconds), range(2)))


def overlap(answers: list[httpx.Response]) -> bool:
    """Return whether the function ran both calls at the same time."""
    first, second = sorted((answer.json() for answer in answers), key=lambda answer: answer["began"])
    return bool(second["began"] < first["ended"])


def test_a_call_within_the_time_limit_is_answered_by_the_function(sleeper: int) -> None:
    with QueueProxy(sleeper) as proxy:
        answer = asked_to_sleep(proxy.url, 0.5)
    assert answer.status_code == 200
    assert answer.json()["ended"] - answer.json()["began"] >= 0.5


def test_a_call_beyond_the_time_limit_gets_504_at_the_limit(sleeper: int) -> None:
    with QueueProxy(sleeper, timeout_s=1) as proxy:
        began = time.monotonic()
        answer = asked_to_sleep(proxy.url, 4)
        took_s = time.monotonic() - began
    assert (answer.status_code, answer.text.strip()) == (504, "request timeout")
    assert 1 <= took_s < 3


def test_with_concurrency_1_two_calls_run_one_after_the_other(sleeper: int) -> None:
    with QueueProxy(sleeper, concurrency=1, timeout_s=20) as proxy:
        answers = two_at_once(proxy.url, 1)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert not overlap(answers)


def test_with_concurrency_2_two_calls_run_at_one_time(sleeper: int) -> None:
    with QueueProxy(sleeper, concurrency=2, timeout_s=20) as proxy:
        answers = two_at_once(proxy.url, 1)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert overlap(answers)


def test_time_in_the_queue_counts_towards_the_limit(sleeper: int) -> None:
    with QueueProxy(sleeper, concurrency=1, timeout_s=3) as proxy:
        answers = two_at_once(proxy.url, 2)
    assert sorted(answer.status_code for answer in answers) == [200, 504]


def test_nothing_of_the_proxy_is_left_at_its_end(sleeper: int) -> None:
    with QueueProxy(sleeper) as proxy:
        assert is_open(proxy.port)
    assert not is_open(proxy.port)
