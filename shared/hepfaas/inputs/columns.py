"""Columns of an Arrow table as branches of events, whatever writes them of numbers and lists of numbers. Pure.

Types that hold more than their bytes (run-end encoded, views of lists, values of no type) are refused like all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.inputs.numbers import cast, expected, place_in_events, place_of_event


def flat(table: Any, name: str, type_: str) -> NDArray[Any]:
    """A number of that type an event, (events,); null is NaN. Raises: RequestError if the column has others."""
    column = table[name]
    values = _joined(
        column, list(map(_plain, column.chunks)), name, type_, f"a number for each event, of {expected(type_)}"
    )
    return cast(values, type_, f"column '{name}'", place_of_event)


def jagged(table: Any, name: str, type_: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Numbers of that type, all events' end to end, and how many each event has; null is NaN.

    Raises: RequestError if the column has others, or null for a list.
    """
    column, wanted = table[name], f"a list for each event, of {expected(type_)}"
    lists = [chunk for chunk in map(_plain, column.chunks) if len(chunk)]
    first = 0
    for chunk in lists:
        if chunk.null_count:
            event = first + int(np.argmin(chunk.is_valid().to_numpy(zero_copy_only=False)))
            raise RequestError(
                f"column '{name}': event {event} is null; it takes {wanted}, an empty one if there is none"
            )
        if not (pt.is_list(chunk.type) or pt.is_large_list(chunk.type) or pt.is_fixed_size_list(chunk.type)):
            raise _refused(name, column, wanted)
        first += len(chunk)
    counts = [np.asarray(pc.list_value_length(chunk), dtype=np.int64) for chunk in lists]
    counted = np.concatenate([np.zeros(0, dtype=np.int64), *counts])
    values = _joined(column, [_plain(chunk.flatten()) for chunk in lists], name, type_, wanted)
    return cast(values, type_, f"column '{name}'", place_in_events(counted)), counted


def identifier(table: Any, name: str) -> NDArray[Any]:
    """What names an event, a whole number each, (events,). Raises: RequestError if the column has others."""
    wanted = "a whole number for each event"
    column = table[name]
    values = _joined(column, list(map(_plain, column.chunks)), name, "int64", wanted)
    return values if values.dtype.kind in "iu" else cast(values, np.int64, f"column '{name}'", place_of_event)


def _plain(array: Any) -> Any:
    """Without what awkward or a library like it says of a type, and without a dictionary of its numbers."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type) and not pt.is_nested(array.type.value_type):
        return array.dictionary_decode()
    return array


def _joined(column: Any, chunks: list[Any], name: str, type_: str, wanted: str) -> NDArray[Any]:
    """Numbers of all chunks, NaN for null. Raises: RequestError if some hold none."""
    found = []
    for chunk in chunks:
        if not len(chunk):
            continue
        is_bool = pt.is_boolean(chunk.type) and np.dtype(type_).kind == "b"
        if not (pt.is_integer(chunk.type) or pt.is_floating(chunk.type) or is_bool):
            raise _refused(name, column, wanted)
        values = chunk.drop_null().to_numpy(zero_copy_only=False)
        if chunk.null_count:
            some = np.full(len(chunk), np.nan)
            some[chunk.is_valid().to_numpy(zero_copy_only=False)] = values
            values = some
        found.append(values)
    return np.concatenate(found) if found else np.zeros(0, dtype=type_)


def _refused(name: str, column: Any, wanted: str) -> RequestError:
    return RequestError(f"column '{name}' has type {str(column.type)[:100]}; it takes {wanted}")
