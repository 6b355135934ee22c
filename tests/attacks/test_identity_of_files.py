"""A group member tries to pass a file off as another member's, to poison the results that the group shares."""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from hepfaas.datasets.opened import OpenedFile, opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.datasets.sources import Federation, Sources
from hepfaas.errors import RequestError
from hepfaas.jobs.uploads import stored_file
from hepfaas.local.workers import perform
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan, preparation
from hepfaas.runs.ledger import CountedPart, Training, ledger
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.steps.objects import open_part, result_if_there, result_of
from support.servers import XRootD, XRootDCache, s3_client

EVENTS, BASKET = 4_000, 1_000
ALL = EntryRange(0, EVENTS)
LARGE = Reading(hashed_bytes=0)
"""Treat every file on a server as too large to be fetched whole."""

CHANGED = "has changed since the run opened it|was changed while it was read"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file whose baskets all have the same size."""
    path = tmp_path_factory.mktemp("honest") / "signal.root"
    rng = np.random.default_rng(1)
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree("Events", {"met": "float32", "mass": "float32"})
        for _ in range(EVENTS // BASKET):
            tree.extend({name: rng.normal(50, 9, BASKET).astype("float32") for name in ("met", "mass")})
    return path


HOW = ("two baskets swapped", "one byte of a basket", "three bytes, and the same Adler-32")


def poisoned(honest: Path, how: str, folder: Path) -> Path:
    """Write a copy with equal size, UUID and keys, but other events."""
    path, data = folder / honest.name, bytearray(honest.read_bytes())
    with uproot.open(honest) as file:
        branch = file["Events"]["met"]
        first, second = (int(branch.member("fBasketSeek")[number]) for number in (0, 1))
        keylen, size = branch.basket_key(0).fKeylen, branch.basket_key(0).fNbytes
    if how == HOW[0]:
        one, other = (slice(start + keylen, start + size) for start in (first, second))
        data[one], data[other] = data[other], data[one]
    elif how == HOW[1]:
        data[first + keylen + 40] ^= 0x40
    else:  # keeps both sums of Adler-32
        for place, change in ((40, 1), (44, -2), (48, 1)):
            data[first + keylen + place] += change
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)
    return path


class Web:
    """A web server whose content changes: each GET returns the next content, finally always the last."""

    def __init__(self, *contents: bytes, headers: dict[str, str] | None = None) -> None:
        outer = self
        self.contents, self.headers = list(contents), headers or {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(200, outer.contents[0], "")

            def do_GET(self) -> None:
                data = outer.contents.pop(0) if len(outer.contents) > 1 else outer.contents[0]
                wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
                assert wanted
                start, stop = int(wanted[1]), int(wanted[2]) + 1
                self.answer(206, data[start:stop], f"bytes {start}-{stop - 1}/{len(data)}")

            def answer(self, status: int, body: bytes, ranges: str) -> None:
                headers = {"ETag": outer.etag(), **outer.headers, "Content-Length": str(len(body))}
                self.send_response(status)
                for name, value in {**headers, **({"Content-Range": ranges} if ranges else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if status == 206:
                    self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/signal.root"

    def etag(self) -> str:
        """Header of the next content."""
        return f'"{hashlib.md5(self.contents[0], usedforsecurity=False).hexdigest()}"'

    def __enter__(self) -> "Web":
        threading.Thread(target=self._server.serve_forever).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def other_xrootd() -> Iterator[XRootD]:
    """Run the attacker's server."""
    with XRootD() as server:
        yield server


def header(url: str, reading: Reading | None = None) -> OpenedFile:
    return opened(url, "Events", reading or Reading())


def met(url: str, identity: str, reading: Reading | None = None) -> Any:
    return read(url, identity, "Events", branches=["met"], entries=ALL, reading=reading or Reading())["met"]


def check_apart(theirs: str, mine: str, reading: Reading | None = None) -> None:
    """Two files with the same size, UUID and keys are distinguished."""
    victim, attacker = header(theirs, reading), header(mine, reading)
    assert victim.fingerprint == attacker.fingerprint
    assert victim.identity != attacker.identity
    assert len(met(theirs, victim.identity, reading)) == EVENTS
    for url, identity in ((mine, victim.identity), (theirs, attacker.identity)):
        with pytest.raises(RequestError, match="has changed since the run opened it"):
            met(url, identity, reading)


@pytest.mark.parametrize("how", HOW)
def test_a_poisoned_copy_on_disk_is_another_file(how: str, honest: Path, tmp_path: Path) -> None:
    check_apart(str(honest), str(poisoned(honest, how, tmp_path)))


@pytest.mark.parametrize("how", HOW[::2])
@pytest.mark.parametrize("reading", [Reading(), LARGE], ids=["small", "large"])
class TestOnServers:
    def test_of_xrootd(
        self, how: str, reading: Reading, honest: Path, tmp_path: Path, xrootd: XRootD, other_xrootd: XRootD
    ) -> None:
        check_apart(xrootd.serve(honest), other_xrootd.serve(poisoned(honest, how, tmp_path)), reading)

    def test_of_one_xrootd(self, how: str, reading: Reading, honest: Path, tmp_path: Path, xrootd: XRootD) -> None:
        mine = xrootd.serve(poisoned(honest, how, tmp_path), "mine.root")
        check_apart(xrootd.serve(honest), mine, reading)

    def test_of_the_web_with_the_same_etag_and_digest(
        self, how: str, reading: Reading, honest: Path, tmp_path: Path
    ) -> None:
        data = honest.read_bytes()
        stated = {"ETag": '"1"', "Repr-Digest": f"sha-256=:{hashlib.sha256(data).hexdigest()}:"}
        bad = poisoned(honest, how, tmp_path).read_bytes()
        with Web(data, headers=stated) as theirs, Web(bad, headers=stated) as mine:
            check_apart(theirs.url, mine.url, reading)

    def test_of_s3(
        self, how: str, reading: Reading, honest: Path, tmp_path: Path, s3_url: str, s3_server: dict[str, str]
    ) -> None:
        urls = [put(s3_url, s3_server, "theirs.root", honest)]
        urls += [put(s3_url, s3_server, "mine.root", poisoned(honest, how, tmp_path))]
        check_apart(*urls, reading)


def put(s3_url: str, s3_server: dict[str, str], name: str, path: Path) -> str:
    url = f"{s3_url}/{name}"
    s3_client(s3_server).upload_file(str(path), "tests", url.removeprefix("s3://tests/"))
    return url


def test_one_content_is_one_file_wherever_it_lies(
    honest: Path, tmp_path: Path, xrootd: XRootD, s3_url: str, s3_server: dict[str, str]
) -> None:
    wanted = hashlib.sha256(honest.read_bytes()).hexdigest()
    places = [str(shutil.copy(honest, tmp_path)), xrootd.serve(honest), put(s3_url, s3_server, "a.root", honest)]
    store = open_store(f"{s3_url}/owner")
    upload = f"{store.url}/{stored_file(honest, store)}"
    own = Reading(own=f"{store.url}/")
    url = "root://federation.example//store/signal.root"
    with XRootDCache(xrootd) as cache, Web(honest.read_bytes()) as web:
        cached = Reading(Sources((Federation("f", ("federation.example",), (cache.door,), (xrootd.door,)),)))
        assert {header(place).identity for place in [*places, web.url]} == {wanted}
        assert header(url, cached).identity == header(upload, own).identity == wanted
        for place, reading in [*((place, None) for place in [*places, web.url]), (url, cached), (upload, own)]:
            assert np.array_equal(met(place, wanted, reading), met(str(honest), wanted))


def test_the_address_of_an_upload_counts_in_the_owners_own_store_alone(
    honest: Path, tmp_path: Path, s3_url: str, s3_server: dict[str, str]
) -> None:
    """An attacker puts a poisoned copy into their own bucket, under the key of an honest upload."""
    digest = hashlib.sha256(honest.read_bytes()).hexdigest()
    url = put(s3_url, s3_server, f"uploads/{digest}/signal.root", poisoned(honest, HOW[0], tmp_path))
    for own in ("", f"{s3_url[:-1]}/"):
        for most in (0, 8_000_000):
            reading = Reading(own=own, hashed_bytes=most)
            assert header(url, reading).identity != digest
            with pytest.raises(RequestError, match=CHANGED):
                met(url, digest, reading)


def test_a_large_file_of_a_federation_is_one_file_at_all_its_doors(honest: Path, xrootd: XRootD) -> None:
    """Servers of a federation report different modification times and ETags."""
    url = "root://federation.example//store/signal.root"
    xrootd.serve(honest)
    with Web(honest.read_bytes()) as web:
        doors = (xrootd.door, web.url.rpartition("/")[0])
        one, other = (
            Reading(Sources((Federation("f", ("federation.example",), (door,)),)), hashed_bytes=0) for door in doors
        )
        identity = header(url, one).identity
        assert identity.startswith("address-")
        assert header(url.replace("//store", "//"), other).entries == EVENTS
        assert identity != header(xrootd.url("signal.root"), LARGE).identity
        assert len(met(url, identity, one)) == EVENTS


def test_files_with_the_same_checksum_are_two_files(honest: Path, tmp_path: Path) -> None:
    """Real servers report the same Adler-32, without a lie."""
    from XRootD import client
    from XRootD.client.flags import QueryCode

    configured = "xrootd.chksum max 2 adler32\n"
    with XRootD(configured) as one, XRootD(configured) as other:
        urls = one.serve(honest), other.serve(poisoned(honest, HOW[2], tmp_path))
        stated = [client.FileSystem(s.door).query(QueryCode.CHECKSUM, "/store/signal.root") for s in (one, other)]
        assert all(status.ok for status, _ in stated)
        assert stated[0][1] == stated[1][1]
        assert stated[0][1].startswith(b"adler32 ")
        for reading in (Reading(), LARGE):
            check_apart(*urls, reading)


@pytest.mark.parametrize("how", HOW)
def test_a_server_that_shows_the_honest_file_first_is_found_out(how: str, honest: Path, tmp_path: Path) -> None:
    data, bad = honest.read_bytes(), poisoned(honest, how, tmp_path).read_bytes()
    with Web(data, bad, headers={"ETag": '"1"'}) as server:
        identity = header(server.url).identity
        assert identity == header(str(honest)).identity
        with pytest.raises(RequestError, match=CHANGED):
            met(server.url, identity)


def test_a_large_file_that_is_not_what_it_was_counts_for_its_address_alone(honest: Path, tmp_path: Path) -> None:
    """A server that lies about everything only gets results under its own address."""
    data, bad = honest.read_bytes(), poisoned(honest, HOW[0], tmp_path).read_bytes()
    with Web(data, headers={"ETag": '"1"'}) as theirs, Web(*[data] * 20, bad, headers={"ETag": '"1"'}) as mine:
        victim, attacker = header(theirs.url, LARGE).identity, header(mine.url, LARGE).identity
        assert victim != attacker
        mine.contents = [bad]
        assert not np.array_equal(met(mine.url, attacker, LARGE), met(theirs.url, victim, LARGE))


def test_a_small_file_that_grows_is_another_one(honest: Path) -> None:
    data, grow = honest.read_bytes(), Reading(hashed_bytes=honest.stat().st_size)
    with Web(data) as server:
        identity = header(server.url, grow).identity
        server.contents = [data + bytes(10)]
        with pytest.raises(RequestError, match=CHANGED):
            met(server.url, identity, grow)


def test_a_large_file_whose_version_changes_while_it_is_read_is_refused(
    honest: Path, tmp_path: Path, s3_url: str, s3_server: dict[str, str]
) -> None:
    bad = poisoned(honest, HOW[0], tmp_path)
    with Web(honest.read_bytes()) as server:
        identity = header(server.url, LARGE).identity
        read(
            server.url, identity, "Events", branches=["mass"], entries=EntryRange(0, 10), reading=LARGE
        )  # the file is open from here on
        server.contents = [bad.read_bytes()]
        for _ in range(2):
            with pytest.raises(RequestError, match=CHANGED):
                met(server.url, identity, LARGE)
    url = put(s3_url, s3_server, "a.root", honest)
    identity = header(url, LARGE).identity
    read(url, identity, "Events", branches=["mass"], entries=EntryRange(0, 10), reading=LARGE)
    put(s3_url, s3_server, "a.root", bad)
    for _ in range(2):
        with pytest.raises(RequestError, match=CHANGED):
            met(url, identity, LARGE)


@pytest.mark.parametrize("how", ["renamed", "in place", "in place, while it is open", "behind a link"])
def test_a_file_on_disk_that_is_replaced_between_open_and_read_is_refused(
    how: str, honest: Path, tmp_path: Path
) -> None:
    path, bad = tmp_path / "signal.root", poisoned(honest, HOW[0], tmp_path / "bad")
    if how == "behind a link":
        path.symlink_to(honest)
    else:
        shutil.copy2(honest, path)
    identity, times = header(str(path)).identity, path.stat()
    if how.endswith("open"):
        read(str(path), identity, "Events", branches=["mass"], entries=EntryRange(0, 10))
    if how == "renamed":
        bad.replace(path)
    elif how == "behind a link":
        path.unlink()
        path.symlink_to(bad)
    else:
        with path.open("r+b") as file:
            file.write(bad.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(RequestError, match=CHANGED):
        met(str(path), identity)


def test_a_file_on_disk_that_is_touched_is_still_the_same(honest: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(honest, tmp_path))
    identity = header(str(path)).identity
    met(str(path), identity)
    path.chmod(0o600)
    os.link(path, tmp_path / "link.root")
    assert len(met(str(path), identity)) == EVENTS


@pytest.mark.parametrize("server", ["xrootd", "s3"])
def test_a_small_file_that_is_replaced_between_open_and_read_is_refused(
    server: str, honest: Path, tmp_path: Path, xrootd: XRootD, s3_url: str, s3_server: dict[str, str]
) -> None:
    bad = poisoned(honest, HOW[1], tmp_path)

    def serve(path: Path) -> str:
        return xrootd.serve(path, "replaced.root") if server == "xrootd" else put(s3_url, s3_server, "a.root", path)

    url = serve(honest)
    identity = header(url).identity
    assert serve(bad) == url
    with pytest.raises(RequestError, match=CHANGED):
        met(url, identity)


# Two jobs of one group share a store.


def prepare_run(store: Store, files: Sequence[str], attempt: str, reading: Reading) -> dict[str, np.ndarray[Any, Any]]:
    """Run a job up to its training and return the stored features of each file; the ledger must hold."""
    recipe = Recipe("job", tuple(LabelledFile(url, label) for label, url in enumerate(files)), "", range_events=BASKET)
    results = lambda key: result_if_there(key, store)  # noqa: E731
    while isinstance(coming := plan.next_steps(recipe, attempt, results), plan.Ready) and coming.phase != "train":
        for step in coming.steps:
            tools = {"reading": reading} if step.kind in ("open", "survey", "prepare") else {}
            perform(step, store, **tools)
    assert isinstance(coming, plan.Ready)
    inputs = preparation.inputs(recipe, preparation.headers(recipe, attempt, results))
    parts = result_of(coming.steps[0].data, store)["parts"]  # type: ignore[attr-defined]
    counted = [CountedPart(part["file"], tuple(part["entries"]), part["rows"], part["id_sum"]) for part in parts]
    assert ledger(inputs, [Training(counted, [])]).holds
    found = {}
    for file in inputs:
        mine = sorted((part for part in parts if part["file"] == file.identity), key=lambda part: part["entries"])
        batches = [(open_part(part["key"], part["size_bytes"], store), len(part["order"])) for part in mine]
        found[file.url] = np.concatenate([part.rows(number).features for part, n in batches for number in range(n)])
    return found


@pytest.mark.parametrize("how", HOW[:2])
@pytest.mark.parametrize("where", ["on disk", "on a server", "large", "on a server that shows the honest file first"])
def test_a_poisoned_copy_does_not_become_what_another_member_trains_on(
    where: str, how: str, honest: Path, tmp_path: Path
) -> None:
    background = tmp_path / "background.root"
    with uproot.recreate(background) as file:
        values = np.linspace(0, 100, EVENTS).astype("float32")
        file.mktree("Events", {"met": "float32", "mass": "float32"}).extend({"met": values, "mass": values})
    reading = LARGE if where == "large" else Reading()
    bad, data = poisoned(honest, how, tmp_path / "bad"), honest.read_bytes()
    shared, alone = open_store(str(tmp_path / "group")), open_store(str(tmp_path / "alone"))
    first = [data] if where.endswith("first") else []
    stated = {"ETag": '"1"'}
    with Web(data, headers=stated) as theirs, Web(*first, bad.read_bytes(), headers=stated) as mine:
        victim, attacker = (str(honest), str(bad)) if where == "on disk" else (theirs.url, mine.url)
        with pytest.raises(RequestError, match=CHANGED) if first else nullcontext():
            prepare_run(shared, [str(background), attacker], "attack/1", reading)
        wanted = prepare_run(alone, [str(background), victim], "run/1", reading)
        found = prepare_run(shared, [str(background), victim], "run/1", reading)
    assert np.array_equal(found[victim], wanted[victim])
