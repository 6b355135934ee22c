"""Functions that events call: one event at a time, and the answers while one does not end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hepfaas.platform import http
from hepfaas.platform.cloud_events import CloudEvent, on_the_wire

LIMIT_S = 60
EVENT = on_the_wire(CloudEvent("org.hepfaas.x", "/hepfaas/y", "steps/x/1", "7", {"run": "a-1"}))


class Held:
    """A function that handles one event until it is released."""

    def __init__(self, deadline_s: float) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        function = http.takes_events("tests", lambda: self.handle, deadline_s=deadline_s)
        app = Flask(__name__)
        app.add_url_rule("/", "event", lambda: function(_request()), methods=["POST"])
        app.add_url_rule("/healthz", "healthz", lambda: function(_request()))
        self._app = app

    def handle(self, event: CloudEvent) -> None:
        self.begun.set()
        assert self.go.wait(LIMIT_S)

    def client(self) -> FlaskClient:
        return self._app.test_client()

    def post(self) -> int:
        headers, body = EVENT
        return self.client().post("/", headers=headers, data=body).status_code


def _request() -> "http.Request":
    from flask import request

    return request._get_current_object()  # type: ignore[attr-defined, no-any-return]


@contextmanager
def in_an_event(deadline_s: float) -> Iterator[Held]:
    held, answers = Held(deadline_s), list[int]()
    thread = threading.Thread(target=lambda: answers.append(held.post()))
    thread.start()
    try:
        assert held.begun.wait(LIMIT_S)
        yield held
    finally:
        held.go.set()
        thread.join(timeout=LIMIT_S)
    assert answers == [204]


def test_an_event_after_one_that_does_not_end_must_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WAIT_S", 0.1)
    with in_an_event(300) as held:
        headers, body = EVENT
        answer = held.client().post("/", headers=headers, data=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "still handles an earlier event" in answer.json["error"]
    assert held.post() == 204


def test_a_process_is_healthy_while_an_event_runs_and_not_if_it_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with in_an_event(0) as held:
        assert held.client().get("/healthz").status_code == 204
    monkeypatch.setattr(http, "MARGIN_S", 0.0)
    with in_an_event(0) as held:
        assert held.client().get("/healthz").status_code == 503
    assert held.client().get("/healthz").status_code == 204
