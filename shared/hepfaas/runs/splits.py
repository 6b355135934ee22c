"""The three samples that the events of a training are split into. Pure."""

from __future__ import annotations

from enum import IntEnum


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
