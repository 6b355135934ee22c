"""Columns of Arrow tables as branches: numbers and lists of numbers, also inside of records. Pure.

A field of a record is the branch '<record>.<field>'; of a list of records a jagged one, as in RNTuples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from hepfaas.features.jagged import Jagged, Values, empty, values_and_counts

MOST_DEPTH = 10
SECOND = "the second column of this name"
NO_VALUES, EMPTY_LISTS = "no values", "empty lists"
"""Reasons why a column is no branch, if that may change with the events that follow."""

Step = str | None
"""The name of a field, or None for the values of a list."""


@dataclass(frozen=True)
class Leaf:
    """A column of numbers. path: from the table to the numbers. type: of the numbers, for Arrow."""

    path: tuple[Step, ...]
    type: Any

    @property
    def name(self) -> str:
        """The name of the branch."""
        return ".".join(step for step in self.path if step is not None)

    @property
    def jagged(self) -> bool:
        """Whether each event has a list."""
        return None in self.path

    @property
    def dtype(self) -> str:
        """The NumPy type of the numbers."""
        return str(np.dtype(self.type.to_pandas_dtype()).name)


def hide_pandas() -> None:
    """Keep pyarrow from importing pandas, which it does in each process where it is installed."""
    sys.meta_path.insert(0, _NoPandas())


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def leaves_of(schema: Any) -> list[Leaf | tuple[str, str]]:
    """Return the columns of numbers, and the names of other columns with their types; in the order of the schema."""
    return [leaf for field in schema for leaf in _leaves((field.name,), field.type)]


def _leaves(path: tuple[Step, ...], type_: Any) -> Iterator[Leaf | tuple[str, str]]:
    type_ = _plain_type(type_)
    if pt.is_boolean(type_) or pt.is_integer(type_) or pt.is_floating(type_):
        yield Leaf(path, type_)
    elif pt.is_struct(type_) and type_.num_fields and len(path) < MOST_DEPTH:
        for field in type_:
            yield from _leaves((*path, field.name), field.type)
    elif _is_list(type_) and None not in path:
        yield from _leaves((*path, None), type_.value_type)
    else:
        empty_type = EMPTY_LISTS if None in path else NO_VALUES
        yield Leaf(path, type_).name, empty_type if pt.is_null(type_) else str(type_)[:100]


def values_of(table: Any, leaf: Leaf) -> Values:
    """Return the values of a column: NaN for a missing number, an empty list for a missing list. Whole numbers become
    float64 if one is missing."""
    walked = [_walked(chunk, leaf.path[1:]) for chunk in table[leaf.path[0]].chunks]
    if not walked:
        return empty(leaf.jagged, leaf.dtype)
    parts = [numbers(values) if counts is None else Jagged(numbers(values), counts) for values, counts in walked]
    return joined(parts)


def joined(parts: Sequence[Values]) -> Values:
    """Return the values of consecutive events, in one array each for values and counts."""
    if len(parts) == 1:
        return parts[0]
    pairs = [values_and_counts(part) for part in parts]
    values = np.concatenate([values for values, _ in pairs])
    counts = [counts for _, counts in pairs if counts is not None]
    return Jagged(values, np.concatenate(counts)) if counts else values


def n_missing(table: Any, leaf: Leaf) -> tuple[int, int]:
    """Return how many events have no value or list in a column, and the first of them, -1 if there is none."""
    first = n_rows = n_missing = 0
    for chunk in table[leaf.path[0]].chunks:
        array = plain(chunk)
        for step in leaf.path[1:]:
            if step is None:
                break
            array = plain(pc.struct_field(array, step))
        if array.null_count and not n_missing:
            first = n_rows + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        n_missing, n_rows = n_missing + array.null_count, n_rows + len(array)
    return n_missing, first if n_missing else -1


def size_of(table: Any, leaf: Leaf) -> tuple[int, bool]:
    """Return the number of numbers in a column, and whether one of them is missing."""
    arrays = [_walked(chunk, leaf.path[1:])[0] for chunk in table[leaf.path[0]].chunks]
    return sum(map(len, arrays)), any(array.null_count for array in arrays)


def _walked(array: Any, path: Sequence[Step]) -> tuple[Any, NDArray[np.int64] | None]:
    """Return the numbers at the end of a path, and their number in each event if there is a list on the way."""
    array, counts = plain(array), None
    for step in path:
        if step is None:
            lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)  # NaN for a missing list
            counts = np.nan_to_num(lengths).astype(np.int64)
            array = plain(array.flatten())
        else:
            array = plain(pc.struct_field(array, step))
    return array, counts


def numbers(array: Any) -> NDArray[Any]:
    """Return an array of numbers or booleans; with NaN for null as float64, or in its own type if that is a float."""
    if array.null_count and not pt.is_floating(array.type):
        array = array.cast(pa.uint8() if pt.is_boolean(array.type) else array.type).cast(pa.float64(), safe=False)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def plain(array: Any) -> Any:
    """Return an array without extension types, such as Awkward's, and without a dictionary."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type) and not pt.is_nested(array.type.value_type):
        return array.dictionary_decode()
    return array


def _plain_type(type_: Any) -> Any:
    while isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    return type_.value_type if pt.is_dictionary(type_) and not pt.is_nested(type_.value_type) else type_


def _is_list(type_: Any) -> bool:
    return bool(pt.is_list(type_) or pt.is_large_list(type_) or pt.is_fixed_size_list(type_))


def schema_of(leaves: Sequence[Leaf]) -> Any:
    """Return the schema of a table that has these columns only."""
    return pa.schema(list(_fields({leaf.path: leaf.type for leaf in leaves})))


def _fields(types: Mapping[tuple[Step, ...], Any]) -> Iterator[Any]:
    for name in dict.fromkeys(path[0] for path in types):
        yield pa.field(name, _type({path[1:]: type_ for path, type_ in types.items() if path[0] == name}))


def _type(types: Mapping[tuple[Step, ...], Any]) -> Any:
    if () in types:
        return types[()]
    if any(path[0] is None for path in types):
        return pa.list_(_type({path[1:]: type_ for path, type_ in types.items() if path[0] is None}))
    return pa.struct(list(_fields(types)))
