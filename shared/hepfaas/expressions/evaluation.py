"""Evaluates the tree of an expression on arrays, all events at once. Pure. Only arrays of awkward need awkward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

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
from hepfaas.expressions.branches import Array, Branches, is_awkward
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
    pass


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
        self._text, self._place, self._check = text, place, check
        self._branches = Branches.of(arrays)

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
        found = names.reads(node, self._branches)
        if found is None:
            raise problem(self._place, self._text, node.start, names.unknown(node, self._branches))
        if not found:
            return names.CONSTANTS[without_prefix(node.name)]
        if "" in found:
            return self._branches.column(found[""])
        return vectors.vectors({part: self._branches.column(name) for part, name in found.items()})


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
        if index.layout is None:
            raise Misfit("a filter needs a condition on the objects; this one has a value for each event")
        return vectors.selected(value, index) if isinstance(value, Vectors) else kept(_objects(value), index)
    return vectors.chosen(value, index) if isinstance(value, Vectors) else taken(_objects(value), index)


def _objects(value: Value) -> Column:
    if not isinstance(value, Column):
        raise Misfit("a number has no objects")
    return value


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
    if value.layout is None:
        return data
    for array in arrays.values():
        if not isinstance(array, np.ndarray) and not is_awkward(array):
            return type(array)(data, value.layout.counts)
    import awkward as ak

    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(value.layout.offsets), ak.contents.NumpyArray(data)))


def passed(value: Value, events: int) -> Numbers:
    """Return whether each event passes a cut, (events,). Missing values do not pass.

    Raises:
        Misfit: the value is a vector, or has a number for each object.
    """
    condition = as_column(truth(plain(value)), events)
    if condition.layout is not None:
        raise Misfit("a cut on events needs one value for each event, and this has one for each object; write any(…)")
    return condition.data
