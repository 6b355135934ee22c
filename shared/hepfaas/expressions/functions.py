"""The functions of expressions, by name: the one table that says which calls are allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hepfaas.expressions import logic, reductions, vectors
from hepfaas.expressions.arrays import (
    Column,
    Misfit,
    Scalar,
    aligned,
    column,
    elementwise,
    nan_for_missing,
    number,
    truth,
)
from hepfaas.expressions.vectors import Vectors

Value = Column | Scalar | Vectors
PREFIXES = ("TMath::", "std::", "numpy.", "np.", "math.", "awkward.", "ak.")
MANY = 100
AT_ONCE = 10_000
"""Values that a function of Python computes at once."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of expressions. least, most: the number of its arguments."""

    least: int
    most: int
    compute: Callable[[Sequence[Value]], Value]


def plain(value: Value) -> Column | Scalar:
    """Return a value that is a number.

    Raises:
        Misfit: it is a vector.
    """
    if isinstance(value, Vectors):
        raise Misfit("a number is needed, and this is a vector; write pt(…), eta(…), phi(…) or mass(…)")
    return value


def vector_of(value: Value) -> Vectors:
    """Return a value that is a vector.

    Raises:
        Misfit: it is a number.
    """
    if not isinstance(value, Vectors):
        raise Misfit("a vector is needed, such as Muon[0] or vector(pt, eta, phi, mass), and this is a number")
    return value


def _numpy(function: Callable[..., Any], arguments: int = 1) -> Function:
    return Function(arguments, arguments, lambda values: elementwise(function, *map(plain, values)))


def _reduction(function: Callable[[Column], Column], *, logical: bool = False) -> Function:
    def compute(values: Sequence[Value]) -> Value:
        value = plain(values[0])
        return function(reductions.objects(truth(value) if logical else value))

    return Function(1, 1, compute)


def _extreme(reduction: Callable[[Column], Column], of_two: np.ufunc) -> Function:
    def compute(values: Sequence[Value]) -> Value:
        if len(values) == 1:
            return reduction(reductions.objects(plain(values[0])))
        result = plain(values[0])
        for other in values[1:]:
            result = elementwise(of_two, result, plain(other))
        return result

    return Function(1, MANY, compute)


def _sum(values: Sequence[Value]) -> Value:
    value = values[0]
    return vectors.total(value) if isinstance(value, Vectors) else reductions.total(reductions.objects(value))


def _number_of(values: Sequence[Value]) -> Value:
    value = values[0]
    parts = next(iter(value.parts.values())) if isinstance(value, Vectors) else reductions.objects(value)
    return reductions.count(reductions.objects(parts))


def _count(values: Sequence[Value]) -> Value:
    if isinstance(values[0], Column) and values[0].data.dtype.kind == "b":
        raise Misfit("count of true and false has two readings; write sum(…) for the true ones, or len(…) for all")
    return _number_of(values)


def _end(function: Callable[[Column], Column]) -> Function:
    def compute(values: Sequence[Value]) -> Value:
        value = values[0]
        return vectors.each(function, value) if isinstance(value, Vectors) else function(reductions.objects(value))

    return Function(1, 1, compute)


def where(values: Sequence[Value]) -> Value:
    """Return the second value where the first is true, else the third. A missing condition is not true."""
    condition, yes, no = (plain(value) for value in values)
    condition = logic.flag(truth(condition))
    if any(_kind(value) != "b" for value in (yes, no)):
        yes, no = number(yes), number(no)  # a missing true or false becomes 0, so the type does not depend on the data
    condition, yes, no = aligned([condition, yes, no])
    result = logic.joined(np.where, condition, yes, no)
    if not isinstance(result, Column) or not any(_mask(value) for value in (yes, no)):
        return result
    missing = logic.joined(np.where, condition, _mask(yes), _mask(no))
    return column(result.data, result.layout, missing.data if isinstance(missing, Column) else None)


def _kind(value: Column | Scalar) -> str:
    return value.data.dtype.kind if isinstance(value, Column) else np.asarray(value).dtype.kind


def _mask(value: Column | Scalar) -> Column | Literal[False]:
    known = isinstance(value, Column) and value.missing is not None
    return Column(value.missing, value.layout) if known else False  # type: ignore[union-attr, arg-type]


def _clip(values: Sequence[Value]) -> Value:
    value, low, high = (plain(v) for v in values)
    return elementwise(np.minimum, elementwise(np.maximum, value, low), high)


def _test(function: Callable[..., Any], of_missing: bool) -> Function:
    def compute(values: Sequence[Value]) -> Value:
        value = plain(values[0])
        if not isinstance(value, Column) or value.missing is None:
            return elementwise(function, value)
        result = function(value.data)
        return Column(np.where(value.missing, of_missing, result), value.layout)

    return Function(1, 1, compute)


def _of_known(function: np.ufunc) -> Function:
    """Return a function of two numbers that leaves NaN and missing numbers out."""

    def known(value: Value) -> Column | Scalar:
        value = number(plain(value))
        return nan_for_missing(value) if isinstance(value, Column) else value

    return Function(2, 2, lambda values: elementwise(function, *map(known, values)))


def _each_number(function: Callable[[float], float]) -> Callable[..., Any]:
    """Return a function of one number as a function of arrays, for functions that NumPy does not have."""
    of_objects = np.frompyfunc(function, 1, 1)

    def compute(values: Any) -> Any:
        numbers = np.asarray(values)
        result = np.empty(numbers.shape, np.result_type(values, np.float32))
        if not numbers.ndim:
            return of_objects(values)
        for start in range(0, len(numbers), AT_ONCE):  # other threads go on between two parts
            result[start : start + AT_ONCE] = of_objects(numbers[start : start + AT_ONCE])
        return result

    return compute


def _quantity(name: str) -> Function:
    def compute(values: Sequence[Value]) -> Value:
        momenta = [vector_of(value) for value in values]
        return vectors.coordinate(momenta[0] if len(momenta) == 1 else vectors.added(momenta), name)

    return Function(1, MANY, compute)


def _vector(values: Sequence[Value]) -> Value:
    names = {2: ("pt", "phi"), 3: ("pt", "eta", "phi"), 4: ("pt", "eta", "phi", "mass")}[len(values)]
    return vectors.vectors(dict(zip(names, map(plain, values), strict=True)))


def wrapped(angle: Any) -> Any:
    """Return an angle in [-π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _delta_phi(values: Sequence[Value]) -> Value:
    one, two = values
    if isinstance(one, Vectors) or isinstance(two, Vectors):
        return vectors.between(vector_of(one), vector_of(two), "deltaphi")
    return elementwise(lambda a, b: wrapped(a - b), one, two)


def _delta_eta(values: Sequence[Value]) -> Value:
    one, two = values
    if isinstance(one, Vectors) or isinstance(two, Vectors):
        return vectors.between(vector_of(one), vector_of(two), "deltaeta")
    return elementwise(np.subtract, one, two)


def _delta_r(values: Sequence[Value]) -> Value:
    return vectors.between(vector_of(values[0]), vector_of(values[1]), "deltaR")


def _mt(values: Sequence[Value]) -> Value:
    return vectors.transverse_mass(vector_of(values[0]), vector_of(values[1]))


def _round(value: Any) -> Any:
    return np.round(value)


_OF_ONE: dict[str, Callable[..., Any]] = {
    "abs": np.absolute,
    "fabs": np.fabs,
    "sqrt": np.sqrt,
    "cbrt": np.cbrt,
    "square": np.square,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "arcsinh": np.arcsinh,
    "arccosh": np.arccosh,
    "arctanh": np.arctanh,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": np.rint,
    "round": _round,
    "sign": np.sign,
    "neg": np.negative,
    "signbit": np.signbit,
    "deg2rad": np.deg2rad,
    "rad2deg": np.rad2deg,
    "erf": _each_number(math.erf),
    "erfc": _each_number(math.erfc),
}
_OF_TWO: dict[str, np.ufunc] = {
    "arctan2": np.arctan2,
    "hypot": np.hypot,
    "copysign": np.copysign,
    "nextafter": np.nextafter,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
_ALIASES = {
    "absolute": "abs",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "atan2": "arctan2",
    "pow": "power",
    "num": "len",
    "sorted": "sort",
    "delta_r": "deltaR",
    "delta_phi": "deltaPhi",
    "delta_eta": "deltaEta",
}

FUNCTIONS: dict[str, Function] = {
    **{name: _numpy(function) for name, function in _OF_ONE.items()},
    **{name: _numpy(function, 2) for name, function in _OF_TWO.items()},
    "fmax": _of_known(np.fmax),
    "fmin": _of_known(np.fmin),
    "fmod": Function(2, 2, lambda values: logic.divided(np.fmod, plain(values[0]), plain(values[1]))),
    "power": Function(2, 2, lambda values: logic.power(plain(values[0]), plain(values[1]))),
    "clip": Function(3, 3, _clip),
    "where": Function(3, 3, where),
    "isnan": _test(np.isnan, True),
    "isinf": _test(np.isinf, False),
    "isfinite": _test(np.isfinite, False),
    "logical_and": Function(2, 2, lambda values: logic.both(*(truth(plain(value)) for value in values))),
    "logical_or": Function(2, 2, lambda values: logic.either(*(truth(plain(value)) for value in values))),
    "logical_not": Function(1, 1, lambda values: logic.opposite(truth(plain(values[0])))),
    "sum": Function(1, 1, _sum),
    "mean": _reduction(reductions.mean),
    "max": _extreme(reductions.largest, np.maximum),
    "min": _extreme(reductions.smallest, np.minimum),
    "argmax": _reduction(reductions.position_of_largest),
    "argmin": _reduction(reductions.position_of_smallest),
    "any": _reduction(reductions.any_of, logical=True),
    "all": _reduction(reductions.all_of, logical=True),
    "len": Function(1, 1, _number_of),
    "count": Function(1, 1, _count),
    "first": _end(reductions.first),
    "last": _end(reductions.last),
    "sort": _reduction(reductions.ordered),
    "argsort": _reduction(reductions.order),
    "pi": Function(0, 0, lambda values: math.pi),  # TMath::Pi()
    "vector": Function(2, 4, _vector),
    **{name: _quantity(name) for name in ("pt", "eta", "phi", "mass", "energy", "px", "py", "pz", "rapidity")},
    "deltaR": Function(2, 2, _delta_r),
    "deltaPhi": Function(2, 2, _delta_phi),
    "deltaEta": Function(2, 2, _delta_eta),
    "mt": Function(2, 2, _mt),
}
FUNCTIONS.update({alias: FUNCTIONS[name] for alias, name in _ALIASES.items()})


def without_prefix(name: str) -> str:
    """Return a name without the module or class that other languages write before it: np.sqrt, TMath::Sqrt."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return rest.lower() if prefix == "TMath::" else rest
    return name
