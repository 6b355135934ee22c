"""Columns of an Arrow table as branches of events: numbers and lists of numbers from any writer. Pure.

Other types are refused, also those that hold more values than bytes (run-end encoded, list views, nulls).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from hepfaas.datasets.tables.columns import plain
from hepfaas.errors import RequestError
from hepfaas.inputs.numbers import cast, expected, place_in_events, place_of_event


def flat(table: Any, name: str, type_: str) -> NDArray[Any]:
    """Return a column of numbers, (events,); null becomes NaN. Raises: RequestError if it has another type."""
    column = table[name]
    expectation = f"a number for each event, of {expected(type_)}"
    values = _joined(name, column, list(map(plain, column.chunks)), type_=type_, expectation=expectation)
    return cast(values, type_, f"column '{name}'", place_of_event)


def jagged(table: Any, name: str, type_: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return a column of lists: the values of all events end to end, and their counts; null becomes NaN.

    Raises: RequestError if the column has another type, or null instead of a list.
    """
    column, expectation = table[name], f"a list for each event, of {expected(type_)}"
    lists = [chunk for chunk in map(plain, column.chunks) if len(chunk)]
    first = 0
    for chunk in lists:
        if chunk.null_count:
            event = first + int(np.argmin(chunk.is_valid().to_numpy(zero_copy_only=False)))
            raise RequestError(
                f"column '{name}': event {event} is null; it takes {expectation}, an empty one if it has no values"
            )
        if not (pt.is_list(chunk.type) or pt.is_large_list(chunk.type) or pt.is_fixed_size_list(chunk.type)):
            raise _type_error(name, column, expectation)
        first += len(chunk)
    lengths = [np.asarray(pc.list_value_length(chunk), dtype=np.int64) for chunk in lists]
    counts = np.concatenate([np.zeros(0, dtype=np.int64), *lengths])
    chunks = [plain(chunk.flatten()) for chunk in lists]
    values = _joined(name, column, chunks, type_=type_, expectation=expectation)
    return cast(values, type_, f"column '{name}'", place_in_events(counts)), counts


def identifier(table: Any, name: str) -> NDArray[Any]:
    """Return a column of whole numbers that identify events, (events,). Raises: RequestError if it has another type."""
    column, expectation = table[name], "a whole number for each event"
    values = _joined(name, column, list(map(plain, column.chunks)), type_="int64", expectation=expectation)
    return values if values.dtype.kind in "iu" else cast(values, np.int64, f"column '{name}'", place_of_event)


def _joined(name: str, column: Any, chunks: list[Any], *, type_: str, expectation: str) -> NDArray[Any]:
    """Return the numbers of all chunks, NaN for null. Raises: RequestError if a chunk has another type."""
    parts = []
    for chunk in chunks:
        if not len(chunk):
            continue
        is_bool = pt.is_boolean(chunk.type) and np.dtype(type_).kind == "b"
        if not (pt.is_integer(chunk.type) or pt.is_floating(chunk.type) or is_bool):
            raise _type_error(name, column, expectation)
        values = chunk.drop_null().to_numpy(zero_copy_only=False)
        if chunk.null_count:
            with_nan = np.full(len(chunk), np.nan)
            with_nan[chunk.is_valid().to_numpy(zero_copy_only=False)] = values
            values = with_nan
        parts.append(values)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=type_)


def _type_error(name: str, column: Any, expectation: str) -> RequestError:
    return RequestError(f"column '{name}' has type {str(column.type)[:100]}; it takes {expectation}")
