"""Folds of a k-fold training: each event is a test event of one network, which learns from the other folds. Pure.

Prepared rows are stored by group: the fold of an event, and whether it is a validation event of the networks that learn
from this fold. The samples of each network are views of the groups, so the events of a run are prepared once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from string import ascii_lowercase, digits
from typing import Any

from hepfaas.runs.epochs import BATCH_ROWS
from hepfaas.runs.splits import Split

MOST_FOLDS = 10

DIGITS = (digits + ascii_lowercase)[: 2 * MOST_FOLDS]
"""Digit of each group in the order of the record batches of a part. A group has the number 2 × fold + 1 for the
validation events of a fold, 2 × fold for the others."""


@dataclass(frozen=True)
class Folds:
    """The folds of a run.

    number: of folds. by: expression that gives the fold of an event: its value, rounded down, modulo the number of
    folds; '': the fold is drawn by a hash of each event.
    """

    number: int
    by: str = ""

    @property
    def n_groups(self) -> int:
        """Number of groups that rows are stored in."""
        return 2 * self.number

    @property
    def text(self) -> str:
        """JSON text, equal for equal values."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Folds | None:
        """Return the folds of `text`; None for ''."""
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True)
class FoldRule:
    """Rule for the network that scores an event. files: identities of the files that the networks learned from: without
    an expression, only their events have a fold."""

    folds: Folds
    seed: int
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FoldRule:
        """Return the rule of `to_json`."""
        return cls(Folds(**values["folds"]), values["seed"], tuple(values["files"]))


def split_of_group(group: int, fold: int) -> Split:
    """Return the sample that the events of a group are in, for the network of a fold."""
    own, is_validation = divmod(group, 2)
    if own == fold:
        return Split.TEST
    return Split.VALIDATION if is_validation else Split.TRAINING


def sizes_of(order: str, rows: Sequence[int]) -> tuple[int, ...]:
    """Return the rows of each record batch of a part. rows: of each place that a digit of `order` names."""
    left, sizes = list(rows), []
    for digit in order:
        place = DIGITS.index(digit)
        sizes.append(min(BATCH_ROWS, left[place]))
        left[place] -= sizes[-1]
    return tuple(sizes)


def seen_by(fold: int, groups: Sequence[tuple[int, int]], order: str) -> dict[str, Any]:
    """Return the fields of a stored part as the network of a fold sees them.

    groups: rows and sum of event ids of each group. order: the group of each record batch, one digit each.
    """
    splits = [split_of_group(group, fold) for group in range(len(groups))]
    rows, id_sum = [0] * len(Split), 0
    for split, (n_rows, ids) in zip(splits, groups, strict=True):
        rows[split] += n_rows
        id_sum += ids if split == Split.TRAINING else 0
    digit = {ord(DIGITS[group]): str(int(split)) for group, split in enumerate(splits)}
    return {"rows": tuple(rows), "id_sum": id_sum % 2**64, "order": order.translate(digit), "groups": ()}
