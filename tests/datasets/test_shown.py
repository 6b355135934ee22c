"""Credentials of owners with real servers: each is sent only to its host and only for its owner."""

import secrets
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hepfaas.datasets import reading as reading_module
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.errors import RequestError
from hepfaas.platform.credentials import Credential
from support import grid
from support.servers import XRootD

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "ggH_tautau.root"
ALL = EntryRange(0, 100)


def showing(host: str, kind: str, secret: str) -> Reading:
    credential = Credential(host, kind, secret)
    return Reading(credential=lambda name: credential if name == host else None)


@pytest.fixture(scope="module")
def authority() -> Iterator[grid.Authority]:
    with grid.Authority() as made:
        yield made


@pytest.fixture
def with_tokens() -> Iterator[tuple[XRootD, bytes]]:
    """A server whose files need one of its own tokens, and the secret that makes tokens."""
    secret = secrets.token_bytes(32)
    with grid.with_macaroons(secret) as server:
        yield server, secret


def test_a_token_opens_a_file_on_xrootd_and_no_message_has_it(with_tokens: tuple[XRootD, bytes]) -> None:
    server, secret = with_tokens
    url = server.serve(SAMPLE)
    alice = showing("127.0.0.1", "bearer", grid.read_token(secret))
    identity = opened(url, "Events", alice).identity
    assert len(read(url, identity, "Events", branches=["Muon_pt"], entries=ALL, reading=alice)["Muon_pt"]) == 100
    false = grid.read_token(bytes(32))
    with pytest.raises(RequestError, match="its server refuses") as refused:
        opened(url, "Events", showing("127.0.0.1", "bearer", false))
    assert false not in str(refused.value)
    assert false not in repr(refused.value.__cause__)
    with pytest.raises(RequestError, match="does not exist") as missing:
        opened(server.url("nothing.root"), "Events", alice)
    assert grid.read_token(secret)[:40] not in str(missing.value)


def test_an_open_file_is_not_shared_between_owners(with_tokens: tuple[XRootD, bytes]) -> None:
    server, secret = with_tokens
    url, alice = server.serve(SAMPLE), showing("127.0.0.1", "bearer", grid.read_token(secret))
    identity = opened(url, "Events", alice).identity
    read(url, identity, "Events", branches=["Muon_pt"], entries=ALL, reading=alice)
    for bob in (Reading(), showing("127.0.0.1", "bearer", "of-bob")):
        with pytest.raises(RequestError, match="its server refuses"):
            read(url, identity, "Events", branches=["Muon_pt"], entries=ALL, reading=bob)


def test_owners_log_in_with_their_own_proxies_in_one_process(authority: grid.Authority) -> None:
    with grid.TRUST.of(authority), grid.with_certificates(authority) as server:
        url = server.serve(SAMPLE).replace("127.0.0.1", "localhost")
        readings = {who: showing("localhost", "x509", authority.proxy(who)) for who in ("alice", "bob")}
        for reading in (*readings.values(), *readings.values()):
            identity = opened(url, "Events", reading).identity
            assert (
                len(read(url, identity, "Events", branches=["Muon_pt"], entries=ALL, reading=reading)["Muon_pt"]) == 100
            )
        with pytest.raises(RequestError, match="its server refuses"):
            opened(url, "Events")
        logins = [line.rpartition(" login as ")[2] for line in server.log_text().splitlines() if " login as " in line]
        assert len(logins) == len(set(logins)) == 2


class Keeper(ThreadingHTTPServer):
    """Serve the sample to callers with the token; redirect /away. Record the tokens."""

    def __init__(self, wanted: str = "") -> None:
        self.wanted, self.shown, self.away = wanted, list[str | None](), ""
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self) -> "Keeper":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Keeper

    def do_GET(self) -> None:
        self.server.shown.append(self.headers.get("Authorization"))
        data = SAMPLE.read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        body = data[int(first) : int(last or len(data) - 1) + 1]
        if self.path == "/away":
            self.answer(307, b"", Location=self.server.away)
        elif self.server.wanted and self.headers.get("Authorization") != f"Bearer {self.server.wanted}":
            self.answer(401, b"")
        else:
            self.answer(206 if "Range" in self.headers else 200, body)

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.parametrize("scheme", ["http", "dav"])
def test_a_token_is_sent_to_its_host_and_not_to_the_target_of_a_redirection(scheme: str) -> None:
    with Keeper("of-alice") as here, Keeper() as elsewhere:
        here.away = f"http://localhost:{elsewhere.server_port}/x.root"
        alice = showing("127.0.0.1", "bearer", "of-alice")
        door = f"{scheme}://127.0.0.1:{here.server_port}"
        assert opened(f"{door}/x.root", "Events", alice).entries > 0
        assert opened(f"{door}/away", "Events", alice).entries > 0
        assert set(here.shown) == {"Bearer of-alice"}
        assert set(elsewhere.shown) == {None}
        with pytest.raises(RequestError, match="answers 401"):
            opened(f"{door}/x.root", "Events")


def test_a_token_is_not_sent_unencrypted_to_a_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is public by a patch: no public address is reached from here."""
    monkeypatch.setattr(reading_module, "is_private", lambda url: False)
    for url, safe in (("http://host.example/x", "https"), ("root://host.example//x", "roots")):
        with pytest.raises(RequestError, match=f"without encryption.*name it by {safe}://"):
            opened(url, "Events", showing("host.example", "bearer", "of-alice"))


def test_a_web_server_that_requests_a_certificate_gets_the_owners(authority: grid.Authority, tmp_path: Path) -> None:
    certificate, key = authority.host(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    with grid.TRUST.of(authority), Keeper() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{server.server_port}/x.root"
        alice = showing("localhost", "x509", authority.person("alice"))
        assert opened(url, "Events", alice).entries > 0
        assert opened(url.replace("https", "davs"), "Events", alice).entries > 0
