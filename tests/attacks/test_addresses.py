"""Addresses that parsers read differently: they seem to name an allowed host but lead to another one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import uproot
from hepfaas.datasets.address_checks import check_address, check_file
from hepfaas.datasets.event_file import open_file
from hepfaas.datasets.opened import opened
from hepfaas.datasets.reading import Endpoint, Reading
from hepfaas.datasets.sources import Sources, sources_of
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.jobs.addresses import check_webhook, place_files
from hepfaas.orchestration.intake import news_in, news_of
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.credentials import Credential
from hepfaas.platform.stores import open_store
from support.hosts import LOOPBACK, PUBLIC, RedirectingXRootD, UnusedServer, resolve_in_turn
from support.servers import XRootD, s3_client

LISTED = ["root", "roots", "xroot", "http", "https", "dav"]
HIDING = [
    "root://allowed.example?@{place}//x.root",
    "root://allowed.example#@{place}//x.root",
    "root://allowed.example?@{place}/x.root",
    "root://allowed.example:1094?@{place}//x.root",
    "roots://allowed.example?a:b@{place}//x.root",
    "xroot://allowed.example?#@{place}//x.root",
    "root://allowed.example\\@{place}//x.root",
    "ROOT://allowed.example?@{place}//x.root",
    "http://allowed.example?@{place}/x.root",
    "http://allowed.example#@{place}/x.root",
    "http://allowed.example\\@{place}/x.root",
    "http://allowed.example@{place}/x.root",
    "dav://allowed.example;@{place}/x.root",
    "s3://allowed.example?@{place}/x.root",
]


@pytest.fixture
def untouched() -> Iterator[UnusedServer]:
    with UnusedServer() as server:
        yield server
        assert not server.n_connections


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Allow to read files of one host, which is public."""
    resolve_in_turn(monkeypatch, "allowed.example", PUBLIC)
    return sources_of({"allowed": [{"schemes": [*LISTED, "s3"], "host": "allowed.example", "path": "/"}]}, "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"met": "float32"}).extend({"met": np.arange(1000, dtype="float32")})
    return path


@pytest.mark.parametrize("address", HIDING)
def test_an_allowed_host_hides_no_other_one(
    address: str, listed: Sources, untouched: UnusedServer, tmp_path: Path
) -> None:
    url = address.format(place=f"{LOOPBACK}:{untouched.port}")
    with pytest.raises(RequestError):
        check_file(url, True, listed, ())
    with pytest.raises(RequestError):
        place_files(open_store(str(tmp_path)), True, listed, ())(url, tmp_path)
    with pytest.raises(RequestError):
        opened(url, "Events", Reading(listed))


@pytest.mark.parametrize("address", HIDING)
def test_a_public_host_hides_no_private_one(
    address: str, untouched: UnusedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_in_turn(monkeypatch, "allowed.example", PUBLIC)
    url = address.format(place=f"{LOOPBACK}:{untouched.port}")
    with pytest.raises(RequestError):
        check_file(url, False, Sources(), ())
    with pytest.raises(RequestError):
        opened(url, "Events", Reading(private=False))


@pytest.mark.parametrize("address", HIDING[:6])
def test_no_credential_is_looked_up_for_a_host_that_is_not_asked(address: str, untouched: UnusedServer) -> None:
    hosts: list[str] = []

    def credential(host: str) -> Credential | None:
        hosts.append(host)
        return Credential("allowed.example", "bearer", "of-alice") if host == "allowed.example" else None

    with pytest.raises(RequestError):
        opened(address.format(place=f"{LOOPBACK}:{untouched.port}"), "Events", Reading(credential=credential))
    assert not hosts


def test_who_served_a_file_and_whose_credential_was_shown_is_the_host_that_was_asked(
    xrootd: XRootD, path: Path
) -> None:
    hosts: list[str] = []
    reading = Reading(credential=lambda host: hosts.append(host))  # type: ignore[func-returns-value]
    url = xrootd.serve(path, "two words, é@home.root").replace(f"root://{LOOPBACK}", "Root://LocalHost.")
    assert opened(url, "Events", reading).entries == 1000
    assert reading.log.served == f"root://localhost:{xrootd.port}"
    assert hosts == ["localhost"]


class Pages:
    """A web server that has every file. paths: requested so far. to: where it redirects."""

    def __init__(self, data: bytes = b"", to: str = "") -> None:
        outer, self.paths = self, list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                self.send_response(307 if to else 200)
                self.send_header("Content-Length", "0" if to else str(len(data)))
                if to:
                    self.send_header("Location", to)
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.place = f"{LOOPBACK}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Pages":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize(
    "hidden",
    [
        "?/ok/private",
        "#/ok/private",
        "/private?/ok/",
        "/private#/ok/",
        "/ok/..;/private",
        "/ok/..;a=b/private",
        "/ok/.;/..;/private",
        "/ok/%2e%2e;/private",
        "/ok/%2e%2e%3b/private",
        "/ok/../private",
        "/ok/%2e%2e/private",
        "/ok/%2E./private",
        "/ok/%252e%252e/private",
        "/ok/%25%32%65%25%32%65/private",
        "/ok/..%2fprivate",
        "/ok/..%5cprivate",
        "/ok/..\\private",
        "/ok/%c0%ae%c0%ae/private",
        "/ok/.. /private",
        "/ok/x%00/private",
        "/ok/x%23/private",
        "/ok/x?of=/private",
    ],
)
def test_a_path_that_is_allowed_hides_no_other_one(hidden: str) -> None:
    with Pages() as server:
        host = server.place
        sources = sources_of({"allowed": [{"schemes": ["http"], "host": host, "path": "/ok/"}]}, "")
        with pytest.raises(RequestError):
            check_file(f"http://{host}{hidden}", True, sources, ())
        with pytest.raises(RequestError):
            opened(f"http://{host}{hidden}", "Events", Reading(sources))
        assert not server.paths


@pytest.mark.parametrize("hidden", ["//ok/../private", "//ok/x#/../../private", "//ok/%2e%2e/private", "//ok?/private"])
def test_a_path_of_xrootd_that_is_allowed_hides_no_other_one(hidden: str, untouched: UnusedServer) -> None:
    host = f"{LOOPBACK}:{untouched.port}"
    sources = sources_of({"allowed": [{"schemes": ["root"], "host": host, "path": "/ok/"}]}, "")
    with pytest.raises(RequestError):
        check_file(f"root://{host}{hidden}", True, sources, ())
    with pytest.raises(RequestError):
        opened(f"root://{host}{hidden}", "Events", Reading())


@pytest.mark.parametrize(
    "host",
    ["[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[::7f00:1]", "[::ffff:7f00:1]", "[2002:7f00:1::]", "127.1", "0x7f.1",
     "2130706433", "017700000001", "0", "127.0.0.1.", "LOCALHOST.", "１２７.0.0.1", "127。0。0。1", "[::1%25lo]"],
)  # fmt: skip
def test_a_private_address_is_known_however_it_is_written(host: str) -> None:
    for scheme in ("http", "root"):
        with pytest.raises(RequestError):
            check_address(f"{scheme}://{host}/x.root", allow_private=False)


def test_a_file_behind_xrootd_is_named_by_its_whole_name(xrootd: XRootD, path: Path) -> None:
    """uproot itself takes the text after ':' for an object's name, and would open another file than the one checked."""
    with pytest.raises(RequestError, match="does not exist"):
        opened(f"{xrootd.serve(path, 'whole.root')}:Events", "Events")


def test_a_server_of_xrootd_does_not_lead_to_a_file_of_this_machine(path: Path) -> None:
    with (
        RedirectingXRootD(f"file://localhost{path}") as server,
        pytest.raises(RequestError, match="redirects to a local file"),
    ):
        opened(server.url, "Events")


def test_a_server_of_xrootd_outside_gives_nothing_from_a_private_network(xrootd: XRootD, path: Path) -> None:
    """XRootD's client follows without a check in between; the result is discarded."""
    with RedirectingXRootD(xrootd.serve(path, "inside.root")) as server:
        assert opened(server.url, "Events").entries == 1000
        with pytest.raises(RequestError, match="a private address"):
            open_file(Endpoint(server.url, private=False))


@pytest.mark.parametrize("ending", ["meta4", "metalink"])
def test_a_list_of_servers_is_read_as_the_file_that_it_is(ending: str, xrootd: XRootD, path: Path) -> None:
    metalink = path.with_name("metalink")
    metalink.write_text(
        '<?xml version="1.0" encoding="utf-8"?><metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="x">'
        f"<url>file://localhost{path}</url></file></metalink>"
    )
    with pytest.raises(RequestError, match="is not a complete ROOT file"):
        opened(xrootd.serve(metalink, f"x.{ending}"), "Events")


@pytest.mark.parametrize(
    "to",
    [
        "http://allowed.example?@{place}/x",
        "http://allowed.example\\@{place}/x",
        "http://user@{place}/x",
        "http://user:secret@{place}/x",
        "//user@{place}/x",
        "http:\\\\{place}\\x",
        "http://2130706433:{port}/x",
        "http://127.1:{port}/x",
        "root://{place}//x",
        "file:///etc/passwd",
    ],
)
def test_a_web_server_leads_to_no_host_that_is_written_in_another_way(to: str, untouched: UnusedServer) -> None:
    with Pages(to=to.format(place=f"{LOOPBACK}:{untouched.port}", port=untouched.port)) as server:
        with pytest.raises((RequestError, UnavailableError)) as refused:
            opened(f"http://{server.place}/x.root", "Events")
        assert "secret" not in str(refused.value)
        assert len(server.paths) == 1


def test_a_key_of_a_bucket_leads_into_no_other_bucket(
    s3_url: str, s3_server: dict[str, str], path: Path, tmp_path: Path
) -> None:
    """Some S3 servers resolve '..' in a path as on a disk."""
    s3_client(s3_server).upload_file(str(path), "tests", f"{s3_url.removeprefix('s3://tests/')}/x.root")
    store = open_store(f"{s3_url}/store")
    for key in ("../tests", "a/../../tests", "..;/tests", "%2e%2e/tests", "..\\tests", "./../tests", "..%2ftests"):
        url = f"s3://open/{key}{s3_url.removeprefix('s3://tests')}/x.root"
        with pytest.raises(RequestError):
            place_files(store, True)(url, tmp_path)
        with pytest.raises(RequestError):
            opened(url, "Events")
    for bucket in ("tests", "Tests"):
        with pytest.raises(RequestError, match="is in the bucket of this service"):
            place_files(store, True)(f"s3://{bucket}/x.root", tmp_path)


@pytest.mark.parametrize("address", HIDING)
def test_news_of_a_file_elsewhere_is_no_news_of_an_allowed_one(address: str) -> None:
    url = address.format(place=f"{LOOPBACK}:1")
    news = news_in(CloudEvent("t", "/x", "x", "1", {"url": url}))
    assert not news.files
    assert len(news.ignored) == 1


def test_a_notification_of_s3_names_a_bucket_and_nothing_else() -> None:
    for bucket, key in (("in?@evil", "x.root"), ("in/../store", "x.root"), ("in", "../store/x.root"), ("", "x.root")):
        record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
        assert not news_of({"Records": [record]}).files


@pytest.mark.parametrize(
    "url", ["http://allowed.example?@{place}/", "http://allowed.example\\@{place}/", "http://a@{place}/"]
)
def test_a_webhook_hides_no_other_host(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_in_turn(monkeypatch, "allowed.example", PUBLIC)
    with pytest.raises(RequestError):
        check_webhook(url.format(place=f"{LOOPBACK}:1"), False)


def test_no_record_has_what_a_query_or_a_user_may_hold(tmp_path: Path) -> None:
    place = place_files(open_store(str(tmp_path)), True)
    for url in ("https://h.example/x.root?X-Amz-Signature=se.cret", "https://se.cret@h.example/x.root",
                "root://h.example//x.root?authz=se.cret", "root://se.cret@h.example//x.root"):  # fmt: skip
        with pytest.raises(RequestError) as refused:
            place(url, tmp_path)
        assert "se.cret" not in str(refused.value)
