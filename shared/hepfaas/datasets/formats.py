"""The formats of files of events, by their names and first bytes. Light: no reader is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from hepfaas.errors import RequestError
from hepfaas.runs.params import FORMATS

ROOT, PARQUET, AVRO, JSON, CSV = FORMATS

NAMES = {ROOT: "ROOT", PARQUET: "Parquet", AVRO: "Avro", JSON: "JSON lines", CSV: "CSV"}
"""Formats as messages name them."""

ENDINGS = {
    ".root": ROOT,
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".avro": AVRO,
    ".json": JSON,
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".csv": CSV,
    ".tsv": CSV,
}
COMPRESSIONS = (".gz", ".bz2", ".zst")
"""Endings of compressed text files, after that of the format."""


@dataclass(frozen=True)
class Form:
    """How the user says that a file is to be read.

    dtype: its format, '' for that of its name or its first bytes. record_function: source of `preprocessing(record)`,
    which is applied to each record of JSON and CSV files, '' for none.
    """

    dtype: str = ""
    record_function: str = ""


USUAL_FORM = Form()

HEAD_BYTES = 4
HEADS = {b"root": ROOT, b"PAR1": PARQUET, b"Obj\x01": AVRO}
"""First bytes of binary files."""


def format_named(url: str) -> str:
    """Return the format that the name of a file ends with, '' if it is none of ours."""
    without_query = url.partition("?")[0] if "://" in url else url
    return _by_ending(url) or _by_ending(without_query)


def _by_ending(path: str) -> str:
    name = PurePosixPath(path.lower())
    if name.suffix in COMPRESSIONS:
        inner = ENDINGS.get(PurePosixPath(name.stem).suffix, "")
        return inner if inner in (JSON, CSV) else ""
    return ENDINGS.get(name.suffix, "")


def format_of(url: str, head: bytes, dtype: str = "") -> str:
    """Return the format of a file. head: its first bytes. dtype: the format that the user says, '' for none.

    Raises: RequestError if the first bytes are those of another format than the name or the user says.
    """
    by_head, expected = HEADS.get(head, ""), dtype or format_named(url)
    if by_head and expected and by_head != expected:
        source = f'as "dtype": "{dtype}" says' if dtype else "as its name says"
        raise RequestError(
            f"'{url}' is {_a(by_head)} file by its first bytes, and not {_a(expected)} file {source}; rename it, or "
            f'set "dtype": "{by_head}" in params.json'
        )
    return expected or by_head or ROOT


def place_of(url: str, tree: str, format_: str) -> str:
    """Return the name of the events of a file for messages."""
    return f"TTree '{tree}' in '{url}'" if format_ == ROOT else f"'{url}'"


def _a(format_: str) -> str:
    return f"an {NAMES[format_]}" if format_ == AVRO else f"a {NAMES[format_]}"
