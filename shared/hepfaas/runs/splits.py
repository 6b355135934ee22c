"""The three samples that the events of a training are split into. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


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


@dataclass(frozen=True)
class SplitRule:
    """Rule for splitting events.

    fractions: of the samples, drawn by a hash of each event. training: expression that is true for training and
    validation events, which are then drawn in the ratio of their fractions; all others are test events. '': all samples
    are drawn.
    """

    fractions: tuple[float, float, float] = (0.64, 0.16, 0.20)
    training: str = ""

    @property
    def drawn(self) -> tuple[float, float, float]:
        """The fractions of the events that are drawn; their sum is 1."""
        training, validation, _ = self.fractions
        if not self.training:
            return self.fractions
        return training / (training + validation), validation / (training + validation), 0.0

    @property
    def text(self) -> str:
        """JSON text, equal for equal values; '' for the usual rule."""
        return json.dumps(asdict(self), sort_keys=True) if self != USUAL_SPLIT else ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> SplitRule:
        """Return the rule from the values of `dataclasses.asdict`; None: the usual one."""
        return cls(tuple(values["fractions"]), values["training"]) if values else USUAL_SPLIT

    @classmethod
    def from_text(cls, text: str) -> SplitRule:
        """Return the rule of `text`."""
        return cls.from_json(json.loads(text) if text else None)


USUAL_SPLIT = SplitRule()
"""64 % training, 16 % validation, 20 % test, as in MLaaS4HEP."""
