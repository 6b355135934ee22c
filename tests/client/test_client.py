"""What hepfaas.Client and hepfaas.AsyncClient do whatever the service is: addresses, many calls at once."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hepfaas import AsyncClient, Client
from hepfaas.cli import main
from hepfaas.client import Status
from hepfaas.errors import RequestError
from support.servers import LIMIT_S

FOLLOWERS = 40
"""More than asyncio's threads on a machine of 32 processors."""


class Slow(ThreadingHTTPServer):
    """A service whose logs have a line and go on until it is closed, and whose predictions are runs that fail later."""

    daemon_threads = True

    def __init__(self) -> None:
        self.looked, self.closed = 0, threading.Event()
        self.last_look = threading.Event()
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/v1/runs/long-1/log"):
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"a line\n")
                    slow.closed.wait(LIMIT_S)
                elif self.path == "/v1/models":
                    self.say(200, {"models": []})
                else:
                    state = "failed" if slow.last_look.is_set() else "unfinished"
                    self.say(200, {"run": "scores-1", "state": state, "error": "so be it"})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.say(202, {"run": "scores-1"})

            def say(self, status: int, values: object) -> None:
                body = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def slow() -> Iterator[Slow]:
    with Slow() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.closed.set()
            server.shutdown()
            thread.join(LIMIT_S)


def test_calls_that_wait_do_not_hold_up_the_others(slow: Slow) -> None:
    async def followed(client: AsyncClient, began: asyncio.Semaphore) -> list[str]:
        lines = []
        async for line in client.log("long-1", follow=True):
            lines.append(line)
            began.release()
        return lines

    async def asked() -> None:
        async with AsyncClient(slow.url) as client:
            began = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(followed(client, began)) for _ in range(FOLLOWERS)]
            async with asyncio.timeout(LIMIT_S):
                for _ in range(FOLLOWERS):
                    await began.acquire()
                assert await client.models() == []
                slow.closed.set()
                assert await asyncio.gather(*tasks) == [["a line"]] * FOLLOWERS

    asyncio.run(asked())


def test_a_client_leaves_no_threads_behind(slow: Slow) -> None:
    async def asked() -> list[threading.Thread]:
        async with AsyncClient(slow.url) as client:
            await client.models()
            return [thread for thread in threading.enumerate() if thread.name.startswith("hepfaas-client")]

    threads = asyncio.run(asked())
    assert threads
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_who_waits_is_told_how_far_it_is_by_the_loop(slow: Slow) -> None:
    told: list[tuple[str, threading.Thread]] = []

    def say(status: Status) -> None:
        told.append((status.state, threading.current_thread()))
        slow.last_look.set()

    async def asked() -> None:
        async with AsyncClient(slow.url) as client:
            with pytest.raises(RequestError, match="run 'scores-1' failed: so be it"):
                async for _ in client.predict("m", ["root://h//x.root"], on_status=say):
                    pass
            assert [state for state, _ in told] == ["unfinished"] * len(told)
            slow.last_look.clear()
            assert (await client.wait("scores-1", say)).state == "failed"

    asyncio.run(asked())
    assert len(told) >= 2
    assert {thread for _, thread in told} == {threading.main_thread()}


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "lab.example.org/hepfaas"])
def test_an_address_without_http_is_said_at_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match=rf"'{url}' is no address of a service; .*, e\.g\. http://{url}"):
        Client(url)
    assert main(["runs", "--url", url]) == 1
    assert "begins with http:// or https://" in capsys.readouterr().err


def test_a_service_on_this_machine_is_asked_past_the_proxy(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(slow.url) as client:
        assert client.models() == []
    with Client(slow.url.replace("127.0.0.1", "localhost")) as client:
        assert client.models() == []


def test_a_setting_that_is_wrong_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "http")
    assert main(["runs"]) == 1
    assert capsys.readouterr().err == "hepfaas: PORT is 'http'; it takes a number\n"
