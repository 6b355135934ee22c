"""Branches of a file that are read beside the features: for weights, labels and spectators. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hepfaas.errors import RequestError
from hepfaas.expressions import parse
from hepfaas.features.preprocess import inputs_of
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


def _known(preprocessing: Preprocessing, available: Sequence[str]) -> list[str]:
    return [*available, *(new.name for new in preprocessing.new)]


def _exists(text: str, known: Sequence[str]) -> bool:
    try:
        parse(text, PLACE).branches(known)
    except RequestError:
        return False
    return True
