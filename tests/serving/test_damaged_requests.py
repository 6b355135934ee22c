"""Random and damaged requests: `predict` refuses them and leaves nothing behind."""

import io
import json
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import awkward as ak
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hepfaas.serving import tfaas_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.bodies import Body, changed
from support.serving import ARROW, INFER, PARQUET, PREDICT, ROOT, Served, documents, memory_mb

ALL = os.environ.get("HEPFAAS_CHAOS") == "all"
BODIES, DAMAGED = (20_000, 100_000) if ALL else (300, 600)
TEXTS = st.text(max_size=8) | st.sampled_from(["features", "met", "lep_pt", "job", "FP32", "scores", "\ud800"])
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner), max_leaves=8)
NUMBERS = st.lists(st.floats(width=32) | LEAVES, max_size=4)
TENSORS = st.fixed_dictionaries(
    {"name": TEXTS, "shape": st.lists(st.integers(-1, 4), max_size=3) | ANY, "datatype": TEXTS | st.just("FP32")},
    optional={"data": NUMBERS | ANY, "parameters": st.dictionaries(st.just("binary_data_size"), st.integers() | ANY)},
)
REQUESTS = st.fixed_dictionaries({"inputs": st.lists(TENSORS | ANY, max_size=3)}, optional={"outputs": ANY, "id": ANY})
EVENTS = st.dictionaries(st.sampled_from(["met", "lep_pt", "event"]), NUMBERS | ANY, max_size=3)
ASKED = st.fixed_dictionaries({}, optional={"events": EVENTS | st.lists(EVENTS, max_size=3) | ANY, "files": ANY})
ROWS = st.fixed_dictionaries({}, optional={"keys": ANY, "values": NUMBERS | ANY, "model": TEXTS | ANY})
PATHS = {
    INFER: REQUESTS | ANY,
    PREDICT: ASKED | ANY,
    "/json": ROWS | ANY,
    "/params": ANY,
    "/v1/models/job/predict?tree=%00": ASKED,
}
KINDS = st.sampled_from(["application/json", ARROW, "application/vnd.apache.arrow.file", PARQUET, ROOT, "text/x", ""])


def damaged(data: st.DataObject, served: Served) -> bytes:
    """A document of events of which something was changed, or cut off."""
    table = ak.to_arrow_table(served.events[:9], extensionarray=False)
    out = io.BytesIO()
    kind = data.draw(st.sampled_from(["arrow", "parquet", "root", "proto"]))
    if kind == "arrow":
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    elif kind == "parquet":
        pq.write_table(table, out)
    elif kind == "root":
        out.write(served.file.read_bytes())
    else:
        out.write(tfaas_pb2.Row(key=["a"], value=[1.0, 2.0], model="job").SerializeToString())
    whole = bytearray(out.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    return bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)


@pytest.mark.timeout(3000)
def test_what_nobody_would_send_is_no_fault_of_ours(served: Served) -> None:
    @settings(max_examples=BODIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.sampled_from([*PATHS, "/proto", "/proto?message=DataFrame"]), KINDS)
    def sent(data: st.DataObject, path: str, kind: str) -> None:
        if "proto" in path or kind not in ("application/json", ""):
            body = data.draw(st.binary(max_size=99)) if data.draw(st.booleans()) else damaged(data, served)
        else:
            body = json.dumps(data.draw(PATHS[path])).encode()
        headers = {"Content-Type": kind}
        if data.draw(st.integers(0, 4)) == 0:
            headers["Inference-Header-Content-Length"] = data.draw(st.sampled_from(["0", "7", "-1", "x", "99999999"]))
        answer = served.http.post(path, content=body, headers=headers)
        assert answer.status_code < 500 or answer.status_code == 503, (answer.text, body)
        assert "Traceback" not in answer.text

    sent()
    assert served.process.poll() is None


def valid_bodies(served: Served) -> list[Body]:
    """A request of every kind, to be changed into those that nobody would send."""
    events, rows = served.events[:9], served.features[:3]
    path, tree = f"{PREDICT}?tree=Events", {"name": "features", "shape": rows.shape, "datatype": "FP32"}
    blob, size = rows.tobytes(), {"parameters": {"binary_data_size": rows.nbytes}}
    raw = [
        {"name": "met", "shape": [1], "datatype": "FP32", "data": [1.0]},
        {"name": "lep_pt", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]},
    ]
    columns = {name: ak.to_list(events[name]) for name in events.fields}
    objects = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    json_of: list[tuple[str, Any]] = [
        (PREDICT, {"events": columns}),
        (PREDICT, {"events": objects[:2]}),
        (PREDICT, {"files": ["/etc/passwd", "file:///etc/passwd"], "tree": "Events", "entries": [0, 9]}),
        (INFER, {"id": "1", "inputs": [{**tree, "data": rows.tolist()}], "outputs": [{"name": "scores"}]}),
        (INFER, {"inputs": raw, "parameters": {"binary_data_output": True}}),
        ("/json", {"keys": served.spec.columns, "values": rows[0].tolist(), "model": "job"}),
        ("/predict/json", {"values": rows[0].tolist(), "model": "job"}),
        ("/params", {"name": "job"}),
    ]
    bodies = [Body(place, json.dumps(body).encode(), {"Content-Type": "application/json"}) for place, body in json_of]
    head = json.dumps({"inputs": [{**tree, **size}], "parameters": {"binary_data_output": True}}).encode()
    bodies += [Body(INFER, head + blob, {"Inference-Header-Content-Length": str(len(head))})] * 3
    kinds = documents(events, served.file)
    kinds["application/vnd.apache.arrow.file"] = kinds[ARROW]
    bodies += [Body(path, body, {"Content-Type": kind}) for kind, body in kinds.items()]
    row = tfaas_pb2.Row(key=served.spec.columns, value=rows[0].tolist(), model="job")
    bodies += [Body("/proto", row.SerializeToString(), {"Content-Type": "application/protobuf"})] * 2
    frame = tfaas_pb2.DataFrame(row=[row, row]).SerializeToString()
    bodies.append(Body("/predict/proto?message=DataFrame", frame, {}))
    for kind in ("PNG", "JPEG"):
        out = io.BytesIO()
        Image.fromarray(np.arange(48, dtype="u1").reshape(4, 4, 3)).save(out, kind)
        form = httpx.Request("POST", served.url, data={"model": "job"}, files={"image": out.getvalue()})
        bodies.append(Body("/image", form.read(), {"Content-Type": form.headers["Content-Type"]}))
    return bodies


def tree_of(folder: Path) -> set[Path]:
    """All that lies in a folder."""
    return {path for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.timeout(3000)
def test_valid_requests_that_were_damaged_are_answered_and_leave_nothing_behind(served: Served, tmp_path: Path) -> None:
    seed = int(os.environ.get("HEPFAAS_SEED", time.time_ns() % 2**32 if ALL else 1))
    rows = valid_bodies(served)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    kept = set(served.store.keys(""))
    with served.started(TMPDIR=str(inner)) as (process, port):
        url = f"http://127.0.0.1:{port}"

        def send(numbers: range) -> Counter[int]:
            statuses: Counter[int] = Counter()
            with httpx.Client(base_url=url, timeout=60) as http:
                for number in numbers:
                    one = changed(random.Random(f"{seed} {number}"), rows)
                    try:
                        answer = http.post(one.path, content=one.body, headers=one.headers)
                    except (httpx.InvalidURL, UnicodeEncodeError):
                        continue  # the client itself refuses
                    assert answer.status_code < 500, (seed, number, one, answer.text)
                    assert "Traceback" not in answer.text, (seed, number)
                    statuses[answer.status_code] += 1
            return statuses

        for row in rows:
            assert httpx.post(f"{url}{row.path}", content=row.body, headers=row.headers).status_code in (200, 422)
        send(range(-200, 0))
        before = memory_mb(process)
        with ThreadPoolExecutor(4) as senders:
            statuses = sum(senders.map(send, (range(first, DAMAGED, 4) for first in range(4))), Counter())
        assert memory_mb(process) < before + 100, (seed, before, memory_mb(process))
        assert process.poll() is None
        sys.stdout.write(f"{dict(statuses)}, {before:.0f} MB before, {memory_mb(process):.0f} after\n")
    assert {200, 422} <= set(statuses), seed
    assert tree_of(tmp_path) == set()
    left = {key for key in set(served.store.keys("")) - kept if not key.startswith("default/")}
    assert left == set(), seed
