"""An expression: parsed once, evaluated on any number of arrays. The entry of this room."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.expressions import names
from hepfaas.expressions.arrays import Misfit
from hepfaas.expressions.branches import Array
from hepfaas.expressions.evaluation import Check, Evaluation, passed, result, unlimited
from hepfaas.expressions.functions import FUNCTIONS, MANY, Value, without_prefix
from hepfaas.expressions.grammar import Call, Name, Node, nodes, problem, tree

T = TypeVar("T")


@dataclass(frozen=True)
class Expression:
    """A parsed expression. Expressions with the same text are equal.

    place: where the text stands, for messages, such as "params.json: cut 2".
    """

    text: str
    place: str = field(compare=False)
    _root: Node = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return parse, (self.text, self.place)

    @property
    def names(self) -> frozenset[str]:
        """The names in the text that are not those of functions: branches, collections and constants."""
        return frozenset(node.name for node in self._names())

    def branches(self, available: Collection[str]) -> tuple[str, ...]:
        """Return the branches that the expression reads, in the order of their first use in the text.

        Raises:
            RequestError: a name is neither a branch nor a collection of available branches.
        """
        read: dict[str, None] = {}
        available = available if isinstance(available, Mapping | set | frozenset) else dict.fromkeys(available)
        for node in self._names():
            found = names.reads(node, available)
            if found is None:
                raise problem(self.place, self.text, node.start, names.unknown(node, available))
            read.update(dict.fromkeys(found.values()))
        return tuple(read)

    def _names(self) -> list[Name]:
        found = [node for node in nodes(self._root) if isinstance(node, Name)]
        return sorted(found, key=lambda node: node.start)

    def evaluate(self, arrays: Mapping[str, Array], events: int | None = None, check: Check = unlimited) -> Array:
        """Return the value for each event, (events,), or for each object, (events, var).

        Conditions are bool, and False where a value is missing or NaN. Missing numbers are NaN.

        Args:
            arrays: all branches that `branches` returned; others are ignored.
            events: the number of events, which is needed if there are no arrays.
            check: called before each operation; what it raises ends the evaluation.

        Raises:
            RequestError: values do not fit each other; the message shows the part of the text.
        """
        number = self._events(arrays, events)
        return self._result(lambda: result(self._value(arrays, check), arrays, number))

    def passes(self, arrays: Mapping[str, Array], events: int | None = None) -> NDArray[np.bool_]:
        """Return whether each event passes the expression as a cut, (events,). Numbers other than 0 pass; missing
        values and NaN do not. The arguments are those of `evaluate`.

        Raises:
            RequestError: as `evaluate`, or the expression has a value for each object.
        """
        number = self._events(arrays, events)
        return self._result(lambda: passed(self._value(arrays), number))

    def _value(self, arrays: Mapping[str, Array], check: Check = unlimited) -> Value:
        return Evaluation(self.text, self.place, arrays, check).value(self._root)

    def _events(self, arrays: Mapping[str, Array], events: int | None) -> int:
        lengths = {name: len(array) for name, array in arrays.items()}
        number = events if events is not None else next(iter(lengths.values()), None)
        if number is None:
            raise RequestError(f"{self.place}: '{self.text[:100]}' reads no branch: the number of events is unknown")
        for name, length in lengths.items():
            if length != number:
                raise RequestError(f"{self.place}: branch '{name}' has {length} events; {number} are expected")
        return number

    def _result(self, compute: Callable[[], T]) -> T:
        try:
            return compute()
        except Misfit as error:
            raise problem(self.place, self.text, 0, str(error)) from None


def parse(text: str, place: str) -> Expression:
    """Return the expression of a text.

    Raises:
        RequestError: the text is not an expression, calls an unknown function, or is over a limit.
    """
    root = tree(text, place)
    for node in nodes(root):
        if isinstance(node, Call):
            _check_call(node, text, place)
    return Expression(text, place, root)


def _check_call(call: Call, text: str, place: str) -> None:
    function = FUNCTIONS.get(without_prefix(call.function))
    if function is None:
        message = f"there is no function '{call.function[:100]}'; {names.closest(call.function, FUNCTIONS)}"
        raise problem(place, text, call.start, message)
    count = len(call.arguments)
    if not function.least <= count <= function.most:
        wanted = f"{function.least}" if function.least == function.most else f"{function.least} to {function.most}"
        wanted = "1 or more" if function.most == MANY and count < function.least else wanted
        raise problem(
            place, text, call.start, f"{call.function}() takes {wanted} argument{'s' * (wanted != '1')}; found {count}"
        )
