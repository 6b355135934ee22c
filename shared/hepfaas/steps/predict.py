"""predict: raw events of a file -> scores, by the same features that training saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.ranges import planned
from hepfaas.datasets.root import opened, read
from hepfaas.features.matrix import matrix, surplus_events
from hepfaas.models.litert import LiteRtModel
from hepfaas.models.versions import Published

RANGE_EVENTS = 10_000
"""Most events in memory at once."""


@dataclass(frozen=True)
class Scores:
    """Scores of some entries of a file: scores (events, outputs), entries (events,), identifiers by name (events,).

    n_surplus: events with more values in a branch than the model has room for; those values were left out.
    """

    url: str
    entries: NDArray[np.int64]
    identifiers: Mapping[str, NDArray[Any]]
    scores: NDArray[np.float32]
    n_surplus: int


def predicted(published: Published, model: LiteRtModel, url: str, tree: str) -> Iterator[Scores]:
    """Scores of all events of a file, range after range. Raises: RequestError; UnavailableError."""
    spec = published.spec
    features = [branch.name for branch in spec.branches]
    file = opened(url, tree)
    there = {branch.name for branch in file.branches}
    identifiers = [name for name in spec.identifiers if name in there]
    for entries in planned(file.baskets(features), file.entries, RANGE_EVENTS):
        arrays = read(url, file.identity, tree, [*features, *identifiers], entries)
        named = {name: ak.to_numpy(arrays.pop(name)) for name in identifiers}
        yield Scores(
            url,
            np.arange(entries.start, entries.stop, dtype=np.int64),
            named,
            model.predict(matrix(arrays, spec)),
            int(surplus_events(arrays, spec).sum()),
        )
