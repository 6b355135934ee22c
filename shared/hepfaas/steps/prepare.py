"""prepare: one entry range of a file -> the matrix of its events, with training, validation and test rows apart."""

from __future__ import annotations

import json

import numpy as np

from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.datasets.root import read
from hepfaas.features.jagged import flat_values
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import FeatureSpec
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Prepare
from hepfaas.training.prepared import PreparedRows, part_of
from hepfaas.training.split import split_of


def perform(step: Prepare, store: Store, reading: Reading = PLAIN) -> None:
    """Raises: RequestError if the file has changed since the run opened it; UnavailableError; MissingError."""
    spec = FeatureSpec.from_json(json.loads(store.get(step.spec)))
    names = [*(branch.name for branch in spec.branches), *spec.identifiers]
    arrays = read(step.url, step.file, step.tree, branches=names, entries=EntryRange(*step.entries), reading=reading)
    entries = np.arange(*step.entries, dtype=np.int64)

    def events(rows: slice) -> PreparedRows:
        branches = {name: branch[rows] for name, branch in arrays.items()}
        identifiers = {name: flat_values(branches.pop(name), name) for name in spec.identifiers}
        return PreparedRows(matrix(branches, spec), entries[rows], identifiers)

    split = split_of(step.file, entries, step.split_seed)
    store.create(
        step.key,
        memoryview(part_of(file=step.file, entries=step.entries, label=step.label, split=split, events=events)),
    )
