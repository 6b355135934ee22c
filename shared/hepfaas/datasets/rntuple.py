"""RNTuples, which are read like TTrees: their fields are branches, and their clusters end the baskets of all of them.

Runs in the confined worker that reads a file (root_worker.py). A field of a record is the branch '<record>.<field>',
also in a collection: `Muon.pt` of a `std::vector` of muons is a jagged branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from awkward.forms import Form, ListOffsetForm, NumpyForm, RecordForm, RegularForm

from hepfaas.datasets.branch_choice import Branch

CLASS = "ROOT::RNTuple"


@dataclass(frozen=True)
class _Column:
    """A branch of numbers. column: number of the column with its values. length: of each event's list, None if events
    have lists of different lengths or no list."""

    name: str
    jagged: bool
    type: str
    column: int
    length: int | None = None


def branches_of(ntuple: Any) -> tuple[tuple[Branch, ...], tuple[tuple[str, str], ...], dict[str, tuple[int, ...]]]:
    """Return the branches of numbers, other fields with their types, and the entries at which the clusters end."""
    branches, left_out = [], []
    for item in _columns(ntuple):
        if isinstance(item, _Column):
            size = _n_values(ntuple, item) * np.dtype(item.type).itemsize
            branches.append(Branch(item.name, item.jagged, item.type, size))
        else:
            left_out.append((item, _type_name(ntuple, item)))
    ends = tuple(int(one.num_first_entry + one.num_entries) for one in ntuple.cluster_summaries)
    return tuple(branches), tuple(left_out), {branch.name: (0, *ends) for branch in branches}


def decoded(ntuple: Any, name: str) -> tuple[int, int]:
    """Return the bytes and the number of values of a branch in memory, by the sizes of its pages."""
    (column,) = (item for item in _columns(ntuple) if isinstance(item, _Column) and item.name == name)
    values = _n_values(ntuple, column)
    offsets = 8 * int(ntuple.num_entries) if column.jagged else 0
    return values * np.dtype(column.type).itemsize + offsets, values


def arrays(ntuple: Any, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
    """Return branches for a range of entries as Awkward arrays. Raises: what uproot raises for damaged pages."""
    columns = {item.name: item for item in _columns(ntuple) if isinstance(item, _Column)}
    tops = {name.partition(".")[0] for name in names}
    read = ntuple.arrays(
        filter_name=lambda path: path.partition(".")[0] in tops,
        entry_start=start,
        entry_stop=stop,
        library="ak",
        array_cache=None,
    )
    branches = {}
    for name in names:
        array = read
        for part in name.split("."):
            array = array[part]
        branches[name] = array if columns[name].length is None else ak.from_regular(array, axis=1)
    return branches


def compressed_bytes(ntuple: Any) -> int:
    """Return the bytes of all pages in the file."""
    clusters = ntuple.page_link_list
    return sum(int(page.locator.num_bytes) for cluster in clusters for column in cluster for page in column.pages)


def _columns(ntuple: Any) -> Iterator[_Column | str]:
    """Yield each branch of numbers, and the name of each other field."""
    form, _ = ntuple.to_akform()
    for name, content in zip(form.fields, form.contents, strict=True):
        yield from _of_form(name, content, jagged=False)


def _of_form(name: str, form: Form, *, jagged: bool, length: int | None = None) -> Iterator[_Column | str]:
    if isinstance(form, RecordForm) and form.fields:
        for field, content in zip(form.fields, form.contents, strict=True):
            yield from _of_form(f"{name}.{field}", content, jagged=jagged, length=length)
    elif isinstance(form, NumpyForm) and _is_number(form):
        yield _Column(name, jagged, str(form.primitive), int(str(form.form_key).rpartition("-")[2]), length)
    elif isinstance(form, ListOffsetForm) and not jagged and not form.parameters:
        yield from _of_form(name, form.content, jagged=True)
    elif isinstance(form, RegularForm) and not jagged and not form.parameters:
        yield from _of_form(name, form.content, jagged=True, length=int(form.size))
    else:
        yield name


def _is_number(form: NumpyForm) -> bool:
    return not form.inner_shape and not form.parameters and np.dtype(form.primitive).kind in "biuf"


def _n_values(ntuple: Any, column: _Column) -> int:
    return sum(int(page.num_elements) for cluster in ntuple.page_link_list for page in cluster[column.column].pages)


def _type_name(ntuple: Any, name: str) -> str:
    field = ntuple
    for part in name.split("."):
        field = field[part] if part in field.keys(recursive=False) else None
        if field is None:
            return "nested"
    return str(field.typename)
