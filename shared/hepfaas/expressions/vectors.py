"""Four-vectors: collections such as `Muon` from Muon_pt, Muon_eta, Muon_phi, Muon_mass.

The library `vector` computes them, in double precision. It is imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepfaas.expressions import reductions
from hepfaas.expressions.arrays import Column, Misfit, Scalar, aligned, at_places, elementwise, kept, number, places

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "pt": ("pt", "Pt", "PT"),
    "eta": ("eta", "Eta"),
    "phi": ("phi", "Phi"),
    "mass": ("mass", "Mass", "m", "M"),
    "energy": ("energy", "Energy", "e", "E"),
}
SEPARATORS = ("_", ".")
_PARTS = {"rho": "pt", "phi": "phi", "eta": "eta", "tau": "mass", "t": "energy", "x": "px", "y": "py", "z": "pz"}


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of all events, one for each event or one for each object.

    parts: coordinates by their name in the library `vector`, all with one shape: pt, phi (transverse), with eta
    (three-vectors), with mass or energy (four-vectors); or px, py, pz, energy.
    """

    parts: Mapping[str, Column]

    @property
    def jagged(self) -> bool:
        """Return whether there is a vector for each object."""
        return next(iter(self.parts.values())).layout is not None


def branches_of(collection: str, available: Collection[str]) -> dict[str, str]:
    """Return the branch of each coordinate of a collection; nothing if there is no such collection."""
    for separator in SEPARATORS:
        found = {part: _spelled(collection + separator, part, available) for part in SPELLINGS}
        wanted = ["pt", "phi"]
        if found["eta"]:
            wanted = ["pt", "eta", "phi", next((part for part in ("mass", "energy") if found[part]), "phi")]
        if found["pt"] and found["phi"]:
            return {part: found[part] for part in wanted}
    return {}


def _spelled(start: str, part: str, available: Collection[str]) -> str:
    return next((start + end for end in SPELLINGS[part] if start + end in available), "")


def vectors(parts: Mapping[str, Column | Scalar]) -> Vectors:
    """Return vectors with coordinates of one shape.

    Raises:
        Misfit: the coordinates have different numbers of objects, or no coordinate is a branch.
    """
    fitting = aligned([number(part) for part in parts.values()])
    like = next((part for part in fitting if isinstance(part, Column)), None)
    if like is None:
        raise Misfit("a vector needs a branch")
    columns = [
        part if isinstance(part, Column) else Column(np.full(len(like.data), part), like.layout) for part in fitting
    ]
    return Vectors(dict(zip(parts, columns, strict=True)))


def _double(part: Column) -> Column:
    data = part.data.astype(np.float64, copy=False)
    return Column(data if part.missing is None else np.where(part.missing, np.nan, data), part.layout)


def each(function: Callable[[Column], Column], momenta: Vectors) -> Vectors:
    """Return the vectors after the same operation on each coordinate."""
    return Vectors({name: function(part) for name, part in momenta.parts.items()})


def chosen(momenta: Vectors, index: Column | Scalar) -> Vectors:
    """Return one vector of each event, as `taken` does."""
    where = places(_like(momenta).lists, index)
    return each(lambda part: at_places(part, where), momenta)


def selected(momenta: Vectors, condition: Column) -> Vectors:
    """Return the vectors whose condition is true."""
    return each(lambda part: kept(part, condition), momenta)


def coordinate(momenta: Vectors, name: str) -> Column:
    """Return a quantity of each vector by its name in the library `vector`.

    Raises:
        Misfit: the vectors have too few coordinates.
    """
    return _coordinates(momenta, [name])[0]


def _coordinates(momenta: Vectors, names: Sequence[str]) -> list[Column]:
    for name in names:
        if name not in momenta.parts:
            _check(momenta, name)
    library = None if momenta.parts.keys() >= set(names) else _library(momenta)
    with np.errstate(all="ignore"):
        return [
            _double(momenta.parts[name])
            if name in momenta.parts
            else Column(np.asarray(getattr(library, name)), _like(momenta).layout)
            for name in names
        ]


_NEEDS = {
    **dict.fromkeys(("eta", "pz", "deltaR", "deltaeta"), "eta"),
    **dict.fromkeys(("mass", "energy", "rapidity"), "mass"),
}


def _check(momenta: Vectors, name: str) -> None:
    need = _NEEDS.get(name)
    if need is not None and "px" in momenta.parts:
        need = {"eta": "pz", "mass": "energy"}[need]
    if need in (None, *momenta.parts) or (need == "mass" and "energy" in momenta.parts):
        return
    if need in ("eta", "pz"):
        raise Misfit("the vector is transverse: it has no eta and no z component; pt, phi, deltaPhi and mt are defined")
    ends = ", ".join(f"_{s}" for part in ("mass", "energy") for s in SPELLINGS[part])
    raise Misfit(
        f"the vector has no mass: no branch of its collection ends in {ends}; write vector(pt, eta, phi, mass)"
    )


def _like(momenta: Vectors) -> Column:
    return next(iter(momenta.parts.values()))


def _library(momenta: Vectors) -> Any:
    import vector

    return vector.array({name: _double(part).data for name, part in momenta.parts.items()})


def added(momenta: Sequence[Vectors], sign: int = 1) -> Vectors:
    """Return the sum (sign 1) or the difference (sign -1) of vectors. If one of them is transverse, the sum is, too;
    if one of them has no mass, the sum has none."""
    result = momenta[0]
    for other in momenta[1:]:
        parts = [vector.parts for vector in (result, other)]
        if not all(part.keys() & {"eta", "pz"} for part in parts):
            names = {"pt", "phi", "px", "py"}
        elif not all(part.keys() & {"mass", "energy"} for part in parts):
            names = {"pt", "phi", "eta", "px", "py", "pz"}
        else:
            names = {*parts[0], *parts[1]}
        one, two = _aligned(*(Vectors({n: part[n] for n in part if n in names}) for part in parts))
        with np.errstate(all="ignore"):
            both = _library(one) + _library(two) if sign == 1 else _library(one) - _library(two)
        layout = _like(one).layout
        result = Vectors({_PARTS[name]: Column(np.asarray(both[name]), layout) for name in both.dtype.names})
    return result


def _cartesian(momenta: Vectors) -> Vectors:
    names = ["px", "py"]
    if momenta.parts.keys() & {"eta", "pz"}:
        names.append("pz")
    if momenta.parts.keys() & {"mass", "energy"}:
        names.append("energy")
    return Vectors(dict(zip(names, _coordinates(momenta, names), strict=True)))


def total(momenta: Vectors) -> Vectors:
    """Return the sum of the vectors of each event; zero for an empty list."""
    return each(lambda part: reductions.total(reductions.objects(part)), _cartesian(momenta))


def between(first: Vectors, second: Vectors, name: str) -> Column:
    """Return deltaR, deltaphi or deltaeta of two vectors."""
    _check(first, name)
    _check(second, name)
    one, two = _aligned(first, second)
    with np.errstate(all="ignore"):
        return Column(np.asarray(getattr(_library(one), name)(_library(two))), _like(one).layout)


def _aligned(first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
    columns = [part for part in aligned([*first.parts.values(), *second.parts.values()]) if isinstance(part, Column)]
    one, two = columns[: len(first.parts)], columns[len(first.parts) :]
    return Vectors(dict(zip(first.parts, one, strict=True))), Vectors(dict(zip(second.parts, two, strict=True)))


def transverse_mass(first: Vectors, second: Vectors) -> Column | Scalar:
    """Return √(2 pt₁ pt₂ (1 - cos Δφ)): the transverse mass of two massless vectors."""
    angle = between(first, second, "deltaphi")
    momenta = (coordinate(first, "pt"), coordinate(second, "pt"))
    return elementwise(lambda one, two, phi: np.sqrt(2 * one * two * (1 - np.cos(phi))), *momenta, angle)
