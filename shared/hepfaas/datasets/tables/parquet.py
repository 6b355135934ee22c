"""Parquet files: row groups are the parts, and only the columns that are wanted are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.tables.columns import SECOND, Leaf, joined, leaves_of, values_of
from hepfaas.datasets.tables.table import Data, Table
from hepfaas.features.jagged import Values, empty

BATCH_EVENTS = 50_000
"""Events that are decoded at once: a row group may have millions."""

LIST_PARTS = frozenset({"list", "element", "item", "array", "bag", "array_element"})
"""Parts of the path of a column that different writers put between a list and its values."""


@dataclass
class _Chunks:
    """The chunks of a column in all row groups. path: of the column in the file. n_missing: missing values, None if the
    file does not say it for all chunks."""

    path: str
    n_values: int = 0
    n_missing: int | None = 0


class ParquetTable(Table):
    """A Parquet file."""

    def __init__(self, data: Data, name: str, layout: Mapping[str, Any]) -> None:
        """Raises: what pyarrow raises for a damaged file."""
        self._file = pa.parquet.ParquetFile(data.arrow(), pre_buffer=True)
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self.edges = list(accumulate((group.num_rows for group in groups), initial=0))
        self._chunks, compressions = _chunks(groups)
        self.compression = ", ".join(sorted(compressions - {"uncompressed"}))
        self._leaves: dict[str, Leaf] = {}
        self.branches, self.left_out = {}, []
        for column in leaves_of(self._file.schema_arrow):
            column_name = column.name if isinstance(column, Leaf) else column[0]
            if column_name in self._leaves:
                self.left_out.append((column_name, SECOND))
            elif isinstance(column, Leaf):
                self._leaves[column_name] = column
                self.branches[column_name] = self._branch(column)
            else:
                self.left_out.append(column)

    def _branch(self, leaf: Leaf) -> Branch:
        chunks = self._chunks.get(leaf.name, _Chunks("", self.entries, None))
        may_miss = not leaf.jagged and chunks.n_missing != 0 and np.dtype(leaf.dtype).kind != "f"
        type_ = "float64" if may_miss else leaf.dtype
        return Branch(leaf.name, leaf.jagged, type_, chunks.n_values * np.dtype(type_).itemsize)

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Values]:
        """Return branches for the entries [start, stop), each (events,) or jagged."""
        parts: dict[str, list[Values]] = {name: [] for name in names}
        groups = [
            n for n, (begin, end) in enumerate(pairwise(self.edges)) if begin < stop and start < end and begin < end
        ]
        paths = [self._chunks[name].path if name in self._chunks else str(self._leaves[name].path[0]) for name in names]
        at = self.edges[groups[0]] if groups else stop
        if at < stop:
            for batch in self._file.iter_batches(BATCH_EVENTS, row_groups=groups, columns=paths, use_threads=False):
                first, at = at, at + len(batch)
                if at > start:
                    table = pa.Table.from_batches([batch]).slice(
                        max(0, start - first), min(at, stop) - max(first, start)
                    )
                    for name in names:
                        parts[name].append(self._values(table, name))
                if at >= stop:
                    break
        return {
            name: joined(parts[name]) if parts[name] else empty(self.branches[name].jagged, self.branches[name].type)
            for name in names
        }

    def _values(self, table: Any, name: str) -> Values:
        values = values_of(table, self._leaves[name])
        return values.astype(self.branches[name].type, copy=False) if isinstance(values, np.ndarray) else values


def _chunks(groups: Sequence[Any]) -> tuple[dict[str, _Chunks], set[str]]:
    """Return what the row groups say of each column, by the name of its branch, and their compressions."""
    columns: dict[str, _Chunks] = {}
    compressions = set()
    for group in groups:
        for number in range(group.num_columns):
            chunk = group.column(number)
            first, *inner = chunk.path_in_schema.split(".")
            name = ".".join([first, *(part for part in inner if part not in LIST_PARTS)])
            column = columns.setdefault(name, _Chunks(chunk.path_in_schema))
            column.n_values += chunk.num_values
            statistics = chunk.statistics
            if statistics is None or not statistics.has_null_count or column.n_missing is None:
                column.n_missing = None
            else:
                column.n_missing += statistics.null_count
            compressions.add(chunk.compression.lower())
    return columns, compressions
