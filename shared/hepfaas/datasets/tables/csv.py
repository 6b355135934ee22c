"""CSV files: names in the first line, one event in each line after it; plain, .gz, .bz2 or .zst."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.types as pt

from hepfaas.datasets.tables.columns import SECOND, Leaf
from hepfaas.datasets.tables.text import TextTable
from hepfaas.errors import RequestError

SEPARATORS = ",;\t|"
"""Of those in the first line the most frequent one is taken; if there is none, a space."""

MOST_COLUMNS = 20_000


class CsvTable(TextTable):
    """A CSV file. Columns are known by name, whatever their order."""

    first_row = 1

    def _begin(self) -> int:
        _, block = next(self._lines.blocks(), (0, b""))
        line = block[: block.find(b"\n") + 1] or block
        try:
            text = line.decode("utf-8-sig").strip("\r\n")
        except UnicodeDecodeError as error:
            raise RequestError(f"'{self._name}' is no CSV file: its first line is not text in UTF-8") from error
        if not text.strip():
            raise RequestError(f"'{self._name}' is no CSV file: its first line, which names the columns, is empty")
        counts = Counter(character for character in text if character in SEPARATORS)
        self._separator = (
            max(counts, key=lambda one: counts[one]) if counts else " " if " " in text.strip("# ") else ","
        )
        (names,) = csv.reader([text.removeprefix("#").strip(" ")], delimiter=self._separator)
        names = [name.strip() for name in names]
        if len(names) > MOST_COLUMNS:
            raise RequestError(f"'{self._name}' has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
        if text.lstrip().startswith(("{", "[")) or all(_is_number(name) for name in names):
            raise RequestError(
                f"'{self._name}' has no names of columns: its first line is '{text[:60]}'; write a line with them "
                "before the first event"
            )
        self._name_columns(names)
        return len(line)

    def _name_columns(self, names: Sequence[str]) -> None:
        self._names = names
        self._kept: dict[str, str] = {}
        for number, name in enumerate(names):
            if name:
                self._kept.setdefault(name, f"c{number}")

    def layout(self) -> dict[str, Any]:
        """Return the places of the blocks, the types of the columns, and the first line, as JSON values."""
        return {**super().layout(), "names": self._names, "separator": self._separator}

    def _load(self, layout: Mapping[str, Any]) -> None:
        super()._load(layout)
        self._separator = layout["separator"]
        self._name_columns(layout["names"])

    def _unreadable(self) -> Sequence[tuple[str, str]]:
        return [
            (name or f"column {number + 1}", SECOND if name else "without a name")
            for number, name in enumerate(self._names)
            if self._kept.get(name) != f"c{number}"
        ]

    def _of_no_events(self) -> Sequence[Leaf]:
        return [Leaf((name,), pa.float64()) for name in self._kept]

    def _records(self, block: bytes, first: int) -> list[dict[str, Any]]:
        text = block.decode(errors="replace").splitlines()
        records = []
        for fields in csv.reader(text, delimiter=self._separator):
            if len(fields) == len(self._names):
                records.append({name: _value(fields[int(self._kept[name][1:])]) for name in self._kept})
            elif fields:
                columns = f"Expected {len(self._names)} columns, got {len(fields)}"
                raise RequestError(f"entry {first + len(records):,}: {columns}")
        return records

    def _parsed(self, block: bytes, leaves: Sequence[Leaf] | None) -> Any:
        kept = {name: self._kept[name] for name in ([str(leaf.path[0]) for leaf in leaves] if leaves else self._kept)}
        types = {self._kept[str(leaf.path[0])]: leaf.type for leaf in leaves or ()}
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            read_options=pa.csv.ReadOptions(
                use_threads=False,
                block_size=len(block) + 1,
                column_names=[f"c{number}" for number in range(len(self._names))],
            ),
            parse_options=pa.csv.ParseOptions(delimiter=self._separator),
            convert_options=pa.csv.ConvertOptions(
                column_types=types, include_columns=list(dict.fromkeys(kept.values())), check_utf8=False
            ),
        )
        return table.rename_columns(list(kept))

    def _why_left_out(self, table: Any, name: str, type_: str, first: int) -> str:
        column = table[name]
        if not (pt.is_string(column.type) or pt.is_binary(column.type)):
            return type_
        texts = column.cast(pa.binary()).to_pylist()
        at, text = next(((at, text) for at, text in enumerate(texts) if text and not _is_number(text)), (0, b""))
        return f"text, such as '{text[:20].decode(errors='replace')}' in entry {first + at:,}"


def _value(text: str) -> int | float | str | None:
    """Return the number in a field, its text if there is none, or None for an empty field."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
