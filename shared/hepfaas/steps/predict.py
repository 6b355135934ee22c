"""predict: raw events of a file -> scores, by the same features that training saw; of an entry range as a step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.datasets.root import OpenedFile, opened, read
from hepfaas.errors import MissingError, RequestError
from hepfaas.features.jagged import Values, flat_values
from hepfaas.features.matrix import matrix, surplus_events
from hepfaas.models import versions
from hepfaas.models.inference import INFERENCE, ConfinedModel, Inference
from hepfaas.models.served import graph_of
from hepfaas.models.versions import Published, Version
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Predict
from hepfaas.scores.files import columns_of
from hepfaas.steps.objects import encoded

RANGE_EVENTS = 10_000
"""Most events in memory at once as rows of the matrix."""

RANGE_SCORES = 2_000_000
"""Most scores of them, unless a single event has more."""


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

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What is told of each event."""
        return columns_of(self.entries, self.identifiers, self.scores)


def perform(step: Predict, store: Store, reading: Reading = PLAIN, inference: Inference = INFERENCE) -> None:
    """Raises: RequestError if the version is gone, or the file is not what it was when the run opened it;
    UnavailableError."""
    from hepfaas.scores.parts import score_part

    published = _published(step, store)
    if hashes_of(published) != (step.graph, step.spec):
        raise RequestError(f"model '{step.model}' is not what it was when the run was asked for; ask for a new run")
    source = _Source(step.url, step.file, step.tree, step.identifiers, reading)
    entries = EntryRange(*step.entries)
    with inference.model(graph_of(published)) as model:
        found = _scored(published, model, source, entries, _read(published, source, entries))
        part = score_part(step.file, step.entries, ((some.columns, some.n_surplus) for some in found))
    store.create(step.key, memoryview(part))


def hashes_of(published: Published) -> tuple[str, str]:
    """Of the graph and of the spec: what scores depend on beside the events."""
    spec = encoded(published.spec.to_json())
    return hashlib.sha256(published.graph).hexdigest(), hashlib.sha256(spec).hexdigest()


def predicted(
    published: Published,
    model: ConfinedModel,
    url: str,
    tree: str,
    wanted: tuple[int, int] | None = None,
    file: OpenedFile | None = None,
    reading: Reading = PLAIN,
) -> Iterator[Scores]:
    """Scores of all events of a file, or of the entries wanted, range after range. file: its header, if it was read.

    Raises: RequestError; UnavailableError.
    """
    features = _features(published)
    file = file or opened(url, tree, reading)
    there = {branch.name for branch in file.branches}
    named = tuple(name for name in published.spec.identifiers if name in there)
    source = _Source(url, file.identity, tree, named, reading)
    first, stop = wanted or (0, file.entries)
    ranges = (
        EntryRange(max(first, found.start), min(stop, found.stop))
        for found in planned(file.baskets(features), file.entries, RANGE_EVENTS)
    )
    one = partial(_read, published, source)
    for entries, arrays in _read_ahead(one, (found for found in ranges if found.start < found.stop)):
        yield from _scored(published, model, source, entries, arrays)


@dataclass(frozen=True)
class _Source:
    """A file that was opened before: who it must be, and the branches in it that name an event."""

    url: str
    identity: str
    tree: str
    identifiers: Sequence[str]
    reading: Reading


def _read(published: Published, source: _Source, entries: EntryRange) -> dict[str, Values]:
    names = [*_features(published), *source.identifiers]
    return read(source.url, source.identity, source.tree, branches=names, entries=entries, reading=source.reading)


def _read_ahead(
    reading: Callable[[EntryRange], dict[str, Values]], ranges: Iterable[EntryRange]
) -> Iterator[tuple[EntryRange, dict[str, Values]]]:
    """What is read of each range, while the one before is used."""
    with ThreadPoolExecutor(1) as reader:
        coming: tuple[EntryRange, Future[dict[str, Values]]] | None = None
        for entries in ranges:
            following = entries, reader.submit(reading, entries)
            if coming:
                yield coming[0], coming[1].result()
            coming = following
        if coming:
            yield coming[0], coming[1].result()


def _scored(
    published: Published,
    model: ConfinedModel,
    source: _Source,
    entries: EntryRange,
    arrays: Mapping[str, Values],
) -> Iterator[Scores]:
    """Scores of a range that was read as a whole, some thousand events at a time."""
    spec = published.spec
    events = max(1, min(RANGE_EVENTS, RANGE_SCORES // int(published.card["outputs"])))
    for start in range(0, entries.stop - entries.start, events):
        some = {name: branch[start : start + events] for name, branch in arrays.items()}
        named = {name: flat_values(some.pop(name), name) for name in source.identifiers}
        first = entries.start + start
        yield Scores(
            source.url,
            np.arange(first, min(first + events, entries.stop), dtype=np.int64),
            named,
            model.predict(matrix(some, spec)),
            int(surplus_events(some, spec).sum()),
        )


def _features(published: Published) -> list[str]:
    return [branch.name for branch in published.spec.branches]


def _published(step: Predict, store: Store) -> Published:
    """Raises: NotThereError if the version was deleted."""
    name, _, number = step.model.partition("/")
    try:
        return versions.read(store, Version(name, int(number)))
    except MissingError:
        return versions.load(store, step.model)
