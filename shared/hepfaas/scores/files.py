"""Files of scores: ROOT, Parquet, CSV or JSON, one row for each event. They are written whole or not at all."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.runs.targets import output_names

SCORE = re.compile(r"score(_[0-9]+)?|prediction(_\w+)?")
"""Names of the columns that a model has computed."""

ROOT, TREE = ".root", "scores"
"""Ending of a ROOT file, and the tree in it."""

CLUSTER_BYTES = 16_000_000
"""Size of a cluster of an RNTuple in memory."""

Columns = Mapping[str, NDArray[Any]]
Write = Callable[[Columns], None]


def score_names(outputs: int, targets: Sequence[str] = ()) -> list[str]:
    """Return the names of the score columns. outputs: scores of one event. targets: of a regression."""
    if targets:
        return output_names(targets)
    return ["score"] if outputs == 1 else [f"score_{output}" for output in range(outputs)]


def columns_of(
    entries: NDArray[np.int64],
    identifiers: Mapping[str, NDArray[Any]],
    scores: NDArray[np.float32],
    targets: Sequence[str] = (),
) -> dict[str, NDArray[Any]]:
    """Return the columns of a score file: entry, identifiers, scores or predicted targets."""
    named = {name: scores[:, place] for place, name in enumerate(score_names(scores.shape[1], targets))}
    return {"entry": entries, **identifiers, **named}


@contextmanager
def score_file(path: Path, *, ntuple: bool = False) -> Iterator[Write]:
    """Open a score file; the function given takes columns of equal length, with the same names in each call.

    `path` appears when all columns are written. ntuple: write an RNTuple into a ROOT file, not a TTree.
    Raises: RequestError if its ending is not .root, .parquet, .csv or .json, or it cannot be written.
    """
    if path.suffix not in _WRITERS:
        raise RequestError(f"'{path}' ends in '{path.suffix}'; scores are written as {', '.join(_WRITERS)}")
    if ntuple and path.suffix != ROOT:
        raise RequestError(f"'{path}' ends in '{path.suffix}', and an RNTuple is written into a {ROOT} file")
    part = path.with_name(f".{path.name}.part")
    try:
        with (_ntuple if ntuple else _WRITERS[path.suffix])(part) as write:
            yield write
        part.replace(path)
    except OSError as error:
        raise RequestError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _root(path: Path) -> Iterator[Write]:
    """Write a TTree 'scores' with a row for each event of the file, so it can be a friend (`AddFriend`) of its tree."""
    import uproot

    with uproot.recreate(path) as file:
        trees: list[Any] = []

        def write(columns: Columns) -> None:
            if not trees:
                trees.append(file.mktree(TREE, {name: values.dtype for name, values in columns.items()}))
            trees[0].extend(dict(columns))

        yield write


@contextmanager
def _ntuple(path: Path) -> Iterator[Write]:
    """Write an RNTuple 'scores'. Rows wait until they fill a cluster: for each one uproot writes the list of all
    again."""
    import uproot

    with uproot.recreate(path) as file:
        ntuples: list[Any] = []
        waiting: list[Columns] = []

        def write_cluster() -> None:
            ntuples[0].extend({name: np.concatenate([columns[name] for columns in waiting]) for name in waiting[0]})
            waiting.clear()

        def write(columns: Columns) -> None:
            if not ntuples:
                ntuples.append(file.mkrntuple(TREE, {name: values.dtype for name, values in columns.items()}))
            waiting.append(columns)
            if sum(values.nbytes for rows in waiting for values in rows.values()) >= CLUSTER_BYTES:
                write_cluster()

        yield write
        if waiting:
            write_cluster()


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("wb") as out:
        writers: list[Any] = []

        def write(columns: Columns) -> None:
            table = pa.table({name: pa.array(values) for name, values in columns.items()})
            if not writers:
                writers.append(pq.ParquetWriter(out, table.schema, compression="zstd"))
            writers[0].write_table(table)

        try:
            yield write
        finally:
            for writer in writers:
                writer.close()


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", newline="") as out:
        writer = csv.writer(out)

        def write(columns: Columns) -> None:
            if not out.tell():
                writer.writerow(columns)
            writer.writerows(_rows(columns))

        yield write


@contextmanager
def _json(path: Path) -> Iterator[Write]:
    """Write a list with an object for each event."""
    with path.open("w") as out:
        out.write("[")

        def write(columns: Columns) -> None:
            for row in _rows(columns):
                out.write(",\n " if out.tell() > 1 else "\n ")
                out.write(json.dumps(dict(zip(columns, row, strict=True))))

        yield write
        out.write("\n]\n")


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Yield rows of Python values; float32 as the float of the shortest text that gives the same float32."""
    return zip(*(_plain(values) for values in columns.values()), strict=True)


def _plain(values: NDArray[Any]) -> list[Any]:
    if values.dtype == np.float32:
        return [float(str(value)) for value in values]
    return list(values.tolist())


_WRITERS = {ROOT: _root, ".parquet": _parquet, ".csv": _csv, ".json": _json}
