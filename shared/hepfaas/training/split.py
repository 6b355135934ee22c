"""Split of events into training, validation and test by a hash of each event's identity. Pure.

The split does not depend on how the entries are cut into ranges.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.runs.folds import Folds
from hepfaas.runs.splits import USUAL_SPLIT, Split, SplitRule


def event_ids(identity: str, entries: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for each event, (events,), that depends only on its file's identity and its entry."""
    return _mixed(entries.astype(np.uint64) + _number(identity))


def split_of(
    identity: str,
    entries: NDArray[np.int64],
    seed: int,
    rule: SplitRule = USUAL_SPLIT,
    is_training: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Return the number of each event's `Split`, (events,). is_training: whether the rule's expression is true,
    (events,)."""
    drawn = _mixed(event_ids(identity, entries) ^ _number(f"split {seed}"))
    edges = np.cumsum(rule.drawn)[:-1] * 2.0**64
    split = np.searchsorted(edges, drawn.astype(np.float64), side="right").astype(np.uint8)
    if is_training is not None:
        split = np.minimum(split, Split.VALIDATION)  # a share of 0 may still be drawn by rounding
        split[~is_training] = Split.TEST
    return split


def groups_of(
    identity: str,
    entries: NDArray[np.int64],
    seed: int,
    folds: Folds,
    rule: SplitRule = USUAL_SPLIT,
    values: NDArray[Any] | None = None,
) -> NDArray[np.uint8]:
    """Return the number of each event's group (runs/folds.py), (events,).

    rule: its fractions of training and validation events share the events of the folds that a network learns from.
    values: of the expression that gives the fold, (events,); None: it is drawn.
    """
    fold = folds_of(identity, entries, seed, folds, values)
    training, validation, _ = rule.fractions
    drawn = _mixed(event_ids(identity, entries) ^ _number(f"split {seed}"))
    is_validation = drawn.astype(np.float64) >= training / (training + validation) * 2.0**64
    return np.asarray(2 * fold + is_validation, dtype=np.uint8)


def folds_of(
    identity: str, entries: NDArray[np.int64], seed: int, folds: Folds, values: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Return the fold of each event, (events,). values: as for `groups_of`.

    Raises: RequestError if a value is not finite.
    """
    if values is None:
        drawn = _mixed(event_ids(identity, entries) ^ _number(f"fold {seed}"))
        return (drawn % np.uint64(folds.number)).astype(np.uint8)
    if not np.isfinite(values).all():
        worst = int(entries[np.argmin(np.isfinite(values))])
        raise RequestError(
            f"'folds': '{folds.by}' is {values[np.argmin(np.isfinite(values))]} in entry {worst}, which gives no fold; "
            "cut such events, or take another expression"
        )
    numbers = np.floor(values) if values.dtype.kind == "f" else values
    return np.asarray(numbers % folds.number).astype(np.uint8)


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
