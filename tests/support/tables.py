"""Files of the same events in every format, written by other libraries."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import uproot

AVRO_TYPES = {"double": "double", "float": "float", "int64": "long", "int32": "int", "bool": "boolean"}
GROUP = 40
"""Events of a row group or cluster."""


def events(n_events: int, seed: int = 1) -> dict[str, Any]:
    """Return branches: `met`, `weight` (float64), `n` (int64), `time` (int64 above 2**53), `pt` (jagged, float64)."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 4, n_events)
    return {
        "met": random.exponential(30.0, n_events),
        "weight": random.random(n_events),
        "n": random.integers(-5, 5, n_events),
        "time": 1_700_000_000_000_000_000 + random.integers(0, 1000, n_events),
        "pt": ak.unflatten(random.exponential(20.0, int(counts.sum())), counts),
    }


def table(branches: Mapping[str, Any]) -> Any:
    return pa.table({name: ak.to_arrow(ak.Array(values), extensionarray=False) for name, values in branches.items()})


def flat(branches: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in branches.items() if isinstance(values, np.ndarray)}


def write_tree(path: Path, branches: Mapping[str, Any]) -> None:
    with uproot.recreate(path) as file:
        file.mktree("Events", {name: str(ak.Array(values).type.content) for name, values in branches.items()})
        for start in range(0, len(branches["met"]), GROUP):
            file["Events"].extend({name: values[start : start + GROUP] for name, values in branches.items()})


def write_ntuple(path: Path, branches: Mapping[str, Any]) -> None:
    with uproot.recreate(path) as file:
        file.mkrntuple("Events", ak.Array(dict(branches)))


def write_parquet(path: Path, branches: Mapping[str, Any]) -> None:
    pq.write_table(table(branches), path, row_group_size=GROUP)


def write_avro(path: Path, branches: Mapping[str, Any], codec: str = "deflate") -> None:
    fields = []
    for field in table(branches).schema:
        type_ = field.type.value_type if pa.types.is_nested(field.type) else field.type
        kind: Any = AVRO_TYPES[str(type_)]
        fields.append({"name": field.name, "type": {"type": "array", "items": kind} if type_ != field.type else kind})
    schema = {"type": "record", "name": "Event", "fields": fields}
    with path.open("wb") as file:
        fastavro.writer(file, schema, table(branches).to_pylist(), codec=codec, sync_interval=2_000)


def json_text(branches: Mapping[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in table(branches).to_pylist())


def csv_bytes(branches: Mapping[str, Any]) -> bytes:
    out = pa.BufferOutputStream()
    pa.csv.write_csv(table(flat(branches)), out)
    return bytes(out.getvalue())


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


WRITERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "tree.root": write_tree,
    "ntuple.root": write_ntuple,
    "events.parquet": write_parquet,
    "events.avro": write_avro,
    "events.jsonl": lambda path, branches: path.write_text(json_text(branches)),
    "events.json.gz": lambda path, branches: path.write_bytes(gzip.compress(json_text(branches).encode())),
    "events.ndjson.bz2": lambda path, branches: path.write_bytes(bz2.compress(json_text(branches).encode())),
    "events.json.zst": lambda path, branches: path.write_bytes(zstd(json_text(branches).encode())),
    "events.csv": lambda path, branches: path.write_bytes(csv_bytes(branches)),
    "events.csv.gz": lambda path, branches: path.write_bytes(gzip.compress(csv_bytes(branches))),
}
"""By the name of a file."""


def write(folder: Path, names: Sequence[str], branches: Mapping[str, Any]) -> list[Path]:
    """Write files of these names; return their paths."""
    for name in names:
        WRITERS[name](folder / name, branches)
    return [folder / name for name in names]
