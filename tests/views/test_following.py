"""A run that takes longer than a response may: its streams end by themselves, and clients continue after them."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hepfaas import Client
from hepfaas.errors import UnavailableError
from hepfaas.orchestration import records
from hepfaas.orchestration.records import End, Entry
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.prediction import Prediction
from hepfaas.views.following import follow_events, follow_log
from support.servers import LIMIT_S

RECIPE = Prediction("m-scores", "m/1", "graph", "spec", ("root://h//a.root",), "Events", ("met",), ())
STEPS = 5


def entry(number: int) -> Entry:
    return Entry(1000.0 + number, "predict", f"steps/predict/{number:064x}", 1.0, lines=(f"line {number}",))


class Going:
    """A run that does one more step at each response of its log, and a service with short responses."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(str(folder))
        self.run = records.create(self.store, records.Request(RECIPE, 1000.0))
        self.answers = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
                self.send_response(200)
                self.end_headers()
                for line in outer.log(query.get("after", ""), query["follow"] == "1"):
                    self.wfile.write(line.encode())

            def log_message(self, *said: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def log(self, after: str, follow: bool) -> Iterator[str]:
        if self.answers < STEPS:
            records.log(self.store, self.run, entry(self.answers))
        else:
            records.end(self.store, self.run, 1, End("completed", time.time()))
        self.answers += 1
        most_s = 0.5 if self.answers <= STEPS else 30
        return follow_log(self.store, self.run, follow=follow, after=after, most_s=most_s)


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Going]:
    made = Going(tmp_path)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(timeout=LIMIT_S)


def test_a_client_follows_a_log_over_many_responses_and_gives_each_line_once(going: Going) -> None:
    with Client(f"http://127.0.0.1:{going.server.server_port}") as client:
        lines = list(client.log(going.run, follow=True))
    assert going.answers == STEPS + 1
    assert [line.partition("| ")[2] for line in lines if "| " in line] == [f"line {number}" for number in range(STEPS)]
    assert lines[-1] == f"run {going.run} completed"
    assert len(lines) == 2 * STEPS + 1


def test_a_client_follows_no_longer_than_its_limit(going: Going) -> None:
    with (
        Client(f"http://127.0.0.1:{going.server.server_port}") as client,
        pytest.raises(UnavailableError, match=r"has not ended after 0 s"),
    ):
        list(client.log(going.run, follow=True, timeout_s=0.1))


def test_event_streams_end_by_themselves_and_continue_after_the_mark(going: Going) -> None:
    records.log(going.store, going.run, entry(0))
    first = "".join(follow_events(going.store, going.run, "", most_s=0.5))
    assert first.count("event: step") == 1
    assert "event: end" not in first
    records.log(going.store, going.run, entry(1))
    records.end(going.store, going.run, 1, End("completed", time.time()))
    rest = "".join(follow_events(going.store, going.run, records.mark_of(entry(0)), most_s=30))
    assert rest.count("event: step") == 1
    assert f"id: {records.mark_of(entry(1))}" in rest
    assert "event: end" in rest


def test_the_time_limit_of_a_response_starts_with_the_response(going: Going) -> None:
    stream = follow_events(going.store, going.run, "", most_s=0.2)
    assert next(stream).startswith("event: status")
    time.sleep(0.3)
    records.log(going.store, going.run, entry(0))
    assert list(stream) == []


def test_a_log_says_when_each_step_ended_in_utc(going: Going) -> None:
    records.log(going.store, going.run, entry(0))
    assert next(follow_log(going.store, going.run)).startswith("1970-01-01T00:16:40Z  predict ")


def test_a_status_says_when_the_run_was_created_in_utc(going: Going) -> None:
    assert '"created": "1970-01-01T00:16:40Z"' in next(follow_events(going.store, going.run, "", most_s=0.1))
