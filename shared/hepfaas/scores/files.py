"""Files of scores: ROOT, Parquet, CSV or JSON, one row an event, written as the scores come and whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError

Columns = Mapping[str, NDArray[Any]]
Write = Callable[[Columns], None]


def score_names(outputs: int) -> list[str]:
    """What the columns of so many scores are called."""
    return ["score"] if outputs == 1 else [f"score_{output}" for output in range(outputs)]


def columns_of(
    entries: NDArray[np.int64], identifiers: Mapping[str, NDArray[Any]], scores: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """What is told of each event: its entry, what names it, its scores."""
    named = {name: scores[:, place] for place, name in enumerate(score_names(scores.shape[1]))}
    return {"entry": entries, **identifiers, **named}


@contextmanager
def score_file(path: Path) -> Iterator[Write]:
    """What takes columns of equal length, again and again with the same names; `path` appears when all are written.

    Raises: RequestError if the ending is none of .root, .parquet, .csv, .json, or the place cannot be written.
    """
    if path.suffix not in _WRITERS:
        raise RequestError(f"'{path}' ends in '{path.suffix}'; scores are written as {', '.join(_WRITERS)}")
    part = path.with_name(f".{path.name}.part")
    try:
        with _WRITERS[path.suffix](part) as write:
            yield write
        part.replace(path)
    except OSError as error:
        raise RequestError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _root(path: Path) -> Iterator[Write]:
    """A TTree 'scores', row by row with the events of the file: `AddFriend` takes it as it is."""
    import uproot

    with uproot.recreate(path) as file:
        trees: list[Any] = []

        def write(columns: Columns) -> None:
            if not trees:
                trees.append(file.mktree("scores", {name: values.dtype for name, values in columns.items()}))
            trees[0].extend(dict(columns))

        yield write


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
    """One list of objects, one an event."""
    with path.open("w") as out:
        out.write("[")

        def write(columns: Columns) -> None:
            for row in _rows(columns):
                out.write(",\n " if out.tell() > 1 else "\n ")
                out.write(json.dumps(dict(zip(columns, row, strict=True))))

        yield write
        out.write("\n]\n")


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Values as Python's own; float32 in the shortest text that gives the same float32."""
    return zip(*(_plain(values) for values in columns.values()), strict=True)


def _plain(values: NDArray[Any]) -> list[Any]:
    if values.dtype == np.float32:
        return [float(str(value)) for value in values]
    return list(values.tolist())


_WRITERS = {".root": _root, ".parquet": _parquet, ".csv": _csv, ".json": _json}
