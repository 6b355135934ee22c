"""`predict` under overload, on files, and while its versions are swapped."""

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
"""Bound of the 99th percentile: the longest queueing time, and a second for the computation and the load generator."""

EVENTS, CLUSTER, RANGE = 200_000, 1_000, 10_000
SHORT, LONG = 10_000, 1_000_000
SWAPS = 5


def measure() -> list[Ratio]:
    """Make all comparisons."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        features = trained(folder, "large", LARGE, ROWS)
        trained(folder, "bench", SMALL, 1)
        return [*_overload(folder, features), *_crowd(folder, features), *_swap(folder, features), *_files(folder)]


@dataclass(frozen=True)
class Answer:
    """Answer to one request: its status, 0 without an answer, and seconds from the time it was due to its end."""

    status: int
    seconds: float


def _overload(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """Send four times as many requests a second as the server can answer, without waiting for answers."""
    head, blob = binary(features)
    body, headers = head + blob, {"Inference-Header-Content-Length": str(len(head))}
    path = "/v2/models/large/infer"
    with server("ours", folder) as started:

        def full_speed() -> float:
            return wrk(folder, started.url + path, body, headers, clients=8, seconds=5).per_s

        full_speed()
        before, memory = full_speed(), memory_mb(started.process.pid)
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": len(body)}.items())
        request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + body
        port = int(started.url.rpartition(":")[2])
        with watched(started.process.pid) as memories:
            answers = asyncio.run(_at_a_rate(port, request, OVER * before))
        time.sleep(AFTER_S)
        after_mb = memory_mb(started.process.pid)
        grown = max(memories[-len(memories) // 3 :]) / max(memories[: len(memories) // 3])
        after = full_speed()
    accepted = sorted(answer.seconds for answer in answers if answer.status == 200)
    refused = sum(answer.status in (429, 503) for answer in answers)
    others = len(answers) - len(accepted) - refused
    p99 = accepted[int(0.99 * len(accepted))]
    detail = f"{len(accepted):,} accepted, {refused:,} refused of {len(answers):,}; alone {before:,.0f}/s"
    return [
        Ratio(
            f"p99 of what is accepted at {OVER} times capacity",
            f"{P99_S:g} s",
            p99 / P99_S,
            "<= 1",
            detail=f"{p99:.2f} s",
        ),
        Ratio("answers that are neither 200, 429 nor 503", "none", others, "<= 0", detail=detail),
        Ratio("answered meanwhile", "full speed", len(accepted) / OVERLOAD_S / before, ">= 0.5"),
        Ratio(
            f"memory {AFTER_S:g} s afterwards", "before", after_mb / memory, "<= 1.5", detail=f"{memory:.0f} MB before"
        ),
        Ratio("most memory in the last third", "the first third", grown, "<= 1.1", detail=f"{max(memories):.0f} MB"),
        Ratio("full speed afterwards", "before", after / before, ">= 0.9"),
    ]


async def _at_a_rate(port: int, request: bytes, per_s: float) -> list[Answer]:
    """Send requests at equal intervals and return their answers; connections are reused."""
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
        await asyncio.sleep(max(0.0, due - time.perf_counter()))  # a sleep of 0 lets the other tasks run
        task = asyncio.create_task(one(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    for _, writer in idle:
        writer.close()
    return answers


def _crowd(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """Send one row from each of a thousand clients to a model so fast that only connections queue up."""
    with server("ours", folder) as started:
        url = f"{started.url}/v2/models/bench/infer"
        few, crowd = (wrk(folder, url, infer(features[:1]), {}, clients=clients, seconds=5) for clients in (16, 1_000))
    detail = f"{crowd.per_s:,.0f}/s, {crowd.refused} refused"
    return [
        Ratio("p99 of one row with 1,000 clients", "1 s", crowd.p99_ms / 1000, "<= 1", detail=f"{crowd.p99_ms:.0f} ms"),
        Ratio("one row with 1,000 clients", "16 clients", crowd.per_s / few.per_s, ">= 0.7", detail=detail),
    ]


def _swap(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """Publish and delete versions while 16 clients use the newest; measure how long deleted ones still answer."""
    store, first = open_store(f"{folder}/store/local"), versions.load(open_store(f"{folder}/store/local"), "bench")
    files = {versions.SPEC: store.get(f"models/bench/1/{versions.SPEC}"), versions.GRAPH: first.graph}
    body, longest_s = infer(features[:1]), 0.0
    with server("ours", folder) as started, httpx.Client(base_url=started.url, timeout=30) as http:
        loads: list[Any] = []
        url = f"{started.url}/v2/models/bench/infer"
        load = threading.Thread(
            target=lambda: loads.append(wrk(folder, url, body, {}, clients=16, seconds=4.0 * SWAPS))
        )
        load.start()
        for number in range(2, 2 + SWAPS):
            time.sleep(0.5)
            claimed = versions.claim(store, "bench", f"claim {number}")
            versions.publish(store, claimed, {**first.card, "version": claimed.number}, files)
            old = f"/v1/models/bench/versions/{number - 1}"
            http.post(f"/v2/models/bench/versions/{number - 1}/infer", content=body).raise_for_status()
            http.delete(old).raise_for_status()
            deleted = last = time.perf_counter()
            while time.perf_counter() - deleted < 3:
                if http.post(f"/v2/models/bench/versions/{number - 1}/infer", content=body).status_code == 200:
                    last = time.perf_counter()
            longest_s = max(longest_s, last - deleted)
        load.join()
    swapped = loads[0]
    return [
        Ratio(
            f"requests that fail while {SWAPS} versions come and go",
            "none",
            swapped.refused + swapped.unanswered,
            "<= 0",
            detail=f"{swapped.per_s:,.0f}/s",
        ),
        Ratio("longest answers of a deleted version", "5 s", longest_s / 5, "<= 1", detail=f"{longest_s:.2f} s"),
    ]


def _files(folder: Path) -> list[Ratio]:
    """Predict on a file of an XRootD server, against a plain loop that reads, builds vectors and runs LiteRT."""
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

        def ours(accept: str, file: str, events: int) -> None:
            assert sum(_streamed(started.url, file, accept)) > events

        arrow = "application/vnd.apache.arrow.stream"
        taken = in_turn(
            5,
            plain=lambda: seconds(plain),
            lines=lambda: seconds(lambda: ours("", url, EVENTS)),
            arrow=lambda: seconds(lambda: ours(arrow, url, EVENTS)),
        )
    for events in (SHORT, LONG):
        with XRootD() as xrootd, server("ours", folder, HEPFAAS_ALLOW_PRIVATE="1") as started:
            url = xrootd.serve(multiplied(events, CLUSTER))
            with watched(started.process.pid, 0.05) as memories:
                ours("", url, events)
            memory[events] = max(memories)
    rate = f"{EVENTS / taken['lines']:,.0f} events/s, {published.spec.n_features} features"
    return [
        Ratio("events/s of a file, lines", "a plain loop", taken["plain"] / taken["lines"], ">= 0.70", detail=rate),
        Ratio("events/s of a file, Arrow", "a plain loop", taken["plain"] / taken["arrow"], ">= 0.70"),
        Ratio(
            f"most memory, {LONG:,} events",
            f"{SHORT:,} events",
            memory[LONG] / memory[SHORT],
            "<= 1.3",
            detail=f"{memory[LONG]:.0f} MB",
        ),
    ]


def _streamed(url: str, file: str, accept: str) -> Iterator[int]:
    """Yield the size of each piece of an answer."""
    request = {"files": [file], "tree": "Events"}
    with httpx.stream(
        "POST", f"{url}/v1/models/htautau/predict", json=request, headers={"Accept": accept}, timeout=300
    ) as answer:
        answer.raise_for_status()
        yield from map(len, answer.iter_raw())
