"""Split of events into training, validation and test by a hash of each event's identity. Pure.

The split does not depend on how the entries are cut into ranges.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

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
