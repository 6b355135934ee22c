"""Files of a federation with a real cache and a real origin: which of them serves, also when one dies."""

import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hepfaas.datasets import reading as reading_module
from hepfaas.datasets.address_checks import check_file
from hepfaas.datasets.opened import _OpenFile, opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.datasets.sources import Federation, Sources
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.features.jagged import Values
from support.hosts import LOOPBACK, PUBLIC, resolve_in_turn
from support.servers import XRootD, XRootDCache, free_port

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "ggH_tautau.root"
URL = f"root://federation.example//store/{SAMPLE.name}"
BRANCHES = ["Muon_pt", "Muon_eta", "Jet_pt"]


@pytest.fixture
def origin() -> Iterator[XRootD]:
    with XRootD() as server:
        server.serve(SAMPLE)
        yield server


@pytest.fixture
def cache(origin: XRootD) -> Iterator[XRootDCache]:
    with XRootDCache(origin) as server:
        yield server


def by(caches: list[str], origins: list[str], **options: Any) -> Reading:
    return Reading(Sources((Federation("tests", ("federation.example",), tuple(caches), tuple(origins)),)), **options)


def forget() -> None:
    """Close the files that the process has kept open, as in a new instance of a function."""
    for kept in _OpenFile._kept.values():
        kept.file.close()
    _OpenFile._kept.clear()


def same(arrays: dict[str, Values], entries: EntryRange) -> bool:
    wanted = read(str(SAMPLE), opened(str(SAMPLE), "Events").identity, "Events", branches=BRANCHES, entries=entries)
    return all(arrays[name].tolist() == wanted[name].tolist() for name in BRANCHES)


def test_the_second_read_is_served_by_the_cache(origin: XRootD, cache: XRootDCache) -> None:
    reading, entries = by([cache.door], [origin.door]), EntryRange(0, 5000)
    identity = opened(URL, "Events", reading).identity
    assert identity == opened(str(SAMPLE), "Events").identity
    first = read(URL, identity, "Events", branches=BRANCHES, entries=entries, reading=reading)
    forget()
    assert sum(cache.next_report(f"/store/{SAMPLE.name}")["b_miss"] for _ in range(2)) > 0
    origin.kill()
    second = read(URL, identity, "Events", branches=BRANCHES, entries=entries, reading=reading)
    forget()
    report = cache.next_report(f"/store/{SAMPLE.name}")
    assert report["b_hit"] > 0
    assert report["b_miss"] == report["b_bypass"] == 0
    assert reading.log.served == cache.door
    assert same(first, entries)
    assert same(second, entries)


def test_after_the_death_of_the_cache_reads_go_to_the_origin(origin: XRootD, cache: XRootDCache) -> None:
    reading = by([cache.door], [origin.door])
    identity = opened(URL, "Events", reading).identity
    served = []
    for number, start in enumerate(range(0, 5000, 500)):
        if number == 5:
            cache.kill()
        entries = EntryRange(start, start + 500)
        assert same(read(URL, identity, "Events", branches=BRANCHES, entries=entries, reading=reading), entries)
        served.append(reading.log.served)
    assert served == [cache.door] * 5 + [origin.door] * 5
    assert f"the server of '{cache.url(SAMPLE.name)}' does not answer: Connection refused" in reading.log.failures[0]


def test_a_range_whose_cache_is_killed_is_read_from_the_origin(origin: XRootD, cache: XRootDCache) -> None:
    """The cache is stopped first, so that the range is under way when it is killed. A file that was fetched whole would
    not need the cache again."""
    reading, entries = by([cache.door], [origin.door], hashed_bytes=0), EntryRange(0, 5000)
    identity = opened(URL, "Events", reading).identity
    read(URL, identity, "Events", branches=BRANCHES[:1], entries=EntryRange(0, 10), reading=reading)  # open it there
    cache.process.send_signal(signal.SIGSTOP)
    killer = threading.Timer(1, cache.kill)
    killer.start()
    try:
        arrays = read(URL, identity, "Events", branches=BRANCHES, entries=entries, reading=reading)
    finally:
        killer.join()
    assert same(arrays, entries)
    assert reading.log.served == origin.door


def test_a_silent_cache_is_given_up(origin: XRootD, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "SILENT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        reading = by([f"root://127.0.0.1:{silent.getsockname()[1]}"], [origin.door])
        assert opened(URL, "Events", reading).entries > 0
    assert reading.log.served == origin.door
    assert "did not answer within 2 s" in reading.log.failures[0]


def test_a_cache_with_another_file_under_the_path_is_given_up_for_the_origin(origin: XRootD) -> None:
    with XRootD() as stale:
        shutil.copy(SAMPLE.with_name("VBF_tautau.root"), stale.data / SAMPLE.name)
        (stale.data / SAMPLE.name).chmod(0o644)
        identity, reading = opened(str(SAMPLE), "Events").identity, by([stale.door], [origin.door])
        entries = EntryRange(0, 1000)
        assert same(read(URL, identity, "Events", branches=BRANCHES, entries=entries, reading=reading), entries)
    assert "has changed since the run opened it" in reading.log.failures[0]


def test_the_error_of_a_file_that_no_endpoint_has_lists_the_error_of_each(origin: XRootD) -> None:
    nobody = f"root://127.0.0.1:{free_port()}"
    url = "root://federation.example//store/nothing.root"
    with pytest.raises(RequestError, match="no endpoint could read .*: .*refused; file '.*' does not exist"):
        opened(url, "Events", by([nobody], [origin.door]))
    with pytest.raises(UnavailableError, match="no endpoint could read .*: .* does not exist.*; .* does not answer"):
        opened(url, "Events", by([origin.door], [nobody]))


def test_without_origins_the_address_itself_is_the_last_endpoint(origin: XRootD) -> None:
    nobody = f"root://127.0.0.1:{free_port()}"
    reading = Reading(Sources((Federation("tests", ("127.0.0.1",), (nobody,)),)))
    assert opened(origin.url(SAMPLE.name), "Events", reading).entries > 0
    assert reading.log.served == origin.door


def test_an_endpoint_that_accepts_no_connection_is_given_up(origin: XRootD) -> None:
    """It is given up before XRootD's client tries it."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]  # they fill the queue: the next one gets no answer
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        reading = by([f"root://127.0.0.1:{place[1]}"], [origin.door])
        opened(URL, "Events", reading)
        for one in waiting:
            one.close()
    assert "does not answer: it takes no connection" in reading.log.failures[0]


def test_a_silent_endpoint_of_xrootd_is_given_up_in_the_service_even_if_it_is_the_only_one() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"root://127.0.0.1:{silent.getsockname()[1]}//store/x.root"
        with pytest.raises(UnavailableError, match="did not answer within 1 s"):
            opened(url, "Events", Reading(all_s=1.0))


def test_a_name_of_xrootd_that_becomes_private_after_the_check_is_not_opened(
    origin: XRootD, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"root://flips.example:{origin.port}//store/{SAMPLE.name}"
    resolve_in_turn(monkeypatch, "flips.example", PUBLIC, LOOPBACK)
    check_file(url, False, Sources(), ())
    with pytest.raises(RequestError, match="'flips.example' is at 127.0.0.1, a private address"):
        opened(url, "Events", Reading(private=False))
