"""Event weights and labels of a file, as part of the recipe. Pure. Expressions are stored as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

NegativeWeights = Literal["keep", "abs", "drop", "error"]


@dataclass(frozen=True)
class Balance:
    """Training weights that give each class the same sum; with an expression, also in each of its bins.

    edges: of the bins, in the expression's unit; the first and the last bin take what lies outside.
    """

    expression: str = ""
    edges: tuple[float, ...] = ()

    @property
    def n_bins(self) -> int:
        """Number of bins, 1 without an expression."""
        return max(1, len(self.edges) - 1)


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """The weight and the label of each event of a file.

    weight: expression, '' for 1. label: expression that gives the label of each event, '' if its file has one. balance:
    of the training weights, None for none. negative: what becomes of negative weights in training; metrics keep them.
    """

    weight: str = ""
    label: str = ""
    balance: Balance | None = None
    negative: NegativeWeights = "keep"

    @property
    def text(self) -> str:
        """JSON text, equal for equal values."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def expressions(self) -> tuple[str, ...]:
        """The expressions that it evaluates."""
        spectrum = self.balance.expression if self.balance else ""
        return tuple(filter(None, (self.weight, self.label, spectrum)))

    @classmethod
    def from_text(cls, text: str) -> Weighting:
        """Return the value of `text`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "balance": balance_from_json(values["balance"])})


def balance_from_json(values: Mapping[str, Any] | None) -> Balance | None:
    """Return the balance from the values of `dataclasses.asdict`."""
    return Balance(values["expression"], tuple(values["edges"])) if values is not None else None
