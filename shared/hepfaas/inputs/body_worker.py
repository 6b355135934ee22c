"""The program of a confined worker that reads the body of a request: Arrow and Parquet tables, pictures.

Only this module passes bytes of a body to pyarrow and Pillow.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet  # here, for all later workers

from hepfaas.datasets.branch_choice import missing_branch
from hepfaas.datasets.tables.columns import hide_pandas
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged, Values, packed
from hepfaas.inputs import columns
from hepfaas.inputs.decoded import ARROW_FILE, PARQUET, arrow_table, parquet_table
from hepfaas.sandbox.tasks import Answer, Callbacks, serve_calls

HOLD_BYTES = 1_000_000
"""Memory that may grow before the parent process is asked again."""

Branches = Sequence[tuple[str, bool, str]]
"""Name, whether it is jagged, and type of the values of each branch."""


def serve(channel_number: int, body_number: int) -> None:
    """Answer calls about one body until the channel closes."""
    hide_pandas()
    serve_calls(channel_number, partial(_functions, body_number))


def _functions(body_number: int, callbacks: Callbacks) -> Mapping[str, Callable[..., Answer]]:
    return {"table": partial(_table, body_number, callbacks), "picture": partial(_picture, body_number)}


def _table(
    body_number: int, callbacks: Callbacks, arrays: object, *, kind: str, branches: Branches, identifiers: Sequence[str]
) -> Answer:
    """Return the branches of a table, then the identifiers that it has."""
    hold, choose = _Hold(callbacks), partial(_columns_to_read, [name for name, _, _ in branches], identifiers)
    body = memoryview(mmap.mmap(body_number, 0, access=mmap.ACCESS_READ))
    try:
        table = parquet_table(body, choose, hold) if kind == PARQUET else arrow_table(body, kind == ARROW_FILE, hold)
        table = table.select(choose(table.column_names))
        table.validate(full=True)  # finds list offsets outside the values
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise RequestError(f"the body is not a complete document of {kind}: {error}") from error
    values: dict[str, Values] = {}
    for name, jagged, type_ in branches:
        values[name] = Jagged(*columns.jagged(table, name, type_)) if jagged else columns.flat(table, name, type_)
    named = [name for name in identifiers if name in table.column_names]
    values.update({name: columns.identifier(table, name) for name in named})
    for name, column in values.items():
        if len(column) != table.num_rows:
            raise RequestError(f"column '{name}' has {len(column)} values, and the table {table.num_rows} rows")
    flags, results = packed(values)
    return {"identifiers": named, "jagged": flags}, results


def _picture(body_number: int, arrays: object, shape: Sequence[int], model: str) -> Answer:
    """Return a picture as an array."""
    from hepfaas.inputs.images import pixels

    with os.fdopen(body_number, "rb") as data:
        return {}, [pixels(data, tuple(shape), model)]


class _Hold:
    """Reports the memory of the decoded body to the parent process, in steps of HOLD_BYTES."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks, self._held = callbacks, 0

    def __call__(self, size: int) -> None:
        if size > self._held + HOLD_BYTES:
            self._held = size
            self._callbacks("hold", size=size)


def _columns_to_read(branches: Sequence[str], identifiers: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the columns of a table that are needed. Raises: RequestError if one is missing or ambiguous."""
    counts = Counter(names)
    for name in branches:
        if name not in counts:
            raise missing_branch("the table", name, list(names))
    needed = [*branches, *(name for name in identifiers if name in counts)]
    for name in needed:
        if counts[name] > 1:
            raise RequestError(f"the table has {counts[name]} columns '{name}'; each needs a name of its own")
    return needed
