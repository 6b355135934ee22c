"""prepare: one entry range of a file -> the matrix of its events, with training, validation and test rows apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.root import read
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import Spec
from hepfaas.platform.storage import Store
from hepfaas.runs.epochs import BATCH_ROWS
from hepfaas.runs.steps import Prepare
from hepfaas.training.prepared import PartFacts, PreparedRows, to_bytes
from hepfaas.training.split import SPLITS, event_ids, id_sum, split_of

MATRIX_ROWS = 4 * BATCH_ROWS
"""Rows of the matrix in memory at once, whatever the size of the range: 25 MB at 800 features."""


def perform(step: Prepare, store: Store) -> None:
    """Raises: RequestError if the file is not what it was when the run opened it; UnavailableError; MissingError."""
    spec = Spec.from_json(json.loads(store.get(step.spec)))
    features = [branch.name for branch in spec.branches]
    start, stop = step.entries
    arrays = read(step.url, step.file, step.tree, [*features, *spec.identifiers], EntryRange(start, stop))
    entries = np.arange(start, stop, dtype=np.int64)
    split = split_of(step.file, entries, step.split_seed)
    counts = np.bincount(split, minlength=len(SPLITS))
    facts = PartFacts(
        step.file,
        (start, stop),
        step.label,
        (int(counts[0]), int(counts[1]), int(counts[2])),
        id_sum(event_ids(step.file, entries[split == 0])),
    )
    store.create(step.key, memoryview(to_bytes(facts, _rows(arrays, entries, split, spec), spec.n_features)))


def _rows(
    arrays: Mapping[str, ak.Array], entries: NDArray[np.int64], split: NDArray[np.uint8], spec: Spec
) -> Iterator[PreparedRows]:
    """The rows split after split, up to 2,000 at once; the events are put in order once, while they are compact."""
    order = np.argsort(split, kind="stable")
    ordered = {name: branch[order] for name, branch in arrays.items()}
    edges = [0, *np.cumsum(np.bincount(split, minlength=len(SPLITS)))]
    for first, last in pairwise(edges):
        for start in range(first, last, MATRIX_ROWS):
            rows = slice(start, min(start + MATRIX_ROWS, last))
            some = {name: branch[rows] for name, branch in ordered.items()}
            identifiers = {name: ak.to_numpy(some.pop(name)) for name in spec.identifiers}
            yield from _batches(PreparedRows(matrix(some, spec), entries[order[rows]], identifiers))


def _batches(rows: PreparedRows) -> Iterator[PreparedRows]:
    for start in range(0, len(rows.entries), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        identifiers = {name: values[part] for name, values in rows.identifiers.items()}
        yield PreparedRows(rows.features[part], rows.entries[part], identifiers)
