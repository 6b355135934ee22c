"""Preprocessing of branches, as part of the recipe and of the model's spec. Pure.

Expressions are stored as text; expressions/ parses them, features/preprocess.py applies them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Missing:
    """A value that stands for "no value" in the branches that a pattern names, as -999; it is read as NaN."""

    pattern: str
    value: float


@dataclass(frozen=True)
class ObjectCut:
    """The objects of a collection that are kept, as 'Jet' and 'Jet_pt > 30'. The other objects are dropped from all
    jagged branches '<collection>_…' together."""

    collection: str
    expression: str


@dataclass(frozen=True)
class NewBranch:
    """A branch that is computed from others. jagged: whether it must be jagged, if that was declared."""

    name: str
    expression: str
    jagged: bool | None = None


@dataclass(frozen=True)
class Cut:
    """A condition on events. name: in the cut flow."""

    name: str
    expression: str


@dataclass(frozen=True)
class Preprocessing:
    """The steps from the branches of a file to the branches and events that are used, in the order in which they apply.

    missing: values that are read as NaN. objects: objects that are kept. new: new branches; each may use those before
    it. cuts: an event is used if all hold. removed: branches that are read or computed for this alone and are no
    features, by name or pattern.
    """

    missing: tuple[Missing, ...] = ()
    objects: tuple[ObjectCut, ...] = ()
    new: tuple[NewBranch, ...] = ()
    cuts: tuple[Cut, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything is done."""
        return self != Preprocessing()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @property
    def text(self) -> str:
        """JSON text, equal for equal values; '' if nothing is done."""
        return json.dumps(self.to_json(), sort_keys=True) if self else ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the value of `to_json`, also after a round trip through JSON text."""
        return cls(
            missing=tuple(Missing(**item) for item in values.get("missing", ())),
            objects=tuple(ObjectCut(**item) for item in values.get("objects", ())),
            new=tuple(NewBranch(**item) for item in values.get("new", ())),
            cuts=tuple(Cut(**item) for item in values.get("cuts", ())),
            removed=tuple(values.get("removed", ())),
        )

    @classmethod
    def from_text(cls, text: str) -> Preprocessing:
        """Return the value of `text`."""
        return cls.from_json(json.loads(text)) if text else cls()


NOTHING = Preprocessing()
