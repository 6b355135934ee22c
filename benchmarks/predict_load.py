"""`predict` with more than it can do, on files, and while its versions are swapped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uproot
from hepfaas.features.matrix import matrix
from hepfaas.models import versions
from hepfaas.models.batching import MOST_S
from hepfaas.models.litert import LiteRtModel
from hepfaas.platform.stores import open_store
from measured import CACHE, Ratio, in_turn, seconds
from predict import LARGE, SMALL, binary, infer
from predict_servers import XRootD, memory_mb, server, trained, watched, wrk
from sample import multiplied

EXAMPLE = Path(__file__).parents[1] / "examples" / "htautau"
ROWS, OVER, OVERLOAD_S, AFTER_S = 500, 4, 30.0, 3.0
P99_S = MOST_S + 1.0
"""Bound of the 99th percentile: work that waits, and what was computed at the time; a second for the load itself."""

EVENTS, CLUSTER, RANGE = 200_000, 1_000, 10_000
SHORT, LONG = 10_000, 1_000_000
SWAPS = 5


def measure() -> list[Ratio]:
    """All of them."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        features = trained(folder, "large", LARGE, ROWS)
        trained(folder, "bench", SMALL, 1)
        return [*_overload(folder, features), *_crowd(folder, features), *_swap(folder, features), *_files(folder)]


@dataclass(frozen=True)
class Answer:
    """One request: its status, 0 if there was none, and seconds from when it was due to its end."""

    status: int
    seconds: float


def _overload(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """Four times as many requests a second as are answered at best, whether the ones before are answered or not."""
    head, blob = binary(features)
    sent, told = head + blob, {"Inference-Header-Content-Length": str(len(head))}
    path = "/v2/models/large/infer"
    with server("ours", folder) as started:

        def full_speed() -> float:
            return wrk(folder, started.url + path, sent, told, 8, 5).per_s

        full_speed()
        before, memory = full_speed(), memory_mb(started.process.pid)
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**told, "Content-Length": len(sent)}.items())
        request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + sent
        port = int(started.url.rpartition(":")[2])
        with watched(started.process.pid) as seen:
            answers = asyncio.run(_at_a_rate(port, request, OVER * before))
        time.sleep(AFTER_S)
        kept = memory_mb(started.process.pid) / memory
        grown = max(seen[-len(seen) // 3 :]) / max(seen[: len(seen) // 3])
        after = full_speed()
    accepted = sorted(answer.seconds for answer in answers if answer.status == 200)
    refused = sum(answer.status in (429, 503) for answer in answers)
    others = len(answers) - len(accepted) - refused
    p99 = accepted[int(0.99 * len(accepted))]
    detail = f"{len(accepted):,} accepted, {refused:,} refused of {len(answers):,}; alone {before:,.0f}/s"
    return [
        Ratio(f"p99 of what is accepted at {OVER} times capacity", f"{P99_S:g} s", p99 / P99_S, "<= 1", f"{p99:.2f} s"),
        Ratio("answers that are neither 200, 429 nor 503", "none", others, "<= 0", detail),
        Ratio("answered meanwhile", "full speed", len(accepted) / OVERLOAD_S / before, ">= 0.5"),
        Ratio(f"memory {AFTER_S:g} s afterwards", "before", kept, "<= 1.5", f"{memory:.0f} MB before"),
        Ratio("most memory in the last third", "the first third", grown, "<= 1.1", f"{max(seen):.0f} MB"),
        Ratio("full speed afterwards", "before", after / before, ">= 0.9"),
    ]  # fmt: skip


async def _at_a_rate(port: int, request: bytes, per_s: float) -> list[Answer]:
    """Requests that are due one after the other at equal distances; connections are used again."""
    idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
    answers: list[Answer] = []

    async def one(due: float) -> None:
        try:
            while idle and idle[0][0].at_eof():
                idle.popleft()[1].close()  # the server closes what is idle
            connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            connection[1].write(request)
            head = (await connection[0].readuntil(b"\r\n\r\n")).lower()
            await connection[0].readexactly(int(head.partition(b"\ncontent-length: ")[2].partition(b"\r\n")[0]))
            answers.append(Answer(int(head[9:12]), time.perf_counter() - due))
            if b"connection: close" in head:
                connection[1].close()
            else:
                idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            answers.append(Answer(0, time.perf_counter() - due))

    began = time.perf_counter()
    under_way = set()
    for number in range(int(OVERLOAD_S * per_s)):
        due = began + number / per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))  # 0: those under way go on
        task = asyncio.create_task(one(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    for _, writer in idle:
        writer.close()
    return answers


def _crowd(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """A model so quick that the connections are the queue: a thousand clients, one row each."""
    with server("ours", folder) as started:
        url = f"{started.url}/v2/models/bench/infer"
        few, crowd = (wrk(folder, url, infer(features[:1]), {}, clients, 5) for clients in (16, 1_000))
    detail = f"{crowd.per_s:,.0f}/s, {crowd.refused} refused"
    return [
        Ratio("p99 of one row with 1,000 clients", "1 s", crowd.p99_ms / 1000, "<= 1", f"{crowd.p99_ms:.0f} ms"),
        Ratio("one row with 1,000 clients", "16 clients", crowd.per_s / few.per_s, ">= 0.7", detail),
    ]  # fmt: skip


def _swap(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """New versions while 16 clients ask for the newest; each deleted one is asked for until it answers no more."""
    store, first = open_store(f"{folder}/store/local"), versions.load(open_store(f"{folder}/store/local"), "bench")
    files = {versions.SPEC: store.get(f"models/bench/1/{versions.SPEC}"), versions.GRAPH: first.graph}
    sent, longest = infer(features[:1]), 0.0
    with server("ours", folder) as started, httpx.Client(base_url=started.url, timeout=30) as http:
        loads: list[Any] = []
        told: dict[str, str] = {}
        url = f"{started.url}/v2/models/bench/infer"
        load = threading.Thread(target=lambda: loads.append(wrk(folder, url, sent, told, 16, 4.0 * SWAPS)))
        load.start()
        for number in range(2, 2 + SWAPS):
            time.sleep(0.5)
            claimed = versions.claim(store, "bench", f"claim {number}")
            versions.publish(store, claimed, {**first.card, "version": claimed.number}, files)
            old = f"/v1/models/bench/versions/{number - 1}"
            http.post(f"/v2/models/bench/versions/{number - 1}/infer", content=sent).raise_for_status()
            http.delete(old).raise_for_status()
            deleted = last = time.perf_counter()
            while time.perf_counter() - deleted < 3:
                if http.post(f"/v2/models/bench/versions/{number - 1}/infer", content=sent).status_code == 200:
                    last = time.perf_counter()
            longest = max(longest, last - deleted)
        load.join()
    seen = loads[0]
    return [
        Ratio(f"requests that fail while {SWAPS} versions come and go", "none", seen.refused + seen.unanswered, "<= 0",
              f"{seen.per_s:,.0f}/s"),
        Ratio("longest answers of a deleted version", "5 s", longest / 5, "<= 1", f"{longest:.2f} s"),
    ]  # fmt: skip


def _files(folder: Path) -> list[Ratio]:
    """A file behind an XRootD server, against reading, building vectors and LiteRT in a plain loop."""
    command = [sys.executable, "-m", "hepfaas", "train", str(EXAMPLE), "--store", f"{folder}/store"]
    subprocess.run(command, check=True, capture_output=True)
    published = versions.load(open_store(f"{folder}/store/local"), "htautau")
    names = [*(branch.name for branch in published.spec.branches), *published.spec.identifiers]
    memory: dict[int, float] = {}
    with XRootD() as xrootd, server("ours", folder, HEPFAAS_ALLOW_PRIVATE="1") as started:
        url = xrootd.serve(multiplied(EVENTS, CLUSTER))

        def plain() -> None:
            model = LiteRtModel(published.graph)
            with uproot.open({url: "Events"}, handler=uproot.XRootDSource) as tree:
                for start in range(0, EVENTS, RANGE):
                    part = {"entry_start": start, "entry_stop": start + RANGE}
                    arrays = tree.arrays(names, **part, library="ak", how=dict, array_cache=None)
                    model.predict(matrix({name: arrays[name] for name in names}, published.spec))

        def ours(accept: str, of: str, events: int) -> None:
            assert sum(_streamed(started.url, of, accept)) > events

        arrow = "application/vnd.apache.arrow.stream"
        found = in_turn(
            5,
            plain=lambda: seconds(plain),
            lines=lambda: seconds(lambda: ours("", url, EVENTS)),
            arrow=lambda: seconds(lambda: ours(arrow, url, EVENTS)),
        )
    for events in (SHORT, LONG):
        with XRootD() as xrootd, server("ours", folder, HEPFAAS_ALLOW_PRIVATE="1") as started:
            url = xrootd.serve(multiplied(events, CLUSTER))
            with watched(started.process.pid, 0.05) as seen:
                ours("", url, events)
            memory[events] = max(seen)
    rate = f"{EVENTS / found['lines']:,.0f} events/s, {published.spec.n_features} features"
    return [
        Ratio("events/s of a file, lines", "a plain loop", found["plain"] / found["lines"], ">= 0.70", rate),
        Ratio("events/s of a file, Arrow", "a plain loop", found["plain"] / found["arrow"], ">= 0.70"),
        Ratio(f"most memory, {LONG:,} events", f"{SHORT:,} events", memory[LONG] / memory[SHORT], "<= 1.3",
              f"{memory[LONG]:.0f} MB"),
    ]  # fmt: skip


def _streamed(url: str, file: str, accept: str) -> Iterator[int]:
    """Bytes of each piece of an answer."""
    sent, place = {"files": [file], "tree": "Events"}, f"{url}/v1/models/htautau/predict"
    with httpx.stream("POST", place, json=sent, headers={"Accept": accept}, timeout=300) as answer:
        answer.raise_for_status()
        yield from map(len, answer.iter_raw())
