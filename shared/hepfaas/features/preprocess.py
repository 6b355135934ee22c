"""Missing values, object cuts, new branches and cuts, applied to events. Pure; training and serving both use it.

Each event is treated alone, so the results do not depend on how events are cut into ranges. Expressions are imported
at first use: predictions without preprocessing do not need them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged, Values, empty, values_and_counts
from hepfaas.runs.preprocessing import Cut, Missing, NewBranch, ObjectCut, Preprocessing

if TYPE_CHECKING:
    from hepfaas.expressions.evaluation import Check
    from hepfaas.expressions.expression import Expression


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """Branches of all events, selected or not.

    arrays: all branches, computed ones too. passed: whether an event passes all cuts, (events,), None without cuts.
    flow: number of the first cut that rejects the event, or the number of cuts if none does, (events,), None without
    cuts.
    """

    arrays: Mapping[str, Values]
    passed: NDArray[np.bool_] | None
    flow: NDArray[np.uint8] | None


def preprocessed(
    arrays: Mapping[str, Values], preprocessing: Preprocessing, check: Check | None = None
) -> Preprocessed:
    """Return the branches and the selection of these events. check: called before each operation, to limit the time.

    Values that are declared missing become NaN: an integer branch whose type has them becomes float64, or float32 if it
    has at most 16 bits. The objects that an object cut rejects are dropped from all jagged branches of their
    collection, and `n<collection>` becomes the number of those that are left. A new branch has one number, or a list of
    numbers, for each event. An event passes a cut whose value is true, or a number other than 0; NaN does not pass.

    Raises: RequestError if a branch is missing, or an expression does not give what its place needs.
    """
    if not preprocessing:
        return Preprocessed(arrays, None, None)
    events = _Events(
        {name: _without_missing(name, branch, preprocessing.missing) for name, branch in arrays.items()}, check
    )
    for objects in preprocessing.objects:
        events.update(_kept_objects(events, objects))
    for branch in preprocessing.new:
        if branch.name in arrays:
            raise RequestError(f"new branch '{branch.name}': the events have a branch of this name already; rename it")
        events.update({branch.name: _computed(events, branch)})
    cuts = preprocessing.cuts
    if not cuts:
        return Preprocessed(events.branches, None, None)
    flow = np.full(len(events), len(cuts), dtype=np.uint8)
    for number in reversed(range(len(cuts))):
        flow = np.where(_passes(events, cuts[number]), flow, np.uint8(number))
    return Preprocessed(events.branches, flow == len(cuts), flow)


def inputs_of(preprocessing: Preprocessing, features: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Return the branches of a file that are read, in its order: features that are not computed, and what all
    expressions use. Raises: RequestError if one is missing, or a new branch has the name of a branch of the file."""
    known = dict.fromkeys(available)
    used = set(features) - {branch.name for branch in preprocessing.new}
    if unknown := sorted(used - known.keys()):
        raise RequestError(f"there is no branch '{unknown[0][:100]}'; {_closest(unknown[0], available)}")
    for objects in preprocessing.objects:
        _check_collection(objects, available)
        used.update(_objects_expression(objects).branches(known))
    for branch in preprocessing.new:
        if branch.name in known:
            raise RequestError(f"new branch '{branch.name}': the file has a branch of this name already; rename it")
        used.update(_new_expression(branch).branches(known))
        known[branch.name] = None
    for cut in preprocessing.cuts:
        used.update(_cut_expression(cut).branches(known))
    return tuple(name for name in available if name in used)


def sources_of(preprocessing: Preprocessing, available: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the branches of a file, in its order, that each new branch is computed from. Raises: as `inputs_of`."""
    known = dict.fromkeys(available)
    sources: dict[str, set[str]] = {name: {name} for name in available}
    for branch in preprocessing.new:
        used = _new_expression(branch).branches(known)
        sources[branch.name] = set().union(*(sources[name] for name in used))
        known[branch.name] = None
    return {new.name: tuple(name for name in available if name in sources[new.name]) for new in preprocessing.new}


def jaggedness(preprocessing: Preprocessing, types: Mapping[str, tuple[bool, str]]) -> dict[str, bool]:
    """Return whether each new branch is jagged. types: for each branch that is read, whether it is jagged and the type
    of one value, as in 'float32'. Raises: RequestError as `preprocessed`."""
    no_events = {name: empty(jagged, type_) for name, (jagged, type_) in types.items()}
    branches = preprocessed(no_events, preprocessing).arrays
    return {branch.name: values_and_counts(branches[branch.name])[1] is not None for branch in preprocessing.new}


def evaluated(arrays: Mapping[str, Values], expression: Expression) -> Values:
    """Return the value of an expression; arrays: branches, new ones too. Raises: RequestError as `preprocessed`."""
    return _Events(dict(arrays)).value(expression)


def is_named(name: str, pattern: str) -> bool:
    """Return whether a branch has this name, or fits this pattern of '*', '?' and '[abc]'."""
    return name == pattern or _pattern(pattern).match(name) is not None


class _Events:
    """Branches of some events, which expressions share as columns."""

    def __init__(self, branches: dict[str, Values], check: Check | None = None) -> None:
        from hepfaas.expressions.branches import Branches

        self.branches = branches
        self._shared = Branches(branches)
        self._limits = {} if check is None else {"check": check}

    def __len__(self) -> int:
        return len(next(iter(self.branches.values()), ()))

    def update(self, branches: Mapping[str, Values]) -> None:
        """Add branches, or replace those of the same name."""
        self.branches |= branches
        self._shared.replace(branches)

    def value(self, expression: Expression) -> Values:
        """Return the value of an expression."""
        return expression.evaluate(self._shared, len(self), **self._limits)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))


@functools.lru_cache(maxsize=256)
def _parsed(text: str, place: str) -> Expression:
    from hepfaas.expressions.expression import parse

    return parse(text, place)


def _closest(name: str, known: Iterable[str]) -> str:
    from hepfaas.expressions.names import closest

    return closest(name, known)


def _objects_expression(objects: ObjectCut) -> Expression:
    return _parsed(objects.expression, f"objects '{objects.collection}'")


def _new_expression(branch: NewBranch) -> Expression:
    return _parsed(branch.expression, f"new branch '{branch.name}'")


def _cut_expression(cut: Cut) -> Expression:
    return _parsed(cut.expression, "cut" if cut.name == cut.expression else f"cut '{cut.name[:100]}'")


@functools.lru_cache(maxsize=1_024)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def _without_missing(name: str, branch: Values, declared: Sequence[Missing]) -> Values:
    """Return the branch with NaN for the values that are declared missing; the same branch if its type has none."""
    values = [missing.value for missing in declared if is_named(name, missing.pattern)]
    if not values:
        return branch
    data, counts = values_and_counts(branch)
    values = [value for value in values if _has(data.dtype, value)]
    if not values:
        return branch
    is_missing = np.logical_or.reduce([data == data.dtype.type(value) for value in values])
    data = data.astype(data.dtype if data.dtype.kind == "f" else _float_type(data.dtype))
    data[is_missing] = np.nan
    return data if counts is None else Jagged(data, counts)


def _has(type_: np.dtype[Any], value: float) -> bool:
    """Return whether a type has a value; unsigned integers have no -999, and bool has no number."""
    if type_.kind == "f":
        return abs(value) <= float(np.finfo(type_).max)
    limits = np.iinfo(type_) if type_.kind in "iu" else None
    return limits is not None and value.is_integer() and limits.min <= int(value) <= limits.max


def _float_type(integers: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if integers.itemsize <= 2 else np.float64


def _check_collection(objects: ObjectCut, names: Collection[str]) -> None:
    collection = objects.collection
    if not any(name.startswith(f"{collection}_") for name in names):
        collections = sorted({name.partition("_")[0] for name in names if "_" in name})
        message = f"no branch begins with '{collection}_'; {_closest(collection, collections)}"
        raise RequestError(f"objects '{collection}': {message}")


def _kept_objects(events: _Events, objects: ObjectCut) -> dict[str, Values]:
    """Return the jagged branches of a collection and its count, with the objects that are kept."""
    _check_collection(objects, events.branches)
    place, collection = f"objects '{objects.collection}'", objects.collection
    keep, counts = values_and_counts(events.value(_objects_expression(objects)))
    if counts is None:
        raise RequestError(f"{place}: the condition has one value for each event; it needs one for each object")
    is_kept = _is_true(keep)
    kept_counts = np.diff(_offsets(is_kept.astype(np.int64))[_offsets(counts)])
    result: dict[str, Values] = {}
    for name, branch in events.branches.items():
        if not name.startswith(f"{collection}_") and name != f"n{collection}":
            continue
        values, own = values_and_counts(branch)
        if own is not None and name != f"n{collection}":
            _check_same(place, name, own, counts)
            result[name] = Jagged(values[is_kept], kept_counts)
        elif own is None and name == f"n{collection}":
            result[name] = kept_counts.astype(values.dtype)
    return result


def _check_same(place: str, name: str, own: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    if not np.array_equal(own, counts):
        event = int(np.flatnonzero(own != counts)[0])
        raise RequestError(
            f"{place}: in event {event} of these, branch '{name}' has {own[event]} values and the condition has "
            f"{counts[event]}; the branches of a collection need the same objects"
        )


def _computed(events: _Events, branch: NewBranch) -> Values:
    values = events.value(_new_expression(branch))
    jagged = values_and_counts(values)[1] is not None
    if branch.jagged not in (None, jagged):
        declared, actual = ("jagged", "flat") if branch.jagged else ("flat", "jagged")
        raise RequestError(
            f"new branch '{branch.name}' is declared {declared}, and '{branch.expression[:100]}' is {actual}; "
            f"change its type to '{actual}'"
        )
    return values


def _passes(events: _Events, cut: Cut) -> NDArray[np.bool_]:
    values, counts = values_and_counts(events.value(_cut_expression(cut)))
    if counts is not None:
        raise RequestError(
            f"cut '{cut.name[:100]}' has one value for each object; it needs one for each event: "
            "write any(…) or all(…) around the condition"
        )
    return _is_true(values)


def _is_true(values: NDArray[Any]) -> NDArray[np.bool_]:
    return values if values.dtype.kind == "b" else (values != 0) & ~np.isnan(values)
