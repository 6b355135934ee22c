"""Parquet, Avro, JSON lines and CSV files read range by range, against the format's own reader in a plain loop.

Both use one thread: a service has a process for each core. Memory: of a file four times as large, against the smaller.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from hepfaas.datasets.opened import OpenedFile, opened, read
from hepfaas.datasets.ranges import planned
from measured import CACHE, Ratio, in_turn, seconds

EVENTS, RANGE, LARGER = 200_000, 50_000, 4
FLAT, LISTS = 16, 4
NAMES = {"parquet": "pyarrow.parquet", "avro": "fastavro", "json": "pyarrow.json", "csv": "pyarrow.csv"}


def measure() -> list[Ratio]:
    """Make all comparisons."""
    pa.set_cpu_count(1)
    files = {format_: written(format_, EVENTS) for format_ in NAMES}
    ratios = []
    for format_, path in files.items():
        ours = partial(seconds, partial(ranges_of, opened(str(path), "Events")))
        taken = in_turn(3, ours=ours, plain=partial(seconds, partial(PLAIN[format_], path)))
        rate, against = f"{EVENTS / taken['ours']:,.0f} events/s", f"{NAMES[format_]} in a loop"
        ratios.append(
            Ratio(f"{format_}: rate of reading", against, taken["plain"] / taken["ours"], ">= 0.70", detail=rate)
        )
    for format_, path in files.items():
        small, large = (peak_mb(each) for each in (path, written(format_, LARGER * EVENTS)))
        detail = f"{small:.0f} and {large:.0f} MB"
        ratios.append(
            Ratio(f"{format_}: memory of {LARGER} times the events", "once", large / small, "<= 1.15", detail=detail)
        )
    return ratios


def ranges_of(file: OpenedFile) -> None:
    """Read all branches of a file, which another step opened before, range by range."""
    names = [branch.name for branch in file.branches]
    for entries in planned(file.baskets(names), file.entries, RANGE):
        read(file.url, file.identity, "Events", branches=names, entries=entries, layout=file.layout)


def plain_parquet(path: Path) -> int:
    return sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches(RANGE, use_threads=False))


def plain_avro(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in fastavro.reader(file))


def plain_json(path: Path) -> int:
    options = pa.json.ReadOptions(use_threads=False, block_size=4_000_000)
    return sum(batch.num_rows for batch in pa.json.open_json(path, options))


def plain_csv(path: Path) -> int:
    options = pa.csv.ReadOptions(use_threads=False, block_size=4_000_000)
    return sum(batch.num_rows for batch in pa.csv.open_csv(path, options))


PLAIN: Mapping[str, Callable[[Path], int]] = {
    "parquet": plain_parquet,
    "avro": plain_avro,
    "json": plain_json,
    "csv": plain_csv,
}


def written(format_: str, n_events: int) -> Path:
    """Return a file of events, written once."""
    path = CACHE / f"tables-{n_events}.{format_}"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as out:
            WRITERS[format_](events(n_events), out)
        part.rename(path)
    return path


def events(n_events: int) -> Any:
    random = np.random.default_rng(7)
    columns: dict[str, Any] = {f"f{number}": random.normal(size=n_events) for number in range(FLAT)}
    for number in range(LISTS):
        offsets = np.concatenate([[0], np.cumsum(random.integers(0, 5, n_events))]).astype(np.int32)
        columns[f"l{number}"] = pa.ListArray.from_arrays(offsets, random.exponential(size=int(offsets[-1])))
    return pa.table({**columns, "event": np.arange(n_events)})


def to_parquet(table: Any, out: Any) -> None:
    pq.write_table(table, out, row_group_size=RANGE)


def to_avro(table: Any, out: Any) -> None:
    types = {"double": "double", "int64": "long"}
    fields = [
        {"name": f.name, "type": types.get(str(f.type)) or {"type": "array", "items": "double"}} for f in table.schema
    ]
    schema = {"type": "record", "name": "Event", "fields": fields}
    fastavro.writer(
        out, schema, (row for batch in table.to_batches(10_000) for row in batch.to_pylist()), codec="deflate"
    )


def to_json(table: Any, out: Any) -> None:
    for batch in table.to_batches(10_000):
        out.write("".join(json.dumps(row) + "\n" for row in batch.to_pylist()).encode())


def to_csv(table: Any, out: Any) -> None:
    pa.csv.write_csv(table.drop([f"l{number}" for number in range(LISTS)]), out)


WRITERS: Mapping[str, Callable[[Any, Any], None]] = {
    "parquet": to_parquet,
    "avro": to_avro,
    "json": to_json,
    "csv": to_csv,
}


def peak_mb(path: Path) -> float:
    """Return the peak memory of a process that reads a file as a worker does, in units of 10^6 bytes."""
    program = [sys.executable, __file__, str(path)]
    return float(subprocess.run(program, check=True, capture_output=True, text=True, timeout=600).stdout)


def read_here(path: Path) -> None:
    """Read a file in this process, and print its peak memory."""
    from hepfaas.datasets.tables.table import MappedData
    from hepfaas.datasets.tables.worker import TABLES

    with path.open("rb") as file:
        table = TABLES[path.suffix[1:]](MappedData(file.fileno()), path.name, {})
        for start in range(0, table.entries, RANGE):
            table.read(list(table.branches), start, min(start + RANGE, table.entries))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous = int(status["VmHWM"].split()[0]) - int(status["RssFile"].split()[0])
    sys.stdout.write(str(anonymous / 1000))


if __name__ == "__main__":
    read_here(Path(sys.argv[1]))
