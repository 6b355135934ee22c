"""The reports of a real cache, as Prometheus reads them."""

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from hepfaas.datasets.event_file import open_file
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Endpoint
from hepfaas.platform.cache_metrics import Counts
from support.servers import LIMIT_S, XRootD, XRootDCache, free_port, is_open, wait_until

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "ggH_tautau.root"


def numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^xrootd_cache_([a-z_]+(?:\{.*\})?) (\d+)$", text, re.M)}


@pytest.mark.slow
def test_a_cache_tells_what_came_from_its_disk_and_what_it_fetched() -> None:
    udp, http = free_port(), free_port()
    command = [sys.executable, "-m", "hepfaas.platform.cache_metrics", str(udp), str(http)]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: is_open(http), process, "the metrics")
        with XRootD() as origin, XRootDCache(origin, report_to=udp) as cache:
            origin.serve(SAMPLE)
            disk = fetched = 0
            end = time.monotonic() + LIMIT_S
            while not disk > fetched > 0:  # a file is reported when the cache closes it, some time later
                assert time.monotonic() < end
                with open_file(Endpoint(cache.url(SAMPLE.name))) as file:
                    assert len(file.read("Events", ["Muon_pt"], EntryRange(0, 5_000))["Muon_pt"]) == 5_000
                time.sleep(0.5)
                metrics = numbers(httpx.get(f"http://127.0.0.1:{http}/metrics").text)
                disk, fetched = (metrics[f'bytes_total{{source="{name}"}}'] for name in ("disk", "origin"))
        assert metrics["files_closed_total"] > 0
        assert metrics["checksum_errors_total"] == 0
        assert httpx.get(f"http://127.0.0.1:{http}/other").status_code == 404
    finally:
        process.kill()
        process.wait(timeout=LIMIT_S)


def test_other_datagrams_are_ignored() -> None:
    counts = Counts()
    for report in (b"", b"\0", b"\xff\xfe", b"[1]", b'{"event": "other", "b_hit": 1}', b'{"b_hit": 1}\nnothing'):
        counts.add(report)
    assert set(numbers(counts.text()).values()) == {0}
    counts.add(b'{"code":"g"}\n{"event":"file_close","b_hit":5,"b_miss":7}\n{"event":"file_close","b_hit":1}\0')
    assert numbers(counts.text())['bytes_total{source="disk"}'] == 6
