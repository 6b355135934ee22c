"""ROOT files behind web servers: read by ranges, and what their servers may say instead."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import uproot
from conftest import free_port
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.root import opened, read
from hepfaas.errors import RequestError, UnavailableError

Serve = Callable[..., str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"met": "float32"}).extend({"met": np.arange(1000, dtype="float32")})
    return path


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Starts a server that has the file, and gives the file's URL."""
    servers: list[ThreadingHTTPServer] = []

    def started(status: int = 206) -> str:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler_of(path.read_bytes(), status)))
        threading.Thread(target=servers[-1].serve_forever).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/events.root"

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


def handler_of(data: bytes, status: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(data, 200 if status in (200, 206) else status, False)

        def do_GET(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if status == 206 and asked:
                start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
                self.answer(data[start:stop], 206, True, f"bytes {start}-{stop - 1}/{len(data)}")
            elif status == 206:
                self.answer(data, 200, True)
            else:
                self.answer(data if status == 200 else b"no", status, True)

        def answer(self, body: bytes, code: int, with_body: bool, ranges: str = "") -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            if ranges:
                self.send_header("Content-Range", ranges)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


def test_a_file_behind_a_web_server_is_the_local_one(path: Path, serve: Serve) -> None:
    url = serve()
    local, remote = opened(str(path), "Events"), opened(url, "Events")
    assert remote.identity == local.identity
    found = read(url, remote.identity, "Events", ["met"], EntryRange(10, 990))
    assert found["met"].to_list() == list(range(10, 990))


@pytest.mark.parametrize(("status", "said"), [(200, "no ranges"), (403, "answers 403"), (404, "does not exist|404")])
def test_what_a_server_refuses_is_said_so(serve: Serve, status: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        opened(serve(status), "Events")


def test_a_server_in_trouble_is_asked_again_later(serve: Serve) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        opened(serve(503), "Events")
    with pytest.raises(UnavailableError, match="does not answer: Connection refused"):
        opened(f"http://127.0.0.1:{free_port()}/x.root", "Events")
