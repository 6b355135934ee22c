"""Servers for the benchmarks of predictions, each started in its usual way, and the load generator, Debian's `wrk`.

Each peer has its own environment, created by the first run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import httpx
import numpy as np
import uproot
from hepfaas.models import versions
from hepfaas.platform.stores import open_store
from hepfaas.training.checkpoint import arrays_of
from support.servers import XRootD, free_port

__all__ = ["Processes", "XRootD", "free_port", "memory_mb", "server", "trained", "watched", "wrk"]

TOP = Path(__file__).parents[1]
PEERS = TOP / ".cache" / "peers"
UV = TOP / ".cache" / "uv" / "bin" / "uv"
VERSIONS = {"kserve": "kserve==0.21.0", "mlserver": "mlserver==1.7.1"}
FEATURES, SECONDS = 29, 4.0
MODEL = """
import keras
WIDTHS = {widths}
def model(idim):
    L = keras.layers
    dense = [L.Dense(width, "relu") for width in WIDTHS]
    net = keras.Sequential([L.Input((idim,)), *dense, L.Dense(1, "sigmoid")])
    net.compile("adam", "binary_crossentropy")
    return net
"""


def trained(folder: Path, model: str, widths: tuple[int, ...], rows: int) -> np.ndarray[Any, Any]:
    """Train a model, save its weights beside the store for the peers, and return features of `rows` events."""
    job = folder / model
    job.mkdir()
    chooser = np.random.default_rng(1)
    for number, name in enumerate(("signal", "background")):
        with uproot.recreate(job / f"{name}.root") as file:
            columns = {f"x{n:02d}": chooser.normal(number, 1, 500).astype("f4") for n in range(FEATURES)}
            file.mktree("Events", dict.fromkeys(columns, "float32")).extend(columns)
    (job / "files.txt").write_text("signal.root\nbackground.root\n")
    (job / "labels.txt").write_text("1\n0\n")
    (job / "model.py").write_text(MODEL.format(widths=widths))
    (job / "params.json").write_text(json.dumps({"epochs": 1}))
    command = [sys.executable, "-m", "hepfaas", "train", str(job), "--store", f"{folder}/store"]
    subprocess.run(command, check=True, capture_output=True)
    store = open_store(f"{folder}/store/local")
    arrays = arrays_of(store.get(versions.load(store, model).card["steps"]["checkpoint"]))
    layers = [arrays[name] for name in sorted(arrays) if name.startswith("model/")]
    layers = [array for array in layers if array.dtype == np.float32 and array.ndim]
    named = {f"{'bias' if n % 2 else 'kernel'}{n // 2}": array for n, array in enumerate(layers)}
    np.savez(folder / f"{model}.npz", **named)
    return chooser.random((rows, FEATURES), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Result of `wrk`.

    per_s: answers a second. p50_ms, p99_ms: median and 99th percentile of the latency. refused: answers that are not
    2xx. unanswered: requests without an answer within ten seconds. front_us, workers_us: CPU time of a request in the
    process that answers and in those that compute; 0 if not measured.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    unanswered: int
    front_us: float = 0.0
    workers_us: float = 0.0


def wrk(
    folder: Path, url: str, body: bytes, headers: Mapping[str, str], *, clients: int, seconds: float = SECONDS
) -> Load:
    """Send requests from this many clients, each as soon as its last one is answered."""
    (folder / "body").write_bytes(body)
    sent = {"Content-Type": "application/json", **headers}
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in sent.items())
    script = f'wrk.method = "POST"\nwrk.body = io.open("{folder}/body", "rb"):read("*a")\n{lines}\n'
    (folder / "load.lua").write_text(script)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--latency", "--timeout", "10s"]
    done = subprocess.run([*command, "-s", folder / "load.lua", url], check=True, capture_output=True, text=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    unanswered = re.search(r"timeout (\d+)", done.stdout)
    assert rate
    return Load(
        per_s=float(rate[1]),
        p50_ms=_ms(done.stdout, "50"),
        p99_ms=_ms(done.stdout, "99"),
        refused=int(refused[1]) if refused else 0,
        unanswered=int(unanswered[1]) if unanswered else 0,
    )


def _ms(output: str, percent: str) -> float:
    latency = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", output)
    assert latency
    return float(latency[1]) * {"us": 0.001, "ms": 1, "s": 1000}[latency[2]]


@dataclass(frozen=True)
class Started:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def server(name: str, folder: Path, **settings: str) -> Iterator[Started]:
    """Run a server of the models in a folder: ours, floor, framework (functions-framework), kserve or mlserver."""
    port = free_port()
    environ = {**os.environ, "BENCH_WEIGHTS": str(folder / "bench.npz"), "PYTHONPATH": str(TOP / "benchmarks/peers")}
    commands: dict[str, list[str]] = {
        "ours": [sys.executable, "-m", "functions_framework"],
        "framework": [sys.executable, "-m", "functions_framework"],
        "floor": [sys.executable, "-m", "uvicorn", "--log-level", "error", "--port", str(port), "echo:app"],
        "kserve": [str(_peer("kserve")), str(TOP / "benchmarks/peers/kserve_network.py"), str(port)],
        "mlserver": [str(_peer("mlserver").with_name("mlserver")), "start", str(folder / "mlserver")],
    }
    if name in ("ours", "framework"):
        target, source = ("predict", "functions/predict") if name == "ours" else ("bare", "benchmarks/peers/bare")
        environ |= {"PYTHONPATH": "", "HEPFAAS_STORE": f"{folder}/store", "FUNCTION_TARGET": target, **settings}
        environ |= {"FUNCTION_SOURCE": str(TOP / source / "main.py"), "WORKERS": "1"}
        environ |= {"HOST": "127.0.0.1", "PORT": str(port)}
    if name == "mlserver":
        _configure_mlserver(folder / "mlserver", port)
    ready = {"floor": "/", "framework": "/", "ours": "/healthz"}.get(name, "/v2/models/bench/ready")
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(commands[name], env=environ, stdout=log, stderr=log, process_group=0)
    try:
        _wait(f"http://127.0.0.1:{port}{ready}", process, folder / f"{name}.log")
        yield Started(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.02)
    raise SystemExit(f"{url} does not answer: {log.read_text()[-2000:]}")


def _peer(name: str) -> Path:
    """Return the Python of a peer's environment, creating the environment if necessary."""
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", "3.11", PEERS / name], check=True)
        subprocess.run([UV, "pip", "install", "--quiet", "--python", python, VERSIONS[name]], check=True)
    return python


def _configure_mlserver(folder: Path, port: int) -> None:
    folder.mkdir(exist_ok=True)
    settings = {
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "bench", "implementation": "mlserver_network.Network"}
    (folder / "model-settings.json").write_text(json.dumps(model))


@dataclass(frozen=True)
class Processes:
    """Processes of a function: the one that answers, and those that compute (its fork server and workers)."""

    front: int
    workers: tuple[int, ...]

    @classmethod
    def of(cls, parent: int) -> Processes:
        """Return the processes below gunicorn's own process."""
        children = _children(parent)
        servers = [process for process in children if b"fork_server" in Path(f"/proc/{process}/cmdline").read_bytes()]
        front = next((process for process in children if process not in servers), parent)
        servers += [
            child for child in _children(front) if b"fork_server" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        return cls(front, tuple(process for server in servers for process in (server, *_children(server))))

    def memory_mb(self) -> float:
        """Return the memory of all processes; pages that they share count once."""
        return sum(map(_pss_mb, (self.front, *self.workers)))

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU time so far of the process that answers, and that of the others."""
        return _cpu_s(self.front), sum(map(_cpu_s, self.workers))


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _pss_mb(process: int) -> float:
    try:
        size = re.search(r"Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0
    return int(size[1]) / 1000 if size else 0.0


def _cpu_s(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(parent: int) -> float:
    """Return the memory of a function's processes; pages that they share count once."""
    return Processes.of(parent).memory_mb()


@contextmanager
def watched(parent: int, every_s: float = 0.5) -> Iterator[list[float]]:
    """Record the memory of a function in MB at regular intervals."""
    memories: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            memories.append(memory_mb(parent))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memories
    finally:
        done.set()
        thread.join()
