"""The program of a confined worker that reads one table. Only it passes bytes of files to pyarrow and fastavro.

It has the descriptor of the file, or requests byte ranges from its parent. Functions: `open` first, then the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from hepfaas.datasets.branch_choice import missing_branch
from hepfaas.datasets.errors import translated_errors
from hepfaas.datasets.formats import AVRO, CSV, HEAD_BYTES, HEADS, JSON, NAMES, PARQUET
from hepfaas.datasets.tables.avro import AvroTable
from hepfaas.datasets.tables.columns import hide_pandas
from hepfaas.datasets.tables.csv import CsvTable
from hepfaas.datasets.tables.json_lines import JsonTable
from hepfaas.datasets.tables.parquet import ParquetTable
from hepfaas.datasets.tables.table import Data, FetchedData, MappedData, Table
from hepfaas.errors import RequestError
from hepfaas.features.jagged import packed
from hepfaas.sandbox.tasks import Answer, Callbacks, serve_calls

TABLES: Mapping[str, Callable[..., Table]] = {
    PARQUET: ParquetTable,
    AVRO: AvroTable,
    JSON: JsonTable,
    CSV: CsvTable,
}
ENDS_BYTES = 65_536


def serve(channel_number: int, file_number: int | None = None) -> None:
    """Answer calls about one file until the channel closes."""
    hide_pandas()

    def functions(callbacks: Callbacks) -> Mapping[str, Callable[..., Answer]]:
        reader = _Reader(callbacks, file_number)
        names = ("open", "tree", "read", "trees")
        return {name: partial(reader.run, getattr(reader, f"do_{name}")) for name in names}

    serve_calls(channel_number, functions)


class _Reader:
    """An open file."""

    def __init__(self, callbacks: Callbacks, file_number: int | None) -> None:
        self._callbacks, self._file_number = callbacks, file_number
        self._name = self._format = ""
        self._opened: Table | None = None

    def run(self, function: Callable[..., Answer], arrays: object, **values: Any) -> Answer:
        """Return the result of the function; translate its errors."""
        self._name, self._format = values.pop("name", self._name), values.pop("format", self._format)
        with translated_errors(self._name, NAMES[self._format]):
            return function(**values)

    def do_open(self, size_bytes: int, layout: str, record_function: str) -> Answer:
        """Open the file; return the fingerprint of its size and its ends.

        layout: of the same file, '' if unknown. record_function: source of `preprocessing(record)`, '' for none.
        """
        self._layout = json.loads(layout) if layout else {}
        self._record_function = record_function
        if not size_bytes:
            raise RequestError(f"'{self._name}' is empty: it has 0 bytes")
        self._data: Data = FetchedData(self._callbacks, size_bytes)
        if self._file_number is not None:
            self._data = MappedData(self._file_number)
        head, tail = self._data.read(0, ENDS_BYTES), self._data.read(max(0, size_bytes - ENDS_BYTES), size_bytes)
        if self._format in HEADS.values() and HEADS.get(bytes(head[:HEAD_BYTES])) != self._format:
            raise RequestError(f"'{self._name}' is no {NAMES[self._format]} file: it begins with {bytes(head[:20])!r}")
        digest = hashlib.sha256(repr((self._format, size_bytes)).encode())
        digest.update(head)
        digest.update(tail)
        return {"fingerprint": digest.hexdigest()[:32]}, []

    def do_tree(self, tree: str) -> Answer:
        """Describe the table: entries, branches of numbers, other columns, and where its parts end."""
        table = self._table()
        branches = [[b.name, b.jagged, b.type, b.size_bytes, b.title, 0] for b in table.branches.values()]
        values = {"entries": table.entries, "branches": branches, "left_out": table.left_out, "notes": table.notes}
        values["layout"] = json.dumps(
            {"format": self._format, "record_function": self._record_function, "table": table.layout()}
        )
        return values, [np.asarray(table.edges, dtype=np.int64)]

    def do_read(self, tree: str, names: Sequence[str], start: int, stop: int) -> Answer:
        """Return the values of branches for a range of entries; those of a jagged branch are followed by its counts."""
        table = self._table()
        for name in names:
            if name not in table.branches:
                raise missing_branch(f"'{self._name}'", name, list(table.branches))
        jagged, arrays = packed(table.read(names, start, stop))
        return {"jagged": jagged}, arrays

    def do_trees(self) -> Answer:
        """Return the values for the summary of the table."""
        table = self._table()
        branches = [[b.name, b.jagged, b.type, b.size_bytes] for b in table.branches.values()]
        summary = {
            "name": "",
            "kind": NAMES[self._format],
            "title": "",
            "entries": table.entries,
            "clusters": len(table.edges) - 1,
            "compressed_bytes": self._data.size_bytes,
            "uncompressed_bytes": sum(branch.size_bytes for branch in table.branches.values()),
            "compression": table.compression,
            "branches": branches,
            "left_out": table.left_out,
        }
        return {"trees": [summary]}, []

    def _table(self) -> Table:
        if self._opened is None:
            function = (self._record_function,) if self._format in (JSON, CSV) else ()
            self._opened = TABLES[self._format](self._data, self._name, self._layout.get("table", {}), *function)
        return self._opened
