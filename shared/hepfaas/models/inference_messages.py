"""The messages between a process that needs scores and a worker that runs graphs.

Each message starts with `MESSAGE`: operation, number of the graph, rows.

LOAD: load a graph; a second message has the shape of a row and the number of outputs as JSON, and the descriptor of the
graph. RUN: compute rows; features are at the start of the shared memory, outputs go to `outputs_start`. DROP: forget a
graph; it has no answer. The answer to the others is `OK`, or a `failure`.
"""

from __future__ import annotations

import struct

LOAD, RUN, DROP = 1, 2, 3
MESSAGE = struct.Struct("<III")
OK = b"\0"
ALIGNMENT = 64
"""Alignment of the outputs in bytes."""

MOST_DESCRIPTION_BYTES = 4_096
MOST_REASON_BYTES = 2_000


def outputs_start(n_values: int) -> int:
    """Return the index of the first output in the shared memory, in float32 values. n_values: of the features."""
    step = ALIGNMENT // 4
    return -(-n_values // step) * step


def failure(reason: str, row: int | None) -> bytes:
    """Return the answer for a failure. row: the first one that fails, None if it is not known."""
    return f"{'' if row is None else row} {reason}".encode(errors="replace")[:MOST_REASON_BYTES]


def failure_in(answer: bytes) -> tuple[str, int | None]:
    """Return the reason and the row of a failure, from a worker that may write anything."""
    row, _, reason = answer.decode(errors="replace").partition(" ")
    return reason, int(row) if row.isascii() and row.isdecimal() and len(row) < 9 else None
