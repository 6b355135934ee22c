"""The shell of `predict`: a rate limit, a base path, a log line and metrics of each request."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import LimitError
from hepfaas.orchestration import records
from hepfaas.orchestration import requesting as asking
from hepfaas.platform.identity import Rate
from hepfaas.platform.settings import Settings
from hepfaas.platform.stores import open_store
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.serving import app as predict_app
from hepfaas.serving.app import PredictApp
from hepfaas.serving.observing import LOG_S
from starlette.requests import Request
from starlette.responses import Response


def answered(app: PredictApp, path: str, method: str = "GET", body: bytes = b"{}", kind: str = "") -> Response:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode())] if kind else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}

    async def done() -> Response:
        answer = await app.answer(Request(scope, receive))
        await asyncio.sleep(2 * LOG_S)
        return answer

    return asyncio.run(done())


def test_a_rate_lets_as_many_through_at_once_and_then_so_many_a_second() -> None:
    rate = Rate(10, 0.0)
    for now, count in ((0.0, 10), (0.25, 2), (9.0, 10)):
        for _ in range(count):
            rate.take(now)
        with pytest.raises(LimitError, match="more than 10 requests a second"):
            rate.take(now)


def test_a_refused_request_says_when_to_come_again(tmp_path: Path) -> None:
    app = PredictApp(Settings(str(tmp_path), predict_rate=1e-6))
    assert answered(app, "/v2").status_code == 200
    refused = answered(app, "/v2")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


def test_more_requests_than_may_be_under_way_at_once_are_refused(tmp_path: Path) -> None:
    app = PredictApp(Settings(str(tmp_path), predict_requests=2))

    async def done() -> list[Response]:
        bodies = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await bodies.wait()
            return {"type": "http.request", "body": b"{}", "more_body": False}

        scope = {"type": "http", "method": "POST", "path": "/json", "headers": [], "query_string": b""}
        tasks = [asyncio.create_task(app.answer(Request(scope, receive))) for _ in range(3)]
        refused = await tasks[2]
        bodies.set()
        return [refused, *(await asyncio.gather(*tasks[:2])), await app.answer(Request(scope, receive))]

    first, *others = asyncio.run(done())
    assert first.status_code == 429
    assert "2 requests are under way already" in bytes(first.body).decode()
    assert [answer.status_code for answer in others] == [422] * 3


@pytest.mark.parametrize(("many", "times"), [(predict_app.CROWD - 1, 0), (3 * predict_app.CROWD, 1)])
def test_what_a_crowd_leaves_is_handed_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, times: int
) -> None:
    app, handed_back = PredictApp(Settings(str(tmp_path))), []
    monkeypatch.setattr(predict_app, "SETTLE_S", 0.01)
    monkeypatch.setattr(predict_app, "release_free_memory", lambda: handed_back.append(True))

    async def crowd() -> None:
        bodies = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await bodies.wait()
            return {"type": "http.request", "body": b"{}", "more_body": False}

        scope = {"type": "http", "method": "POST", "path": "/json", "headers": [], "query_string": b""}
        tasks = [asyncio.create_task(app.answer(Request(scope, receive))) for _ in range(many)]
        await asyncio.sleep(0.1)
        assert not handed_back
        bodies.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.1)

    asyncio.run(crowd())
    assert len(handed_back) == times


def test_long_bodies_that_come_at_once_are_bounded_together(tmp_path: Path) -> None:
    app = PredictApp(Settings(str(tmp_path), predict_waiting_bytes=150))

    async def done() -> list[Response]:
        goes_on = asyncio.Event()

        def request() -> Request:
            pieces = iter([b"x" * 100, b"x"])

            async def receive() -> dict[str, Any]:
                body = next(pieces)
                if len(body) == 1:
                    await goes_on.wait()
                return {"type": "http.request", "body": body, "more_body": len(body) > 1}

            scope = {"type": "http", "method": "POST", "path": "/json", "headers": [], "query_string": b""}
            return Request(scope, receive)

        first = asyncio.create_task(app.answer(request()))
        await asyncio.sleep(0)
        refused = await app.answer(request())
        goes_on.set()
        return [refused, await first, await app.answer(request())]

    refused, *others = asyncio.run(done())
    assert refused.status_code == 429
    assert "2 long bodies or answers come at once" in bytes(refused.body).decode()
    assert [answer.status_code for answer in others] == [422] * 2


def test_a_base_path_stands_before_every_call(tmp_path: Path) -> None:
    app = PredictApp(Settings(str(tmp_path), predict_base="/tfaas"))
    assert answered(app, "/tfaas/models").body == b"null"
    assert answered(app, "/models").status_code == 404
    assert answered(app, "/tfaas").status_code == 404


def test_runs_that_were_asked_for_here_are_told_here_and_no_others(tmp_path: Path) -> None:
    store = open_store(f"{tmp_path}/local")
    scores = Prediction("m-scores", "m/1", "g", "s", ("root://h//a",), "Events", ("met",), ())
    trained = Recipe("m", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
    begun, training, deleted = (records.create(store, records.Request(one, 1.0)) for one in (scores, trained, scores))
    store.create(f"runs/{deleted}/deleted.json", b"{}")
    requests = [records.Request(one, 1.0).to_json() for one in (scores, trained)]
    for run, wish in zip(("m-scores-7", "m-7"), requests, strict=True):
        store.create(f"asked/{run}", json.dumps(wish).encode())
    app = PredictApp(Settings(str(tmp_path), predict_base="/tfaas"))
    for run, state in ((begun, "unfinished"), ("m-scores-7", "pending")):
        answer = answered(app, f"/tfaas/v1/runs/{run}")
        assert (answer.status_code, json.loads(bytes(answer.body))["state"]) == (200, state)
        assert answer.headers["retry-after"]
    others = [f"{run}{what}" for run in (training, deleted) for what in ("", "/scores", "/ledger")]
    for path in (*others, "m-7", "none-1", "..", "a b/scores"):
        answer = answered(app, f"/tfaas/v1/runs/{path}")
        finding = f"there is no prediction '{path.partition('/')[0]}' here"
        assert (answer.status_code, finding in bytes(answer.body).decode()) == (404, True), path
    early = answered(app, f"/tfaas/v1/runs/{begun}/scores")
    assert (early.status_code, "has not scored all events" in bytes(early.body).decode()) == (404, True)


def test_each_request_is_a_line_of_the_log_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    app = PredictApp(Settings(str(tmp_path)))
    answered(app, "/v2/models/nope")
    line = json.loads(capfd.readouterr().err)
    assert (line["function"], line["path"], line["status"]) == ("predict", "/v2/models/nope", 404)
    assert "no model 'nope'" in line["outcome"]
    metrics = bytes(answered(app, "/metrics").body).decode()
    assert 'hepfaas_requests_total{call="metadata",status="404"} 1.0' in metrics
    assert 'hepfaas_request_seconds_count{call="metadata",status="404"} 1.0' in metrics


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.pb"\r\n\r\nx\r\n--b--\r\n'
)


def test_an_instance_without_a_broker_says_that_it_cannot_convert(tmp_path: Path) -> None:
    answer = answered(PredictApp(Settings(str(tmp_path))), "/upload", "POST")
    assert (answer.status_code, b"this instance of predict cannot begin runs: it has no broker" in answer.body) == (
        422,
        True,
    )


def test_an_upload_that_takes_too_long_names_the_run_that_goes_on(tmp_path: Path) -> None:
    with taking() as (url, taken):
        app = PredictApp(Settings(str(tmp_path), broker=url, predict_upload_s=0.5))
        answer = answered(app, "/upload", "POST", FORM, "multipart/form-data; boundary=b")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    run = re.search(r"run '(m-[0-9]+)' goes on", bytes(answer.body).decode())
    assert run
    assert taken == [("org.hepfaas.run.requested", f"asked/{run[1]}")]
    request = asking.asked_for(open_store(f"{tmp_path}/local"), run[1])
    assert request
    assert isinstance(request.recipe, Conversion)
    assert (request.recipe.format, request.recipe.file) == ("frozen_graph", "m.pb")


@contextmanager
def taking() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A broker that takes every event and delivers none: its URL, and type and subject of what it took."""
    taken: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((self.headers["ce-type"], self.headers["ce-subject"]))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", taken
        finally:
            server.shutdown()
            thread.join()


def test_pages_for_a_browser_stand_below_the_base_path(tmp_path: Path) -> None:
    app = PredictApp(Settings(str(tmp_path), predict_base="/tfaas"))
    assert b"none yet" in answered(app, "/tfaas/").body
    redirected = answered(app, "/tfaas/netron")
    assert (redirected.status_code, redirected.headers["location"]) == (308, "./netron/")
    assert answered(app, "/netron/").status_code == 404
    assert answered(app, "/tfaas/netron/http:evil.org").headers["location"] == "./http:evil.org/"
