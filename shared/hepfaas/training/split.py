"""Split of events into training, validation and test, and into folds, by a hash of each event's identity. Pure.

The split does not depend on how the entries are cut into ranges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.runs.splits import Split

FRACTIONS = (0.64, 0.16, 0.20)


def event_ids(identity: str, entries: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for each event, (events,), that depends only on its file's identity and its entry."""
    return _mixed(entries.astype(np.uint64) + _number(identity))


def split_of(
    identity: str, entries: NDArray[np.int64], seed: int, fractions: Sequence[float] = FRACTIONS
) -> NDArray[np.uint8]:
    """Return the number of each event's `Split`, (events,).

    fractions: of the events that each split gets, in the order of `Split`; their sum is 1.
    """
    return _drawn(identity, entries, f"split {seed}", fractions)


def split_by(
    values: NDArray[Any],
    identity: str,
    entries: NDArray[np.int64],
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> NDArray[np.uint8]:
    """Return the number of each event's `Split`, (events,), where an expression names the test events.

    values: of the expression: 0 for a test event, another number for the others, which are split into training and
    validation in the ratio of their fractions.

    Raises: RequestError if the expression has no value for an event.
    """
    if missing := int(np.isnan(values.astype(np.float64)).sum()):
        raise RequestError(f"the expression of 'split' has no value for {missing:,} of {len(values):,} events")
    training, validation, _ = fractions
    parts = np.array([training, validation, 0.0]) / (training + validation)
    split = _drawn(identity, entries, f"split {seed}", parts.tolist())
    return np.where(values != 0, np.minimum(split, Split.VALIDATION), Split.TEST).astype(np.uint8)


def fold_of(identity: str, entries: NDArray[np.int64], seed: int, n_folds: int) -> NDArray[np.uint8]:
    """Return the number of each event's fold, (events,), of at most 255 equal ones, independent of its `Split`."""
    return _drawn(identity, entries, f"fold {seed}", [1 / n_folds] * n_folds)


def _drawn(identity: str, entries: NDArray[np.int64], what: str, fractions: Sequence[float]) -> NDArray[np.uint8]:
    """Return a number below len(fractions) for each event, drawn with these probabilities."""
    drawn = _mixed(event_ids(identity, entries) ^ _number(what))
    edges = np.cumsum(fractions)[:-1] * 2.0**64
    return np.searchsorted(edges, drawn.astype(np.float64), side="right").astype(np.uint8)


def id_sum(ids: NDArray[np.uint64]) -> int:
    """Return the sum of the ids modulo 2**64, which the ledger compares to check that each event was used once."""
    return int(ids.sum(dtype=np.uint64))


def _number(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which spreads neighbouring numbers."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
