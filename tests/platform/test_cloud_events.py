"""The HTTP binding of events follows the specification; an event is read as it was sent."""

import hashlib
import hmac
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hepfaas.datasets.address_checks import check_address
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform import cloud_events, hosts
from hepfaas.platform.cloud_events import CloudEvent, HttpSender, is_signed, on_the_wire, read_event, signed, webhook
from support.hosts import LOOPBACK, PUBLIC, SlowServer, resolve_in_turn

EVENT = CloudEvent("org.hepfaas.x", "/hepfaas/y", "steps/x/1", "7", {"run": "a-1", "µ": [1]}, {"traceparent": "00-1"})


def test_the_binary_form_has_attributes_as_headers_and_the_data_as_its_body() -> None:
    headers, body = on_the_wire(EVENT)
    assert headers["ce-type"] == "org.hepfaas.x"
    assert headers["ce-traceparent"] == "00-1"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == EVENT.data


def test_an_event_is_read_as_it_was_sent() -> None:
    event = read_event(*on_the_wire(EVENT))
    assert (event.type, event.source, event.subject, event.id) == ("org.hepfaas.x", "/hepfaas/y", "steps/x/1", "7")
    assert event.data == EVENT.data
    assert event.trace == "00-1"


def test_the_structured_form_is_read_too() -> None:
    attributes = {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "subject": "k", "data": {"run": "a"}}
    event = read_event({"Content-Type": "application/cloudevents+json"}, json.dumps(attributes).encode())
    assert (event.type, event.subject, event.data) == ("t", "k", {"run": "a"})


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b"7", b'"{}"x'])
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="has no CloudEvent"):
        read_event({"ce-type": "t", "ce-source": "s", "ce-id": "1", "ce-specversion": "1.0"}, body)


def test_a_large_event_is_refused() -> None:
    with pytest.raises(RequestError, match="are permitted"):
        on_the_wire(CloudEvent("t", "s", "k", "1", {"data": "x" * 70_000}))


def test_a_signature_survives_a_broker_that_serialises_the_data_again_and_fails_for_another_event() -> None:
    keys = ("a key of thirty-two characters.. ", "the key that signed until today..")
    for key in keys:
        headers, body = on_the_wire(signed(EVENT, key))
        rewritten = json.dumps(dict(reversed(json.loads(body).items())), ensure_ascii=False, indent=3).encode()
        event = read_event({**headers, "ce-knativebrokerttl": "254"}, rewritten)
        assert is_signed(event, keys)
        assert not is_signed(event, ["another key of thirty-two signs.."])
        for other in (
            {"id": "8"},
            {"type": "t"},
            {"source": "s"},
            {"subject": "k"},
            {"data": {**EVENT.data, "run": "b-1"}},
        ):
            assert not is_signed(replace(event, **other), keys)
    assert not is_signed(EVENT, keys)


def test_the_signature_is_the_documented_one() -> None:
    """docs/reference/events.md, Signatures: another program can make and verify it."""
    key = "k" * 32
    what = '["7","org.hepfaas.x","/hepfaas/y","steps/x/1",{"run":"a-1","\\u00b5":[1]}]'
    made = hmac.new(key.encode(), what.encode(), hashlib.sha256).hexdigest()
    assert signed(EVENT, key).extensions["hepfaassig"] == made


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 204", b"HTTP/1.1 204 OK\r\nX-Long: "])
def test_a_slow_webhook_is_given_up(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_events, "WEBHOOK_S", 0.5)
    with SlowServer(POST=head) as server:
        with pytest.raises(UnavailableError, match="the webhook does not answer"):
            webhook(f"http://{LOOPBACK}:{server.port}/", private=True).send(EVENT)
        assert server.disconnected.wait(10)


def test_a_webhook_whose_name_is_not_resolved_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_events, "WEBHOOK_S", 0.2)
    done = threading.Event()

    def slow(host: str, port: int) -> tuple[str, ...]:
        done.wait(60)
        return (LOOPBACK,)

    monkeypatch.setattr(hosts, "addresses", slow)
    with pytest.raises(UnavailableError, match="'slow.example' was not looked up in time"):
        webhook("http://slow.example:1/", private=True).send(EVENT)
    done.set()


def test_only_the_start_of_a_webhooks_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer would go on for a minute; the part that was read confirms the event."""
    with SlowServer(POST=b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2 * cloud_events.MOST_ANSWER_BYTES)) as server:
        webhook(f"http://{LOOPBACK}:{server.port}/", private=True).send(EVENT)
        assert b"POST / HTTP/1.1" in server.requests[0]
        assert server.disconnected.wait(10)


def test_a_webhook_whose_name_becomes_private_gets_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    with SlowServer() as server:
        url = f"http://flips.example:{server.port}/"
        resolve_in_turn(monkeypatch, "flips.example", PUBLIC, LOOPBACK)
        check_address(url, allow_private=False)
        with pytest.raises(RequestError, match="'flips.example' is at 127.0.0.1, a private address"):
            webhook(url).send(EVENT)
        assert server.requests == []


def test_events_share_one_connection_to_the_broker() -> None:
    ports = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            ports.append(self.client_address[1])
            self.send_response(202)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for _ in range(3):
                HttpSender(f"http://{LOOPBACK}:{server.server_port}/").send(EVENT)
        finally:
            server.shutdown()
            thread.join(timeout=10)
    assert len(ports) == 3
    assert len(set(ports)) == 1
