"""Client and AsyncClient against a small server: addresses, tokens, retries, uploads, streams, many calls at once."""

import asyncio
import inspect
import io
import json
import tarfile
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hepfaas import AsyncClient, Client
from hepfaas.cli import main
from hepfaas.client import Status, connection
from hepfaas.client.bodies import ARROW_STREAM
from hepfaas.client.calls import pauses
from hepfaas.errors import RequestError, UnavailableError
from support.servers import LIMIT_S
from support.service import Service, arrow_stream

FOLLOWERS = 40
"""More than asyncio's threads on a machine of 32 processors."""


def calls(client: type) -> dict[str, Callable[..., Any]]:
    return {name: call for name, call in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}


def test_both_clients_have_the_same_calls() -> None:
    plain, awaited = calls(Client), calls(AsyncClient)
    assert plain.keys() == awaited.keys()
    for name, call in plain.items():
        assert inspect.signature(call).parameters == inspect.signature(awaited[name]).parameters, name
        assert inspect.getdoc(call), name
        is_generator = inspect.isgeneratorfunction(call)
        assert inspect.isasyncgenfunction(awaited[name]) == is_generator, name
        assert inspect.iscoroutinefunction(awaited[name]) != is_generator, name


def test_waiting_calls_do_not_delay_others(service: Service) -> None:
    async def followed(client: AsyncClient, started: asyncio.Semaphore) -> list[str]:
        lines = []
        async for line in client.log("long-1", follow=True):
            lines.append(line)
            started.release()
        return lines

    async def check() -> None:
        async with AsyncClient(service.url) as client:
            started = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(followed(client, started)) for _ in range(FOLLOWERS)]
            async with asyncio.timeout(LIMIT_S):
                for _ in range(FOLLOWERS):
                    await started.acquire()
                assert await client.models() == []
                service.closed.set()
                assert await asyncio.gather(*tasks) == [["a line"]] * FOLLOWERS

    asyncio.run(check())


def test_a_closed_client_leaves_no_threads(service: Service) -> None:
    async def threads_of_client() -> list[threading.Thread]:
        async with AsyncClient(service.url) as client:
            await client.models()
            return [thread for thread in threading.enumerate() if thread.name.startswith("hepfaas-client")]

    threads = asyncio.run(threads_of_client())
    assert threads
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_the_event_loop_calls_on_status(service: Service) -> None:
    seen: list[tuple[str, threading.Thread]] = []

    def on_status(status: Status) -> None:
        seen.append((status.state, threading.current_thread()))
        service.run_failed.set()

    async def check() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(RequestError, match="run 'scores-1' failed: no such branch"):
                async for _ in client.predict("m", ["root://h//x.root"], on_status=on_status):
                    pass
            assert [state for state, _ in seen] == ["unfinished"] * len(seen)
            service.run_failed.clear()
            assert (await client.wait("scores-1", on_status)).state == "failed"
            service.run_failed.clear()
            states = []
            async for status in client.follow("scores-1"):
                states.append(status.state)
                service.run_failed.set()
            assert states == ["unfinished", "failed"]

    asyncio.run(check())
    assert len(seen) >= 2
    assert {thread for _, thread in seen} == {threading.main_thread()}


def test_a_wait_ends_after_its_limit_and_can_be_cancelled(service: Service) -> None:
    async def check() -> None:
        async with AsyncClient(service.url) as client:
            with pytest.raises(UnavailableError, match="run 'scores-1' has not ended after 0 s"):
                await client.wait("scores-1", timeout_s=0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.wait("scores-1")

    asyncio.run(check())
    with Client(service.url) as client, pytest.raises(UnavailableError, match="has not ended after 0 s"):
        client.wait("scores-1", timeout_s=0)


def test_short_runs_are_looked_at_often_and_long_ones_twice_a_second() -> None:
    waited = list(islice(pauses(), 100))
    assert sum(waited[:5]) < 0.5
    assert waited == sorted(waited)
    assert set(waited[20:]) == {0.5}


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "lab.example.org/hepfaas"])
def test_an_address_without_http_is_refused_at_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match=rf"'{url}' is not the address of a service; .*, e\.g\. http://{url}"):
        Client(url)
    assert main(["runs", "--url", url]) == 1
    assert "write it with http:// or https://" in capsys.readouterr().err


def test_a_service_on_this_machine_is_reached_without_the_proxy(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(service.url) as client:
        assert client.models() == []
    with Client(service.url.replace("127.0.0.1", "localhost")) as client:
        assert client.models() == []


def test_each_request_carries_the_present_token_and_the_group(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "token"
    with Client(service.url, path, "higgs") as client:
        for token in ("first", "second"):
            path.write_text(f"{token}\n")
            client.models()
            headers = service.requests[-1][2]
            assert (headers["authorization"], headers["hepfaas-group"]) == (f"Bearer {token}", "higgs")
        path.unlink()
        with pytest.raises(RequestError, match="the token file '.*' cannot be read: "):
            client.models()
    with Client(service.url, lambda: "made") as client:
        client.models()
    assert service.requests[-1][2]["authorization"] == "Bearer made"


def test_a_folder_is_sent_whole_at_each_retry_with_one_key(service: Service, tmp_path: Path) -> None:
    service.answers["/v1/runs"] = [(503, {"error": "busy"}), (429, {}), (200, {"run": "job-1"})]
    folder = tmp_path / "job"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("hidden")
    data = np.random.default_rng(1).bytes(300_000)
    (folder / "a.root").write_bytes(data)
    with Client(service.url) as client:
        assert client.submit(folder, name="mine") == "job-1"
    assert len(service.requests) == 3
    assert {request[1] for request in service.requests} == {"/v1/runs?name=mine&folder=job"}
    assert len({request[2]["idempotency-key"] for request in service.requests}) == 1
    for *_, body in service.requests:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            assert tar.getnames() == ["a.root"]
            member = tar.extractfile("a.root")
            assert member
            assert member.read() == data


def test_only_a_folder_is_sent(service: Service, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Client(service.url) as client, pytest.raises(RequestError, match="file' is not a folder; submit takes"):
        client.submit(tmp_path / "file")
    assert not service.requests


@pytest.mark.parametrize(
    ("status", "content", "error", "message", "tries"),
    [
        (422, {"error": "epochs is 0"}, RequestError, "epochs is 0", 1),
        (404, b"<html>", RequestError, "/v1/models answers 404", 1),
        (401, {"error": "no token"}, RequestError, "no token. Programs send a bearer token: set HEPFAAS_TOKEN", 1),
        (302, b"", RequestError, "redirects to a login page for browsers. Programs send", 1),
        (503, {"error": "the store is away"}, UnavailableError, "the store is away", connection.TRIES),
    ],
)
def test_a_refusal_is_raised_with_its_reason_and_temporary_ones_are_retried(
    service: Service, status: int, content: Any, error: type[Exception], message: str, tries: int
) -> None:
    service.answers["/v1/models"] = [(status, content)]
    with Client(service.url) as client, pytest.raises(error) as raised:
        client.models()
    assert message in str(raised.value)
    assert len(service.requests) == tries


def test_a_service_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACK_OFF_S", 0.001)
    for call in (Client.models, lambda client: list(client.scores("x-1"))):
        with (
            Client("http://127.0.0.1:9") as client,
            pytest.raises(UnavailableError, match="service http://127.0.0.1:9 does not answer: "),
        ):
            call(client)


def test_scores_arrive_in_batches_and_a_stream_without_its_end_raises(service: Service) -> None:
    whole = arrow_stream([0.25, 0.5], [1.0])
    service.answers["/v1/runs/scores-1/scores"] = [(503, {}), (200, whole), (200, whole[:-8]), (200, whole[:-60])]
    with Client(service.url) as client:
        batches = [columns["score"].tolist() for columns in client.scores("scores-1")]
        assert batches == [[0.25, 0.5], [1.0]]
        assert service.requests[-1][2]["accept"] == ARROW_STREAM
        for _ in range(2):
            with pytest.raises(UnavailableError, match="the scores of http.* break off"):
                list(client.scores("scores-1"))


def test_predictions_that_the_service_computes_at_once_are_scores(service: Service) -> None:
    service.answers["/v1/models/m/versions/2/predict"] = [(200, arrow_stream([0.5]))]
    with Client(service.url) as client:
        assert [columns["score"].tolist() for columns in client.predict("m/2", ["a.root"], "Events")] == [[0.5]]
    assert json.loads(service.requests[-1][3]) == {"files": ["a.root"], "tree": "Events"}


def test_a_log_goes_on_where_a_response_ended(service: Service) -> None:
    service.answers["/v1/runs/job-1/log"] = [
        (200, b"first\n\rrun job-1: more by ?follow=1&after=12-a\n"),
        (200, b"second\x1b\nrun job-1 completed\n"),
    ]
    with Client(service.url) as client:
        assert list(client.log("job-1", follow=True)) == ["first", "second\\x1b", "run job-1 completed"]
    assert [request[1].rpartition("after=")[2] for request in service.requests] == ["", "12-a"]


def test_steps_go_on_behind_the_last_mark_and_end_with_the_run(service: Service) -> None:
    step = "event: step\nid: %d\ndata: %s\n\n"
    first = "event: status\ndata: {}\n\n" + step % (1, '{"kind": "open"}')
    last = step % (2, '{"kind": "publish"}') + "event: end\nid: 2\ndata: {}\n\n"
    service.answers["/v1/runs/job-1/events"] = [(200, first.encode()), (200, last.encode())]
    with Client(service.url) as client:
        assert [step["kind"] for step in client.steps("job-1", follow=True)] == ["open", "publish"]
        assert [request[2]["last-event-id"] for request in service.requests] == ["", "1"]
        service.answers["/v1/runs/job-1/events"] = [(200, f"{first}: still there\n\n".encode())]
        assert [step["kind"] for step in client.steps("job-1")] == ["open"]


def test_runs_are_listed_page_by_page(service: Service) -> None:
    service.answers["/v1/runs"] = [
        (200, {"runs": [{"run": "b-1"}], "after": "b-1"}),
        (200, {"runs": [{"run": "a-1"}], "after": None}),
    ]
    with Client(service.url) as client:
        assert [row["run"] for row in client.runs("completed")] == ["b-1", "a-1"]
    assert [request[1] for request in service.requests] == [
        "/v1/runs?state=completed&after=",
        "/v1/runs?state=completed&after=b-1",
    ]


def test_the_line_of_a_status_has_what_is_known() -> None:
    values = {"run": "job-1", "state": "unfinished", "phase": "train", "events_done": 1000, "events_of_phase": 5000}
    assert Status(values).line() == "job-1: train  1,000 of 5,000 events"
    assert Status({**values, "events_per_s": 2e3, "eta_s": 2.0}).line().endswith("  2,000 events/s  ETA 2 s")
    assert Status({**values, "state": "failed"}).line() == "job-1: failed"


def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "http")
    assert main(["runs"]) == 1
    assert capsys.readouterr().err == "hepfaas: PORT is 'http'; it takes a number\n"
