"""Branches of a file that are read beside the features: for weights, labels, targets and spectators. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.features.preprocess import evaluated, inputs_of
from hepfaas.runs.preprocessing import Preprocessing

PLACE = "params.json"


def extra_inputs(expressions: Sequence[str], preprocessing: Preprocessing, available: Sequence[str]) -> tuple[str, ...]:
    """Return the branches of a file that expressions take, those behind new branches included.

    Raises: RequestError if one is missing.
    """
    known = _known(preprocessing, available)
    names = {name for text in expressions for name in parse(text, PLACE).branches(known)}
    return inputs_of(preprocessing, [name for name in known if name in names], available) if names else ()


def with_branches(
    expressions: Sequence[str], preprocessing: Preprocessing, available: Sequence[str]
) -> tuple[str, ...]:
    """Return the expressions whose branches exist."""
    known = _known(preprocessing, available)
    return tuple(text for text in expressions if _exists(text, known))


def one_number(arrays: Mapping[str, Values], expression: str, n_events: int) -> NDArray[Any]:
    """Return the value of an expression for each event, (events,). arrays: branches, new ones too.

    Raises: RequestError if it gives several values for an event.
    """
    values, counts = values_and_counts(evaluated(arrays, parse(expression, PLACE)))
    if counts is not None:
        raise RequestError(
            f"'{expression}' has several values for an event; weights, labels, targets and spectators have one: "
            "take an element, as in Muon_pt[0], or a reduction, as in sum(Jet_pt)"
        )
    return np.asarray(np.broadcast_to(values, (n_events,)))


def _known(preprocessing: Preprocessing, available: Sequence[str]) -> list[str]:
    return [*available, *(new.name for new in preprocessing.new)]


def _exists(text: str, known: Sequence[str]) -> bool:
    try:
        parse(text, PLACE).branches(known)
    except RequestError:
        return False
    return True
