"""ROOT files on web servers: reads by ranges, redirections and errors."""

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import uproot
import urllib3
from hepfaas.datasets import http_source
from hepfaas.datasets.address_checks import check_file, is_private
from hepfaas.datasets.http_source import HttpSource
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.datasets.sources import EVERYTHING, Allowed, Federation, Sources
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform import web
from hepfaas.platform.address import parsed
from hepfaas.platform.time_limit import within
from support import grid
from support.hosts import LOOPBACK, PUBLIC, SlowServer, resolve_in_turn
from support.servers import free_port

Serve = Callable[..., str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"met": "float32"}).extend({"met": np.arange(1000, dtype="float32")})
    return path


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Start a server that has the file; return the file's URL."""
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
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if status == 206 and wanted:
                start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
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


def test_a_file_on_a_web_server_equals_the_local_one(path: Path, serve: Serve) -> None:
    url = serve()
    local, remote = opened(str(path), "Events"), opened(url, "Events")
    assert remote.identity == local.identity
    arrays = read(url, remote.identity, "Events", branches=["met"], entries=EntryRange(10, 990))
    assert arrays["met"].tolist() == list(range(10, 990))


class Leading:
    """A server that redirects every request to `to`, which may be relative."""

    def __enter__(self) -> "Leading":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.asked.append(self.path)
                self.send_response(307)
                self.send_header("Location", outer.to)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD

            def log_message(self, *words: object) -> None:
                pass

        self.to, self.asked = "/again", list[str]()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/events.root"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_server_may_redirect_to_another_one(path: Path, serve: Serve) -> None:
    with Leading() as leading:
        leading.to = serve()
        arrays = read(
            leading.url, opened(str(path), "Events").identity, "Events", branches=["met"], entries=EntryRange(0, 1000)
        )
        assert len(arrays["met"]) == 1000


def test_a_server_that_redirects_in_a_circle_is_given_up(serve: Serve) -> None:
    with Leading() as leading:
        with pytest.raises(RequestError, match="more than 5 times"):
            opened(leading.url, "Events")
        assert leading.asked == ["/events.root", *["/again"] * 5]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "root://h//x.root", "ftp://h/x"])
def test_a_server_may_redirect_only_to_web_servers(to: str) -> None:
    with Leading() as leading:
        leading.to = to
        with pytest.raises(RequestError, match=f"redirects to '{to}', which is not"):
            opened(leading.url, "Events")


def test_a_public_server_cannot_redirect_into_a_private_network(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is public by a patch: this machine has no public address."""
    with Leading() as leading:
        port = leading.url.split(":")[2].split("/")[0]
        monkeypatch.setattr(http_source, "is_private", lambda address: address.port != int(port))
        leading.to = serve()
        with pytest.raises(RequestError, match=f"redirects to '{leading.to}', an address in a private network"):
            opened(leading.url, "Events")


@pytest.mark.parametrize(("status", "message"), [(200, "no ranges"), (403, "answers 403"), (404, "does not exist|404")])
def test_a_refusal_of_the_server_is_an_error(serve: Serve, status: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        opened(serve(status), "Events")


def test_a_server_error_is_temporary(serve: Serve) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        opened(serve(503), "Events")
    with pytest.raises(UnavailableError, match="does not answer: Connection refused"):
        opened(f"http://127.0.0.1:{free_port()}/x.root", "Events")


def test_private_addresses_are_recognised() -> None:
    for host in ("127.0.0.1:80", "[::1]", "[::ffff:10.0.0.1]", "[::10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]"):
        assert is_private(parsed(f"http://{host}/x"))
    assert not is_private(parsed("http://8.8.8.8/x"))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"
GET = b"HTTP/1.1 206 OK\r\nContent-Length: 4000\r\nContent-Range: bytes 0-3999/4000\r\n\r\n"


@pytest.mark.parametrize(
    "answers", [{}, {"HEAD": b"HTTP/1.1 200 OK\r\nX-Long: "}, {"HEAD": HEAD}, {"HEAD": HEAD, "GET": GET}],
    ids=["status", "headers", "status of a range", "bytes of a range"],
)  # fmt: skip
def test_a_slow_server_is_given_up_and_its_connection_closed(answers: dict[str, bytes]) -> None:
    with SlowServer(**answers) as server:
        with pytest.raises(UnavailableError, match="does not answer|did not answer within"):
            opened(f"http://{LOOPBACK}:{server.port}/x.root", "Events", Reading(all_s=0.5))
        assert server.disconnected.wait(10)
        assert len(server.requests) == (2 if "HEAD" in answers and answers["HEAD"] == HEAD else 1)


def test_ranges_that_are_fetched_at_once_share_the_time_limit(serve: Serve) -> None:
    source = HttpSource(serve())
    ranges = [(0, 10), (100_000, 100_010)]
    source.size_bytes = 200_000
    with within(0), pytest.raises(HTTPException, match="time is up"):
        source.fetch(ranges)


def test_a_name_that_becomes_private_after_the_check_is_not_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    port = serve().split(":")[2].split("/")[0]
    url = f"http://flips.example:{port}/events.root"
    answered = resolve_in_turn(monkeypatch, "flips.example", PUBLIC, LOOPBACK)
    check_file(url, False, EVERYTHING, ())
    with pytest.raises(RequestError, match="'flips.example' is at 127.0.0.1, a private address"):
        opened(url, "Events", Reading(private=False))
    assert answered == [PUBLIC, LOOPBACK]
    assert opened(url, "Events", Reading(private=True)).entries == 1000


def test_addresses_in_the_operators_file_may_be_private(serve: Serve) -> None:
    url = serve()
    port = url.split(":")[2].split("/")[0]
    federation = Federation("tests", ("files.example",), (f"http://{LOOPBACK}:{port}",))
    assert opened("http://files.example/events.root", "Events", Reading(Sources((federation,)), private=False)).entries
    listed = Sources(allowed=(Allowed(("http",), LOOPBACK, "/"),))
    assert opened(url, "Events", Reading(listed, private=False)).entries
    with pytest.raises(RequestError, match="a private address"):
        opened(url, "Events", Reading(private=False))


def test_a_connection_into_a_private_network_is_not_shared_with_other_readers(serve: Serve) -> None:
    url = serve()
    with within(10):
        web.request("GET", url, {"Range": "bytes=0-9"}, private=True).read()  # it is kept open
        with pytest.raises(RequestError, match="a private address"):
            web.request("GET", url, {}, private=False)


def test_the_certificate_is_checked_for_the_name_which_is_resolved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with grid.Authority() as authority, grid.TRUST.of(authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.host(tmp_path))
        server = ThreadingHTTPServer((LOOPBACK, 0), handler_of(b"0123456789", 206))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answered = resolve_in_turn(monkeypatch, "localhost", LOOPBACK, PUBLIC)
            answer = web.request(
                "GET", f"https://localhost:{server.server_port}/x", {"Range": "bytes=2-4"}, private=True
            )
            assert answer.read() == b"234"
            assert answered == [LOOPBACK]
            resolve_in_turn(monkeypatch, "another.example", LOOPBACK)
            with pytest.raises(urllib3.exceptions.SSLError, match="another.example"):
                web.request("GET", f"https://another.example:{server.server_port}/x", {}, private=True)
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=10)
