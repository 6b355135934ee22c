"""Files of a federation, by a real cache and a real origin: who serves them, and what happens when one dies."""

import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hepfaas.datasets import doors
from hepfaas.datasets.addresses import check_file
from hepfaas.datasets.doors import Reading
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.root import _Lent, opened, read
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
    """Closes what the process has kept open, as a new instance of a function would find it."""
    for found in _Lent._kept.values():
        found.file.close()
    _Lent._kept.clear()


def same(found: dict[str, Values], entries: EntryRange) -> bool:
    wanted = read(str(SAMPLE), opened(str(SAMPLE), "Events").identity, "Events", BRANCHES, entries)
    return all(found[name].tolist() == wanted[name].tolist() for name in BRANCHES)


def test_the_second_read_is_served_by_the_cache(origin: XRootD, cache: XRootDCache) -> None:
    reading, entries = by([cache.door], [origin.door]), EntryRange(0, 5000)
    identity = opened(URL, "Events", reading).identity
    assert identity == opened(str(SAMPLE), "Events").identity
    first = read(URL, identity, "Events", BRANCHES, entries, reading)
    forget()
    assert sum(cache.next_report(f"/store/{SAMPLE.name}")["b_miss"] for _ in range(2)) > 0
    origin.kill()
    second = read(URL, identity, "Events", BRANCHES, entries, reading)
    forget()
    told = cache.next_report(f"/store/{SAMPLE.name}")
    assert told["b_hit"] > 0
    assert told["b_miss"] == told["b_bypass"] == 0
    assert reading.served == cache.door
    assert same(first, entries)
    assert same(second, entries)


def test_a_cache_killed_in_the_midst_of_a_run_of_reads_is_left_for_the_origin(
    origin: XRootD, cache: XRootDCache
) -> None:
    reading = by([cache.door], [origin.door])
    identity = opened(URL, "Events", reading).identity
    served = []
    for number, start in enumerate(range(0, 5000, 500)):
        if number == 5:
            cache.kill()
        entries = EntryRange(start, start + 500)
        assert same(read(URL, identity, "Events", BRANCHES, entries, reading), entries)
        served.append(reading.served)
    assert served == [cache.door] * 5 + [origin.door] * 5
    assert f"the server of '{cache.url(SAMPLE.name)}' does not answer: Connection refused" in reading.left[0]


def test_a_cache_killed_while_it_serves_a_range_is_left_for_the_origin(origin: XRootD, cache: XRootDCache) -> None:
    """The cache is stopped first, so that the range is certainly under way when it is killed. A file that was
    fetched whole would not need it any more."""
    reading, entries = by([cache.door], [origin.door], hashed_bytes=0), EntryRange(0, 5000)
    identity = opened(URL, "Events", reading).identity
    read(URL, identity, "Events", BRANCHES[:1], EntryRange(0, 10), reading)  # it is open there
    cache.process.send_signal(signal.SIGSTOP)
    killer = threading.Timer(1, cache.kill)
    killer.start()
    try:
        found = read(URL, identity, "Events", BRANCHES, entries, reading)
    finally:
        killer.join()
    assert same(found, entries)
    assert reading.served == origin.door


def test_a_cache_that_takes_connections_and_says_nothing_is_left(
    origin: XRootD, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "SILENT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        reading = by([f"root://127.0.0.1:{silent.getsockname()[1]}"], [origin.door])
        assert opened(URL, "Events", reading).entries > 0
    assert reading.served == origin.door
    assert "has not given what was asked for in 2 s" in reading.left[0]


def test_a_cache_with_another_file_under_the_path_is_left_for_the_origin(origin: XRootD) -> None:
    with XRootD() as stale:
        shutil.copy(SAMPLE.with_name("VBF_tautau.root"), stale.data / SAMPLE.name)
        (stale.data / SAMPLE.name).chmod(0o644)
        identity, reading = opened(str(SAMPLE), "Events").identity, by([stale.door], [origin.door])
        entries = EntryRange(0, 1000)
        assert same(read(URL, identity, "Events", BRANCHES, entries, reading), entries)
    assert "has changed since the run opened it" in reading.left[0]


def test_a_file_that_no_door_has_is_said_with_what_each_said(origin: XRootD) -> None:
    nobody = f"root://127.0.0.1:{free_port()}"
    url = "root://federation.example//store/nothing.root"
    with pytest.raises(RequestError, match="read through no door: .*refused; file '.*' does not exist"):
        opened(url, "Events", by([nobody], [origin.door]))
    with pytest.raises(UnavailableError, match="read through no door: .* does not exist.*; .* does not answer"):
        opened(url, "Events", by([origin.door], [nobody]))


def test_without_origins_the_address_itself_is_the_last_door(origin: XRootD) -> None:
    nobody = f"root://127.0.0.1:{free_port()}"
    reading = Reading(Sources((Federation("tests", ("127.0.0.1",), (nobody,)),)))
    assert opened(origin.url(SAMPLE.name), "Events", reading).entries > 0
    assert reading.served == origin.door


def test_a_door_that_takes_no_connection_is_left(origin: XRootD) -> None:
    """It is left before XRootD's client has tried it: the reason is ours."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]  # they fill its queue: the next one gets no answer
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        reading = by([f"root://127.0.0.1:{place[1]}"], [origin.door])
        opened(URL, "Events", reading)
        for one in waiting:
            one.close()
    assert "does not answer: it takes no connection" in reading.left[0]


def test_a_lone_door_of_xrootd_that_says_nothing_is_left_in_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"root://127.0.0.1:{silent.getsockname()[1]}//store/x.root"
        with pytest.raises(UnavailableError, match="has not given what was asked for in 1 s"):
            opened(url, "Events", Reading(all_s=1.0))


def test_a_name_of_xrootd_that_leads_home_after_it_was_checked_is_not_opened(
    origin: XRootD, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"root://flips.example:{origin.port}//store/{SAMPLE.name}"
    resolve_in_turn(monkeypatch, "flips.example", PUBLIC, LOOPBACK)
    check_file(url, False, Sources(), ())
    with pytest.raises(RequestError, match="'flips.example' is at 127.0.0.1, a private address"):
        opened(url, "Events", Reading(private=False))
