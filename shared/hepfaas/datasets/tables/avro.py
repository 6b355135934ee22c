"""Avro files: their blocks are the parts, and each is decoded by itself."""

from __future__ import annotations

import gc
import io
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import fastavro
import numpy as np

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.tables.columns import joined
from hepfaas.datasets.tables.table import Data, Table
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged, Values, empty

SYNC_BYTES = 16
LONGEST_NUMBER = 10
"""Bytes of a `long` of Avro."""

PART_BYTES = 1_000_000
"""Bytes of blocks that are decoded at once."""

MOST_DEPTH = 10
MOST_FIELDS = 20_000
"""A record may contain itself, so that a short schema has any number of fields."""

TYPES = {"int": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "bool"}


@dataclass(frozen=True)
class _Leaf:
    """A field of numbers. path: keys from the record to the numbers, None for the values of a list."""

    path: tuple[str | None, ...]
    type: str

    @property
    def name(self) -> str:
        return ".".join(step for step in self.path if step is not None)

    @property
    def jagged(self) -> bool:
        return None in self.path


class AvroTable(Table):
    """An Avro file of records."""

    def __init__(self, data: Data, name: str, layout: Mapping[str, Any]) -> None:
        """Raises: RequestError; what fastavro raises for a damaged file."""
        self._data, self._name = data, name
        file = data.whole()
        reader = fastavro.reader(file)
        self._header = bytes(data.read(0, file.tell()))
        codec = reader.codec
        self.compression = "" if codec == "null" else str(codec)
        parts = (layout["offsets"], layout["edges"]) if layout else self._parts(len(self._header))
        self._offsets: Sequence[tuple[int, int]] = parts[0]
        self.edges = parts[1]
        leaves = list(islice(_leaves((), reader.writer_schema, {}), MOST_FIELDS + 1))
        if len(leaves) > MOST_FIELDS:
            raise RequestError(f"'{name}' has more than {MOST_FIELDS:,} fields")
        self._leaves = {leaf.name: leaf for leaf in reversed(leaves) if isinstance(leaf, _Leaf)}
        self.left_out = [leaf for leaf in leaves if isinstance(leaf, tuple)]
        flat_bytes = {leaf.name: self.entries * np.dtype(leaf.type).itemsize for leaf in self._leaves.values()}
        lists = [leaf.name for leaf in self._leaves.values() if leaf.jagged]
        in_lists = max(0, data.size_bytes - sum(flat_bytes[name] for name in self._leaves.keys() - lists))
        sizes = flat_bytes | {name: in_lists // len(lists) for name in lists}  # the file does not say them
        self.branches = {
            name: Branch(name, leaf.jagged, leaf.type, sizes[name]) for name, leaf in reversed(self._leaves.items())
        }

    def layout(self) -> dict[str, Any]:
        """Return the places of the parts, as JSON values."""
        return {"offsets": self._offsets, "edges": self.edges}

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Values]:
        """Return branches for the entries [start, stop), each (events,) or jagged."""
        parts: dict[str, list[Values]] = {name: [] for name in names}
        keys = list(dict.fromkeys(str(self._leaves[name].path[0]) for name in names))
        with without_collection():
            for number in range(bisect_right(self.edges, start) - 1, bisect_left(self.edges, stop)):
                begin = self.edges[number]
                fields = _fields(self._records(number)[max(0, start - begin) : stop - begin], keys)
                for name in names:
                    parts[name].append(_values(fields, self._leaves[name]))
        return {
            name: joined(parts[name]) if parts[name] else empty(self._leaves[name].jagged, self._leaves[name].type)
            for name in names
        }

    def _records(self, part: int) -> list[Any]:
        """Return the records of a part."""
        blocks = self._data.read(*self._offsets[part])
        records = list(fastavro.reader(io.BytesIO(self._header + blocks)))
        if len(records) != self.edges[part + 1] - self.edges[part]:
            raise RequestError(f"'{self._name}', entry {self.edges[part]:,} and after: its blocks are damaged")
        return records

    def _parts(self, begin: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Return the byte range of each part, and the entries at which they end: some blocks of `PART_BYTES` together,
        or a larger one. Raises: RequestError if a block is not whole."""
        offsets: list[tuple[int, int]] = []
        edges, at = [0], begin
        sync = self._header[-SYNC_BYTES:]
        file = self._data.whole()
        while at < self._data.size_bytes:
            file.seek(at)
            entries, size = _long(file), _long(file)
            end = file.tell() + size + SYNC_BYTES
            if entries < 0 or size < 0 or end > self._data.size_bytes:
                raise self._cut_short(at, edges[-1])
            file.seek(end - SYNC_BYTES)
            if file.read(SYNC_BYTES) != sync:
                raise self._cut_short(at, edges[-1])
            if offsets and end - offsets[-1][0] <= PART_BYTES:
                offsets[-1] = (offsets[-1][0], end)
                edges[-1] += entries
            elif entries:
                offsets.append((at, end))
                edges.append(edges[-1] + entries)
            at = end
        return offsets, edges

    def _cut_short(self, at: int, entries: int) -> RequestError:
        return RequestError(
            f"'{self._name}' is no complete Avro file: the block at byte {at:,}, after {entries:,} entries, is cut "
            "short or damaged; copy it again"
        )


def _long(file: io.BufferedReader) -> int:
    """Return a `long` of Avro: 7 bits a byte, the lowest first, and the sign in the lowest bit; -1 if there is none."""
    value = 0
    for place in range(LONGEST_NUMBER):
        byte = file.read(1)
        if not byte:
            return -1
        value |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return value >> 1 ^ -(value & 1)
    return -1


def _leaves(
    path: tuple[str | None, ...], schema: Any, named: dict[str, Any], nullable: bool = False
) -> Iterator[_Leaf | tuple[str, str]]:
    """Yield the fields of numbers, and the names of others with their types. named: records by
    name; those that are defined are added."""
    if isinstance(schema, list) and len(others := [one for one in schema if one != "null"]) == 1:
        yield from _leaves(path, others[0], named, nullable or len(schema) > 1)
        return
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    kind = schema["type"] if isinstance(schema, dict) else schema
    is_plain = not isinstance(schema, dict) or "logicalType" not in schema
    if isinstance(kind, str) and kind in TYPES and path and is_plain:
        type_ = TYPES[kind]
        yield _Leaf(path, "float64" if nullable and np.dtype(type_).kind != "f" else type_)
    elif kind == "record" and len(path) < MOST_DEPTH:
        named[schema["name"]] = schema
        for field in schema["fields"]:
            yield from _leaves((*path, field["name"]), field["type"], named, nullable)
    elif kind == "array" and path and None not in path:
        yield from _leaves((*path, None), schema["items"], named)
    else:
        yield _Leaf(path, "").name, str(schema.get("logicalType", kind) if isinstance(schema, dict) else kind)[:100]


@contextmanager
def without_collection() -> Iterator[None]:
    """Make Python look for no cycles in the block: records have none, and looking takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _fields(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """Return the values of some keys of all records."""
    if len(keys) == 1:
        return {keys[0]: [record[keys[0]] for record in records]}
    return dict(zip(keys, zip(*map(itemgetter(*keys), records), strict=True), strict=False)) if keys else {}


def _values(fields: Mapping[str, Sequence[Any]], leaf: _Leaf) -> Values:
    """Return the values of a field: NaN for a missing number, an empty list for a missing list."""
    values, counts = fields.get(str(leaf.path[0]), ()), None
    for step in leaf.path[1:]:
        if step is None:
            lists = [one or () for one in values]
            counts = np.fromiter(map(len, lists), np.int64, len(lists))
            values = list(chain.from_iterable(lists))
        else:
            values = [None if one is None else one[step] for one in values]
    array = np.array(values, dtype=leaf.type)
    return array if counts is None else Jagged(array, counts)
