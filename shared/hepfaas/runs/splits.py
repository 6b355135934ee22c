"""The three samples that the events of a training are split into. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from hepfaas.errors import RequestError


class Split(IntEnum):
    """One of the samples; its number is stored with the prepared rows."""

    TRAINING = 0
    VALIDATION = 1
    TEST = 2

    @property
    def label(self) -> str:
        """Name of the sample in results and messages."""
        return self.name.lower()


HELD_BACK = (Split.VALIDATION, Split.TEST)
"""The samples that are not trained on, in the order of stored score counts."""


def fractions_in(values: Mapping[str, Any], place: str) -> tuple[float, ...]:
    """Return the fractions of events in the order of `Split`, from an object of 'train', 'validation' and 'test'.

    Raises: RequestError unless there are three numbers above 0 whose sum is 1.
    """
    names = ("train", "validation", "test")
    given = [value for value in values.values() if type(value) in (int, float) and 0 < value < 1]
    if set(values) != set(names) or len(given) < len(names):
        raise RequestError(f"{place} takes a number between 0 and 1 for each of {', '.join(names)}")
    fractions = tuple(float(values[name]) for name in names)
    if not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise RequestError(f"{place}: the fractions add up to {sum(fractions):g}; their sum must be 1")
    return fractions
