"""A trained model and the function `predict` that serves it, for the tests of tests/serving."""

import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uproot
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import FeatureSpec
from hepfaas.models import versions
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from numpy.typing import NDArray
from support.jobs import small_job
from support.servers import LIMIT_S, free_port, is_open, wait_until

TOP = Path(__file__).parents[2]
PREDICT, INFER = "/v1/models/job/predict", "/v2/models/job/infer"
ARROW, PARQUET, ROOT = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet", "application/x-root"


def train(folder: Path) -> None:
    """Train the model 'job' in a folder, and write its scores of one file by `hepfaas predict`."""
    file = small_job(folder / "job", selected_branches=["met", "lep_pt"]) / "signal.root"
    for words in (
        ("train", str(folder / "job"), "--workers", "1"),
        ("predict", "job", str(file), "--out", f"{folder}/reference.root"),
    ):
        command = [sys.executable, "-m", "hepfaas", *words, "--store", f"{folder}/store"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


class Served:
    """The function `predict` in a process of its own, with the model, events and scores of a folder of `train`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "job" / "signal.root"
        with uproot.open(folder / "reference.root") as file:
            self.scores: NDArray[np.float32] = file["scores"]["score"].array(library="np")
        with uproot.open(self.file) as file:
            self.events = file["Events"].arrays()
        self.store: Store = open_store(f"{folder}/store/local")
        published = versions.load(self.store, "job")
        self.spec: FeatureSpec = published.spec
        self.features = matrix({branch.name: self.events[branch.name] for branch in self.spec.branches}, self.spec)

    @contextmanager
    def started(self, name: str = "predict", **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Start a function in a process of its own; give the process and its port."""
        port, main = free_port(), str(TOP / "functions" / name / "main.py")
        variables = {
            "HEPFAAS_STORE": f"{self.folder}/store",
            "HEPFAAS_ALLOW_PRIVATE": "1",
            "HEPFAAS_PREDICT_BODY_BYTES": "3000000",
            "XRD_CONNECTIONRETRY": "1",
            "XRD_CONNECTIONWINDOW": "2",
            "XRD_STREAMERRORWINDOW": "0",
            "XRD_REQUESTTIMEOUT": "5",
            "FUNCTION_TARGET": "predict",
            "FUNCTION_SOURCE": main,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKERS": "1",
            **settings,
        }
        command = [sys.executable, *(("-m", "functions_framework") if name == "predict" else (main,))]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log)
        try:
            wait_until(lambda: is_open(port), process, name)
            yield process, port
        finally:
            process.terminate()
            process.wait(timeout=LIMIT_S)
        assert process.returncode == 0

    def __enter__(self) -> "Served":
        with ExitStack() as stack:
            self.process, port = stack.enter_context(self.started())
            self.url = f"http://127.0.0.1:{port}"
            self.http = stack.enter_context(httpx.Client(base_url=self.url, timeout=60))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @functools.cached_property
    def grpc(self) -> str:
        """Address of `predict-grpc`, which is started for the first test that needs it."""
        return f"127.0.0.1:{self._stack.enter_context(self.started('predict-grpc'))[1]}"

    def columns(self, *, of: int | None = None) -> dict[str, Any]:
        """Return the file's events as JSON values, by branch."""
        return {name: ak.to_list(self.events[name][:of]) for name in self.events.fields}


def same(values: Any, scores: NDArray[np.float32]) -> bool:
    """Return whether scores are equal bit for bit."""
    return np.array_equal(np.asarray(values, dtype=np.float32), scores)


def typed(served: Served, met: str, lep_pt: str) -> str:
    """Return the name of a copy of the model whose branches have other types in its spec."""
    name = f"job-{met}-{lep_pt}"
    if not versions.newest(served.store, name):
        types, first = {"met": met, "lep_pt": lep_pt}, versions.load(served.store, "job")
        branches = (
            replace(branch, type=types[branch.name], low=0.0, high=100.0, width=branch.width)
            for branch in served.spec.branches
        )
        spec = json.dumps(replace(served.spec, branches=tuple(branches)).to_json()).encode()
        claimed = versions.claim(served.store, name, "claim")
        files = {versions.SPEC: spec, versions.GRAPH: first.graph}
        versions.publish(served.store, claimed, {**first.card, "name": name}, files)
    return name


def tensor(name: str, datatype: str, shape: Any, data: Any) -> dict[str, Any]:
    """Return a tensor of the Open Inference Protocol in JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def memory_mb(process: subprocess.Popen[bytes], what: str = "VmRSS") -> float:
    """Return the memory of gunicorn's worker, the only child of the process."""
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    match = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    assert match
    return int(match[1]) / 1000


def documents(events: ak.Array, file: Path) -> dict[str, bytes]:
    """Return the events in every form that `predict` takes, by media type."""
    table = ak.to_arrow_table(events, extensionarray=False)
    arrow, parquet = io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    columns = {name: ak.to_list(events[name]) for name in events.fields}
    return {
        "application/json": json.dumps({"events": columns}).encode(),
        ARROW: arrow.getvalue(),
        PARQUET: parquet.getvalue(),
        ROOT: file.read_bytes(),
    }
