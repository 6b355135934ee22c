"""Evaluates the tree of an expression on arrays, all events at once. Pure. Only arrays of awkward need awkward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np

from hepfaas.expressions import logic, names, vectors
from hepfaas.expressions.arrays import (
    Column,
    Misfit,
    Numbers,
    Scalar,
    as_column,
    elementwise,
    kept,
    nan_for_missing,
    number,
    taken,
    truth,
)
from hepfaas.expressions.functions import FUNCTIONS, Value, plain, without_prefix
from hepfaas.expressions.grammar import (
    Binary,
    Call,
    Comparison,
    Index,
    Logic,
    Name,
    Node,
    Number,
    Unary,
    problem,
    shown,
)
from hepfaas.expressions.vectors import Vectors

if TYPE_CHECKING:
    import awkward as ak


class Lists(Protocol):
    """A jagged branch without awkward: the values of all events end to end, (values,), and the number of values of
    each event, (events,). `features.jagged.Jagged` is one."""

    def __init__(self, values: Numbers, counts: Numbers) -> None: ...

    @property
    def values(self) -> Numbers:
        """Return the values of all events."""

    @property
    def counts(self) -> Numbers:
        """Return the number of values of each event."""

    def __len__(self) -> int: ...


Array: TypeAlias = Union[Numbers, Lists, "ak.Array"]

Check = Callable[[], None]
"""Called before each operation; it raises an error if the evaluation takes too long."""


def unlimited() -> None:
    """Limit nothing."""


_ARITHMETIC: dict[str, Callable[[Column | Scalar, Column | Scalar], Column | Scalar]] = {
    "+": lambda a, b: elementwise(np.add, a, b),
    "-": lambda a, b: elementwise(np.subtract, a, b),
    "*": lambda a, b: elementwise(np.multiply, a, b),
    "/": lambda a, b: elementwise(np.true_divide, a, b),
    "//": lambda a, b: logic.divided(np.floor_divide, a, b),
    "%": lambda a, b: logic.divided(np.remainder, a, b),
    "**": logic.power,
    "<<": lambda a, b: logic.bitwise(np.left_shift, a, b),
    ">>": lambda a, b: logic.bitwise(np.right_shift, a, b),
    "&": lambda a, b: logic.both(a, b) if _conditions(a, b) else logic.bitwise(np.bitwise_and, a, b),
    "|": lambda a, b: logic.either(a, b) if _conditions(a, b) else logic.bitwise(np.bitwise_or, a, b),
}
_COMPARISONS: dict[str, np.ufunc] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


class Evaluation:
    """One evaluation of a tree on arrays."""

    def __init__(self, text: str, place: str, arrays: Mapping[str, Array], check: Check = unlimited) -> None:
        self._text, self._place, self._arrays, self._check = text, place, arrays, check
        self._columns: dict[str, Column] = {}

    def value(self, node: Node) -> Value:
        """Return the value of a node.

        Raises:
            RequestError: values do not fit each other; the message shows the part of the text.
        """
        chain = []  # a + b + c is a chain of nodes on the left: a loop instead of a recursion
        while isinstance(node, Binary):
            chain.append(node)
            node = node.left
        value = self._checked(node, self._other)
        for binary in reversed(chain):
            value = self._binary(binary, value, self.value(binary.right))
        return value

    def _checked(self, node: Node, compute: Callable[[Node], Value]) -> Value:
        self._check()
        try:
            return compute(node)
        except Misfit as error:
            raise self._error(node, str(error)) from None

    def _error(self, node: Node, message: str) -> Exception:
        part = shown(self._text[node.start : node.end][:100])
        return problem(self._place, self._text, node.start, f"'{part}': {message}")

    def _other(self, node: Node) -> Value:
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Name):
            return self._name(node)
        if isinstance(node, Unary):
            return _unary(node.operator, plain(self.value(node.operand)))
        if isinstance(node, Comparison):
            return self._comparison(node)
        if isinstance(node, Logic):
            return self._logic(node)
        if isinstance(node, Index):
            return _indexed(self.value(node.value), plain(self.value(node.index)))
        if isinstance(node, Call):
            return FUNCTIONS[without_prefix(node.function)].compute([self.value(part) for part in node.arguments])
        raise TypeError(type(node))

    def _binary(self, node: Binary, left: Value, right: Value) -> Value:
        self._check()
        try:
            if isinstance(left, Vectors) and isinstance(right, Vectors) and node.operator in ("+", "-"):
                return vectors.added([left, right], 1 if node.operator == "+" else -1)
            return _ARITHMETIC[node.operator](plain(left), plain(right))
        except Misfit as error:
            raise self._error(node, str(error)) from None

    def _comparison(self, node: Comparison) -> Value:
        operands = [plain(self.value(part)) for part in node.operands]
        result: Column | Scalar = True
        for operator, left, right in zip(node.operators, operands, operands[1:], strict=False):
            one = logic.compared(_COMPARISONS[operator], left, right)
            result = one if result is True else logic.both(result, one)
        return result

    def _logic(self, node: Logic) -> Value:
        join = logic.both if node.operator == "and" else logic.either
        result = truth(plain(self.value(node.operands[0])))
        for part in node.operands[1:]:
            result = join(result, truth(plain(self.value(part))))
        return result

    def _name(self, node: Name) -> Value:
        found = names.reads(node, self._arrays)
        if found is None:
            raise problem(self._place, self._text, node.start, names.unknown(node, self._arrays))
        if not found:
            return names.CONSTANTS[without_prefix(node.name)]
        if "" in found:
            return self._branch(found[""])
        return vectors.vectors({part: self._branch(name) for part, name in found.items()})

    def _branch(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = read(name, self._arrays[name])
        return self._columns[name]


def _conditions(left: Column | Scalar, right: Column | Scalar) -> bool:
    return all(
        side.data.dtype.kind == "b" if isinstance(side, Column) else isinstance(side, bool) for side in (left, right)
    )


def _unary(operator: str, operand: Column | Scalar) -> Column | Scalar:
    if operator == "not" or (operator == "~" and _conditions(operand, operand)):
        return logic.opposite(truth(operand))
    if operator == "-":
        return -int(operand) if isinstance(operand, int) else elementwise(np.negative, operand)
    if operator == "+":
        return number(operand)
    return logic.inverted(operand)


def _indexed(value: Value, index: Column | Scalar) -> Value:
    if isinstance(index, Column) and index.data.dtype.kind == "b":
        if index.offsets is None:
            raise Misfit("a filter needs a condition on the objects; this one has a value for each event")
        return vectors.selected(value, index) if isinstance(value, Vectors) else kept(_objects(value), index)
    return vectors.chosen(value, index) if isinstance(value, Vectors) else taken(_objects(value), index)


def _objects(value: Value) -> Column:
    if not isinstance(value, Column):
        raise Misfit("a number has no objects")
    return value


def read(name: str, array: Array) -> Column:
    """Return a branch as a column. Integers get 64 bits.

    Raises:
        Misfit: the branch does not hold numbers, or has more than one list in each event.
    """
    offsets = None
    if isinstance(array, np.ndarray):
        data = array
        if data.ndim == 2:
            offsets = np.arange(len(data) + 1, dtype=np.int64) * data.shape[1]
            data = data.reshape(-1)
    elif _is_awkward(array):
        data, offsets = _unpacked(name, array)
    else:
        data, offsets = array.values, np.concatenate([np.zeros(1, np.int64), np.cumsum(array.counts, dtype=np.int64)])
    if data.ndim != 1 or data.dtype.kind not in "biuf":
        raise Misfit(f"branch '{name}' holds {data.dtype} with {data.ndim} axes, and not numbers or lists of numbers")
    if data.dtype.kind in "iu":
        data = data.astype(np.uint64 if data.dtype == np.uint64 else np.int64, copy=False)
    # NumPy may round differently if the values do not stand next to each other.
    return Column(np.ascontiguousarray(data, data.dtype.newbyteorder("=")), offsets)


def _is_awkward(array: Any) -> bool:
    return hasattr(type(array), "layout")


def _unpacked(name: str, array: Any) -> tuple[Numbers, Numbers | None]:
    import awkward as ak

    layout = ak.to_layout(array)
    while layout.is_indexed and not layout.is_option:
        layout = layout.project()
    offsets = None
    if layout.is_list:
        layout = layout.to_ListOffsetArray64(True)
        offsets = np.asarray(layout.offsets.data)
        layout = layout.content[: offsets[-1]]
        while layout.is_indexed and not layout.is_option:
            layout = layout.project()
    if not layout.is_numpy or layout.parameter("__array__") is not None:
        raise Misfit(f"branch '{name}' holds {ak.type(array)}, and not numbers or lists of numbers")
    return np.asarray(layout.data), offsets


def result(value: Value, arrays: Mapping[str, Array], events: int) -> Array:
    """Return a value as an array, with a number for each event or for each object. Missing numbers are NaN, a missing
    condition is False.

    A jagged value has the type of the jagged arrays: `Lists` if there are any, else an array of awkward.

    Raises:
        Misfit: the value is a vector.
    """
    if isinstance(value, Vectors):
        raise Misfit("the result is a vector, and not a number; write pt(…), eta(…), phi(…) or mass(…)")
    if not isinstance(value, Column):
        return np.full(events, value)
    data = nan_for_missing(value).data
    if data.dtype.kind == "f" and np.isnan(data).any():
        data = np.where(np.isnan(data), data.dtype.type(np.nan), data)  # one NaN: its sign and payload are arbitrary
    if value.offsets is None:
        return data
    for array in arrays.values():
        if not isinstance(array, np.ndarray) and not _is_awkward(array):
            return type(array)(data, value.counts)
    import awkward as ak

    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(value.offsets), ak.contents.NumpyArray(data)))


def passed(value: Value, events: int) -> Numbers:
    """Return whether each event passes a cut, (events,). Missing values do not pass.

    Raises:
        Misfit: the value is a vector, or has a number for each object.
    """
    condition = as_column(truth(plain(value)), events)
    if condition.offsets is not None:
        raise Misfit("a cut on events needs one value for each event, and this has one for each object; write any(…)")
    return condition.data
