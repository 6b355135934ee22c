"""A bounded sample of the test events, for what needs the values of events instead of counts. Pure.

The sample is drawn by record batch, equally from each file as far as it has events, so that small samples of simulated
events are in it, too. The events of a file then count by its number of test events over that of its sampled ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.tally import Floats

MOST_BATCHES = 50
"""Most record batches that are read."""

MOST_ROWS = 100_000
MOST_VALUES = 8_000_000
"""Most features of all rows: 64 MB in the branches' own units."""


@dataclass(frozen=True)
class SampledBatch:
    """The first `rows` rows of a batch, by its index in the list of all batches. factor: of the events' weights."""

    index: int
    rows: int
    factor: float


def batches_of(files: Sequence[str], rows: Sequence[int], n_features: int) -> list[SampledBatch]:
    """Return the batches of the sample in order. files, rows: file and number of rows of each batch.

    If there are more files than MOST_BATCHES, the batches are evenly spaced over all files, and all have one factor.
    """
    names = list(dict.fromkeys(files))
    strata = files if len(names) <= MOST_BATCHES else [""] * len(files)
    by_stratum: dict[str, list[int]] = {}
    for index, stratum in enumerate(strata):
        by_stratum.setdefault(stratum, []).append(index)
    chosen = {name: _evenly(by_stratum[name], share) for name, share in _shares(by_stratum, MOST_BATCHES).items()}
    n_batches = sum(map(len, chosen.values()))
    most = min(MOST_ROWS, max(1, MOST_VALUES // max(1, n_features))) // max(1, n_batches)
    sampled = []
    for name, indices in chosen.items():
        taken = {index: min(rows[index], max(1, most)) for index in indices}
        n_taken = sum(taken.values())
        factor = sum(rows[index] for index in by_stratum[name]) / max(1, n_taken)
        sampled += [SampledBatch(index, count, factor) for index, count in taken.items()]
    return sorted(sampled, key=lambda batch: batch.index)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Sampled test events.

    branches: values in the branches' own units, (events, slots) each; NaN where a slot has none. scaled: the same as
    the network sees them. spectators: (events,) each. probabilities: (events, classes). labels: (events,). weights:
    event weight times factor, (events,).
    """

    branches: Mapping[str, Floats]
    scaled: Mapping[str, Floats]
    spectators: Mapping[str, Floats]
    probabilities: Floats
    labels: NDArray[np.int64]
    weights: Floats

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])


def _shares(strata: Mapping[str, Sequence[int]], total: int) -> dict[str, int]:
    """Return how many batches each stratum gives: equal numbers, but not more than it has."""
    shares: dict[str, int] = {}
    left = total
    for number, (name, indices) in enumerate(sorted(strata.items(), key=lambda item: (len(item[1]), item[1][0]))):
        shares[name] = min(len(indices), left // (len(strata) - number))
        left -= shares[name]
    return shares


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    """Return `count` of the indices, evenly spaced."""
    return [indices[(2 * number + 1) * len(indices) // (2 * count)] for number in range(count)]
