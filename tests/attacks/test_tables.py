"""Damaged tables: each is refused with an error that names it, or read; no worker takes more than its memory.

`HEPFAAS_CHAOS=all` damages 10,000 files of each format.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.errors import RequestError
from support.tables import events, write

FILES = 10_000 if os.environ.get("HEPFAAS_CHAOS") == "all" else 150
SEED = int(os.environ.get("HEPFAAS_CHAOS_SEED", "20261201"))
NAMES = ["events.parquet", "events.avro", "events.jsonl", "events.json.gz", "events.csv", "ntuple.root"]
WORDS = [b"\xff" * 8, b"\0" * 8, b"\n", b",", b'"', b"{", b"[", b"}" * 9, b"9" * 400, b"1e999", b"NaN", b"null", b"-"]


def cut(data: bytes, chooser: random.Random) -> bytes:
    return data[: chooser.randrange(len(data))]


def flipped(data: bytes, chooser: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chooser.choice([1, 1, 2, 8, 64])):
        changed[chooser.randrange(len(data))] = chooser.randrange(256)
    return bytes(changed)


def inserted(data: bytes, chooser: random.Random) -> bytes:
    at = chooser.randrange(len(data))
    return data[:at] + chooser.choice(WORDS) + data[at:]


def overwritten(data: bytes, chooser: random.Random) -> bytes:
    at, word = chooser.randrange(len(data)), chooser.choice(WORDS)
    return data[:at] + word + data[at + len(word) :]


def doubled(data: bytes, chooser: random.Random) -> bytes:
    start, stop = sorted(chooser.randrange(len(data)) for _ in range(2))
    return data[:stop] + data[start:]


def in_ends(data: bytes, chooser: random.Random) -> bytes:
    """Damage the header or the footer, where the sizes and counts of binary files are."""
    changed = bytearray(data)
    for _ in range(chooser.choice([1, 2, 4])):
        at = chooser.randrange(min(400, len(data)))
        changed[chooser.choice([at, -1 - at])] = chooser.choice([0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)])
    return bytes(changed)


Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: list[Damage] = [cut, flipped, inserted, overwritten, doubled, in_ends, in_ends]


def refusal_of(path: Path) -> str:
    """Return the message of the error if a file is refused, '' if it is read."""
    try:
        file = opened(str(path), "Events")
        names, entries = [branch.name for branch in file.branches], EntryRange(0, min(file.entries, 1_000_000))
        for layout in {file.layout, ""}:
            read(file.url, file.identity, "Events", branches=names, entries=entries, layout=layout)
    except RequestError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_table_is_read_or_refused(name: str, tmp_path: Path) -> None:
    chooser = random.Random(SEED)
    (path,) = write(tmp_path, [name], events(60))
    data, refused = path.read_bytes(), 0
    for number in range(FILES):
        damaged = path.with_name(f"{number}-{name}")
        damaged.write_bytes(chooser.choice(DAMAGES)(data, chooser))
        refusal = refusal_of(damaged)
        assert not refusal or str(damaged) in refusal, f"HEPFAAS_CHAOS_SEED={SEED}, file {number}"
        refused += bool(refusal)
        damaged.unlink()
    assert FILES / 10 < refused <= FILES
