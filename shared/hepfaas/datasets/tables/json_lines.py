"""JSON lines: one event, an object, in each line; plain, .gz, .bz2 or .zst. Keys may come and go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.json

from hepfaas.datasets.tables.columns import Leaf, schema_of
from hepfaas.datasets.tables.text import TextTable
from hepfaas.errors import RequestError


class JsonTable(TextTable):
    """A file of JSON lines. Numbers and lists of numbers are branches, also in objects and lists of objects."""

    first_row = 0

    def _begin(self) -> int:
        _, block = next(self._lines.blocks(), (0, b""))
        text = block.removeprefix(b"\xef\xbb\xbf")
        first = text.lstrip()[:40].decode(errors="replace")
        if first.startswith("["):
            raise RequestError(
                f"'{self._name}' is a list in JSON; write one object a line: jq -c '.[]' old.json > new.json"
            )
        if first and not first.startswith("{"):
            raise RequestError(
                f"'{self._name}' is no file of JSON lines: it begins with '{first.splitlines()[0]}'; write one "
                "object a line"
            )
        if first.splitlines() and first.splitlines()[0].strip() == "{":
            raise RequestError(
                f"'{self._name}' has objects of several lines; write one object a line: jq -c . old.json > new.json"
            )
        return len(block) - len(text)

    def _records(self, block: bytes, first: int) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        for line in block.splitlines():
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RequestError(f"entry {first + len(records):,}: {error}") from error
            if not isinstance(record, dict):
                raise RequestError(f"entry {first + len(records):,} is no object")
            records.append(record)
        return records

    def _parsed(self, block: bytes, leaves: Sequence[Leaf] | None) -> Any:
        if block.isspace():
            return pa.table({})
        return pa.json.read_json(
            pa.BufferReader(block),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=schema_of(leaves) if leaves is not None else None,
                unexpected_field_behavior="infer" if leaves is None else "ignore",
            ),
        )
