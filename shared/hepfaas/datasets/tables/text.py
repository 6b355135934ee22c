"""Tables in text files. Opening one parses it once, for the type of each column and the places of its blocks."""

from __future__ import annotations

import re
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.tables.columns import (
    EMPTY_LISTS,
    NO_VALUES,
    SECOND,
    Leaf,
    joined,
    leaves_of,
    n_missing,
    size_of,
    values_of,
)
from hepfaas.datasets.tables.lines import Lines
from hepfaas.datasets.tables.records import RecordFunction
from hepfaas.datasets.tables.table import Data, Table
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged, Values, empty

MOST_NOTES = 20
_ROW = re.compile(r"[Rr]ow #?(\d+)")


class TextTable(Table):
    """A text file with one event in a line."""

    first_row: int
    """Number that pyarrow gives to the first row of a block in its messages."""

    def __init__(self, data: Data, name: str, layout: Mapping[str, Any], record_function: str = "") -> None:
        """layout: of the same file, {} if it is not known. record_function: source of `preprocessing(record)`, '' for
        none.

        Raises: RequestError naming the entry that cannot be read.
        """
        self._name, self._lines = name, Lines(data, name)
        self.compression = self._lines.compression
        self._function = RecordFunction(record_function) if record_function else None
        if layout:
            self._load(layout)
            return
        self._columns: dict[str, _Column] = {}
        self._twice: set[str] = set()
        self._offsets, edges = self._scanned(self._begin())
        self.edges = edges
        if not edges[-1]:
            self._columns = {leaf.name: _Column(leaf) for leaf in self._of_no_events()}
        self._leaves = {name: one.leaf for name, one in self._columns.items() if one.leaf and not one.left_out}
        others = ((name, one.left_out or NO_VALUES) for name, one in self._columns.items() if name not in self._leaves)
        twice = ((name, SECOND) for name in sorted(self._twice))
        self.left_out = [*self._unreadable(), *others, *twice]
        self.branches = {name: self._columns[name].branch(edges[-1]) for name in self._leaves}
        notes = [self._columns[name].note(edges[-1]) for name in self.branches]
        self.notes = [*self._lines.notes, *(note for note in notes if note)][:MOST_NOTES]

    def layout(self) -> dict[str, Any]:
        """Return the places of the blocks and the types of the columns, as JSON values."""
        leaves = [[leaf.path, str(leaf.type), self.branches[name].type] for name, leaf in self._leaves.items()]
        return {"offsets": self._offsets, "edges": self.edges, "leaves": leaves}

    def _load(self, layout: Mapping[str, Any]) -> None:
        """Take the values of `layout`."""
        self._offsets, self.edges, self._leaves, self.branches = layout["offsets"], layout["edges"], {}, {}
        for path, type_, dtype in layout["leaves"]:
            leaf = Leaf(tuple(path), pa.type_for_alias(type_))
            self._leaves[leaf.name], self.branches[leaf.name] = leaf, Branch(leaf.name, leaf.jagged, dtype, 0)

    @abstractmethod
    def _begin(self) -> int:
        """Read what comes before the first event; return the offset of that."""

    @abstractmethod
    def _parsed(self, block: bytes, leaves: Sequence[Leaf] | None) -> Any:
        """Return the table of some lines; of all columns, with their types as in these lines, if `leaves` is None."""

    @abstractmethod
    def _records(self, block: bytes, first: int) -> list[dict[str, Any]]:
        """Return the events of some lines as objects. first: entry of the first. Raises: RequestError."""

    def _unreadable(self) -> Sequence[tuple[str, str]]:
        """Return columns that are not read whatever their values are, with the reason."""
        return ()

    def _of_no_events(self) -> Sequence[Leaf]:
        """Return the columns of a file without events."""
        return ()

    def _why_left_out(self, table: Any, name: str, type_: str, first: int) -> str:
        """Return why a column is no branch. table: a block whose first entry is `first`."""
        return type_

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Values]:
        """Return branches for the entries [start, stop), each (events,) or jagged."""
        leaves = {name: self._leaves[name] for name in names}
        parts: dict[str, list[Values]] = {name: [] for name in names}
        first = bisect_right(self.edges, start) - 1
        for number in range(first, len(self.edges) - 1):
            begin, end = self.edges[number], self.edges[number + 1]
            if begin >= stop or start >= stop:
                break
            block = self._lines.read(*self._offsets[number])
            table = self._table(block, begin, list(leaves.values()))
            table = table.slice(max(0, start - begin), min(stop, end) - max(start, begin))
            for name, leaf in leaves.items():
                parts[name].append(_as(values_of(table, leaf), self.branches[name].type))
        return {
            name: joined(parts[name]) if parts[name] else empty(branch.jagged, branch.type)
            for name, branch in ((name, self.branches[name]) for name in names)
        }

    def _scanned(self, begin: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Parse the file; return the byte range of each block, and the entries at which they end."""
        offsets, edges = [], [0]
        for offset, block in self._lines.blocks(begin):
            first = edges[-1]
            table = self._table(block, first)
            if not table.num_rows:
                continue
            self._add(table, first)
            offsets.append((offset, offset + len(block)))
            edges.append(first + table.num_rows)
        return offsets, edges

    def _add(self, table: Any, first: int) -> None:
        """Add the columns of a block whose first entry is `first`."""
        seen: set[str] = set()
        for column in leaves_of(table.schema):
            name = column.name if isinstance(column, Leaf) else column[0]
            known = self._columns.setdefault(name, _Column(first_missing=0 if first else -1))
            if name in seen:
                self._twice.add(name)
            elif isinstance(column, Leaf):
                known.add(column, table, first)
            elif column[1] == EMPTY_LISTS:
                known.n_present += table.num_rows
            elif column[1] == NO_VALUES:
                known.miss(first)
            else:
                known.left_out = known.left_out or self._why_left_out(table, *column, first)
            seen.add(name)
        for name in self._columns.keys() - seen:
            self._columns[name].miss(first)

    def _table(self, block: bytes, first: int, leaves: Sequence[Leaf] | None = None) -> Any:
        """Return the table of the block whose first entry is `first`. Raises: RequestError naming the entry."""
        try:
            if self._function:
                return self._function.table(self._records(block, first), first, leaves)
            return self._parsed(block, leaves)
        except RequestError as error:
            raise RequestError(f"'{self._name}', {error}") from error
        except pa.ArrowInvalid as error:
            text = str(error)
            if not (row := _ROW.search(text)):
                raise RequestError(f"'{self._name}', entry {first:,} or one after it: {text}") from error
            entry = first + int(row[1]) - self.first_row
            reason = text.replace(row[0], "").replace(" in ", " ").replace(": :", ":").strip(" :")
            raise RequestError(f"'{self._name}', entry {entry:,}: {reason[:300]}") from error


@dataclass
class _Column:
    """What is known of a column.

    left_out: why it is no branch, '' for a branch. n_present: events with a value or list. has_null: whether a number
    is missing. first_missing: the first event without a value or list, -1 if there is none.
    """

    leaf: Leaf | None = None
    left_out: str = ""
    n_present: int = 0
    n_values: int = 0
    has_null: bool = False
    first_missing: int = -1

    def add(self, leaf: Leaf, table: Any, first: int) -> None:
        """Add the values of a block whose first entry is `first`."""
        if self.leaf and self.leaf.jagged != leaf.jagged:
            self.left_out = f"a list in some events and a number in others (entry {first:,} and after)"
            return
        self.leaf = _either(self.leaf, leaf)
        missing, at = n_missing(table, leaf)
        size, has_null = size_of(table, leaf)
        self.n_values, self.has_null = self.n_values + size, self.has_null or has_null
        self.n_present += table.num_rows - missing
        if missing:
            self.miss(first + at)

    def miss(self, entry: int) -> None:
        """Note that an event has no value."""
        self.first_missing = entry if self.first_missing < 0 else self.first_missing

    def branch(self, entries: int) -> Branch:
        """Return the branch of a column of numbers. entries: of the file."""
        assert self.leaf is not None
        is_missing = self.has_null or (self.n_present < entries and not self.leaf.jagged)
        type_ = "float64" if is_missing else self.leaf.dtype
        return Branch(self.leaf.name, self.leaf.jagged, type_, self.n_values * np.dtype(type_).itemsize)

    def note(self, entries: int) -> str:
        """Return the note on events without a value, '' if all have one."""
        if self.leaf is None or not (n_events := entries - self.n_present):
            return ""
        value = "an empty list" if self.leaf.jagged else "NaN"
        return (
            f"column '{self.leaf.name}' has no value in {n_events:,} of {entries:,} events, the first of them entry "
            f"{self.first_missing:,}; it is {value} there"
        )


def _either(known: Leaf | None, leaf: Leaf) -> Leaf:
    """Return a column with the type that holds the values of both: whole numbers and fractions are fractions."""
    if known is None or known.type == leaf.type:
        return leaf
    return Leaf(leaf.path, pa.float64())


def _as(values: Values, type_: str) -> Values:
    """Return values in the type of their branch."""
    if isinstance(values, np.ndarray):
        return values.astype(type_, copy=False)
    assert isinstance(values, Jagged)
    return Jagged(values.values.astype(type_, copy=False), values.counts)
