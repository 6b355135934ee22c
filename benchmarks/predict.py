"""Requests a second of `predict` against MLServer and KServe with the same network, and against a bare ASGI app.

Each peer has its own environment, created by the first run. Debian's `wrk` generates the load.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from measured import CACHE, Ratio
from predict_servers import FEATURES, SECONDS, TOP, Load, Processes, free_port, memory_mb, server, trained, wrk

ROWS = 1_000
SMALL, LARGE = (128, 64), (470, 470)
"""Widths of hidden layers: 12,000 weights for rates, 240,000 for a cold process."""

ROUNDS = 3
CLIENTS = (1, 16, 64)
Loads = Mapping[str, Mapping[str, Load]]
"""By server, then by kind of requests."""


def measure() -> list[Ratio]:
    """Measure requests of one row by 1, 16 and 64 clients, requests of 1,000 rows, and the first answer when cold."""
    if shutil.which("wrk") is None:
        raise SystemExit("no wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        folder = Path(scratch)
        features = trained(folder, "bench", SMALL, ROWS)
        trained(folder, "large", LARGE, 1)
        loads = _rates(folder, features)
        cold = _cold(folder, features)
    (CACHE / "predict.json").write_text(json.dumps(loads, indent=1, default=asdict))
    _report(loads)
    return [*_ratios(loads), *cold]


def _ratios(loads: Loads) -> list[Ratio]:
    def rate(name: str, load: str) -> float:
        return loads[name][load].per_s

    def detail(load: str, *names: str) -> str:
        return ", ".join(f"{name} {rate(name, load):,.0f}/s" for name in names)

    def peer(load: str) -> str:
        return max(("mlserver", "kserve"), key=lambda name: rate(name, load))

    ratios = []
    for load, bound in (("1 row, 1 clients", ">= 1"), ("1 row, 16 clients", ">= 4"), ("1 row, 64 clients", ">= 1")):
        best = peer(load)
        ratio = rate("V2", load) / rate(best, load)
        ratios.append(Ratio(f"V2, {load}", best, ratio, bound, detail=detail(load, "V2", best)))
    load = "1 row, 16 clients"
    for name in ("V2", "/json"):
        for floor, bound in (("floor", ">= 0.45"), ("framework", ">= 0.45")):
            against = "a bare ASGI app" if floor == "floor" else "functions-framework's own echo"
            ratio = rate(name, load) / rate(floor, load)
            ratios.append(Ratio(f"{name}, {load}", against, ratio, bound, detail=detail(load, name, floor)))
    load = f"{ROWS} rows, 4 clients"
    rows = rate("V2 binary", load) * ROWS
    ratios.append(
        Ratio(f"rows/s of V2 binary, {load}", "1.5 million", rows / 1.5e6, ">= 1", detail=f"{rows:,.0f} rows/s")
    )
    ratio = rate("V2", load) / rate("kserve", load)
    ratios.append(Ratio(f"V2 JSON, {load}", "kserve", ratio, ">= 2", detail=detail(load, "V2", "kserve")))
    return ratios


def _rates(folder: Path, features: np.ndarray[Any, Any]) -> Loads:
    """Return request rates and latencies. The servers are measured in turn, each alone on the machine with the load."""
    samples: dict[str, dict[str, list[Load]]] = {}
    json_1, json_n = (infer(features[:count]) for count in (1, ROWS))
    head, blob = binary(features)
    old = json.dumps({"keys": [], "values": features[0].tolist(), "model": "bench"}).encode()
    v2 = "/v2/models/bench/infer"
    many = f"{ROWS} rows, 4 clients"
    requests = {
        "ours": [
            *(("V2", f"1 row, {c} clients", v2, json_1, {}, c) for c in CLIENTS),
            *(("/json", f"1 row, {c} clients", "/json", old, {}, c) for c in CLIENTS),
            ("V2 binary", many, v2, head + blob, {"Inference-Header-Content-Length": str(len(head))}, 4),
            ("V2", many, v2, json_n, {}, 4),
        ],
        "floor": [("floor", f"1 row, {c} clients", "/", json_1, {}, c) for c in CLIENTS],
        "framework": [("framework", f"1 row, {c} clients", "/", json_1, {}, c) for c in CLIENTS],
        "mlserver": [
            *(("mlserver", f"1 row, {c} clients", v2, json_1, {}, c) for c in CLIENTS),
            ("mlserver", many, v2, json_n, {}, 4),
        ],
        "kserve": [
            *(("kserve", f"1 row, {c} clients", v2, json_1, {}, c) for c in CLIENTS),
            ("kserve", many, v2, json_n, {}, 4),
        ],
    }
    for _ in range(ROUNDS):
        for rival, rival_requests in requests.items():
            with server(rival, folder) as started:
                for name, load, path, body, headers, clients in rival_requests:
                    url = f"{started.url}{path}"
                    wrk(folder, url, body, headers, clients=clients, seconds=1)  # warm-up
                    processes = Processes.of(started.process.pid)
                    before = processes.cpu_s()
                    sample = wrk(folder, url, body, headers, clients=clients)
                    front_us, workers_us = (
                        1e6 * (after - start) / (sample.per_s * SECONDS)
                        for start, after in zip(before, processes.cpu_s(), strict=True)
                    )
                    sample = replace(sample, front_us=front_us, workers_us=workers_us)
                    if sample.refused or (sample.unanswered and rival in ("ours", "floor")):
                        raise SystemExit(f"{name}, {load}: {sample}")
                    samples.setdefault(name, {}).setdefault(load, []).append(sample)
    return {
        name: {
            load: sorted(rounds, key=lambda sample: sample.per_s)[len(rounds) // 2] for load, rounds in by_load.items()
        }
        for name, by_load in samples.items()
    }


def infer(features: np.ndarray[Any, Any]) -> bytes:
    """Return a request of the Open Inference Protocol in JSON."""
    tensor = {"name": "features", "shape": features.shape, "datatype": "FP32", "data": features.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def binary(features: np.ndarray[Any, Any]) -> tuple[bytes, bytes]:
    """Return the same request with a binary tensor: its JSON header and the bytes that follow it."""
    blob = features.tobytes()
    tensor = {"name": "features", "shape": features.shape, "datatype": "FP32"}
    head = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(blob)}}],
        "parameters": {"binary_data_output": True},
    }
    return json.dumps(head).encode(), blob


def _cold(folder: Path, features: np.ndarray[Any, Any]) -> list[Ratio]:
    """Measure the time from the start of a process to its first answer, and its memory then."""
    old = {"values": features[0].tolist(), "model": "large"}
    columns = {f"x{n:02d}": features[:1, n].tolist() for n in range(FEATURES)}
    requests = {
        "/json": ("/json", old, 0.5),
        "V2": ("/v2/models/large/infer", json.loads(infer(features[:1])), 0.5),
        "raw events": ("/v1/models/large/predict", {"events": columns}, 1.0),
    }
    bare = sorted(_first_answer(folder, "/", {}, TOP / "benchmarks/peers/bare/main.py")[0] for _ in range(5))[2]
    ratios = []
    for name, (path, body, limit) in requests.items():
        runs = sorted(_first_answer(folder, path, body) for _ in range(5))
        seconds, memory = runs[2]
        detail = f"{seconds:.2f} s; a function that does nothing {bare:.2f} s"
        ratios.append(
            Ratio(f"first answer of a cold process, {name}", f"{limit} s", seconds / limit, "<= 1", detail=detail)
        )
        if name != "raw events":
            ratios.append(Ratio("its memory", "150 MB", memory / 150, "<= 1", detail=f"{memory:.0f} MB"))
    return ratios


def _first_answer(
    folder: Path, path: str, body: Any, source: Path = TOP / "functions/predict/main.py"
) -> tuple[float, float]:
    """Return the seconds from the start of a function's process to its first answer, and its memory in MB then."""
    port, target = free_port(), source.parent.name
    environ = {**os.environ, "HEPFAAS_STORE": f"{folder}/store", "FUNCTION_TARGET": target, "PORT": str(port)}
    environ |= {"FUNCTION_SOURCE": str(source), "WORKERS": "1", "HOST": "127.0.0.1"}
    began = time.perf_counter()
    with (folder / "cold.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "functions_framework"], env=environ, stdout=log, stderr=log, process_group=0
        )
    try:
        with httpx.Client(timeout=30) as client:
            while time.perf_counter() - began < 30:
                try:
                    answer = client.post(f"http://127.0.0.1:{port}{path}", json=body)
                    break
                except httpx.HTTPError:
                    time.sleep(0.002)
        seconds = time.perf_counter() - began
        answer.raise_for_status()
        return seconds, memory_mb(process.pid)
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _report(loads: Loads) -> None:
    for name, by_load in loads.items():
        for load, sample in by_load.items():
            line = f"      {name:10} {load:20} {sample.per_s:10,.0f}/s"
            line += f"  p50 {sample.p50_ms:8.2f} ms  p99 {sample.p99_ms:8.2f} ms"
            line += f"  CPU {sample.front_us:7.1f} us in front, {sample.workers_us:7.1f} us in workers\n"
            sys.stdout.write(line)
