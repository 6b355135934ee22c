"""predict: raw events of a file -> scores, with the same features as in training; a step does one entry range."""

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
from hepfaas.features.extra import extra_inputs, with_branches
from hepfaas.features.jagged import Values, flat_values
from hepfaas.features.vectors import vectors_of
from hepfaas.models import versions
from hepfaas.models.inference import INFERENCE, ConfinedModel, Inference
from hepfaas.models.served import graph_of
from hepfaas.models.versions import Published, Version
from hepfaas.platform.storage import Store
from hepfaas.platform.work_limit import STEP_S, work_limit
from hepfaas.runs.steps import Predict
from hepfaas.scores.files import columns_of
from hepfaas.steps.objects import encoded

RANGE_EVENTS = 10_000
"""Most rows of the matrix in memory at once."""

RANGE_SCORES = 2_000_000
"""Most scores in memory at once, unless a single event has more."""


@dataclass(frozen=True)
class Scores:
    """Scores of some entries of a file: scores (events, outputs), entries (events,), identifiers by name (events,). The
    scores of events that the model's cuts reject are NaN.

    n_surplus: events with more values in a branch than the model has columns; the surplus values are dropped. targets:
    of a regression, (): the scores are those of classes.
    """

    url: str
    entries: NDArray[np.int64]
    identifiers: Mapping[str, NDArray[Any]]
    scores: NDArray[np.float32]
    n_surplus: int
    targets: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Columns of the stored scores, (events,) each."""
        return columns_of(self.entries, self.identifiers, self.scores, self.targets)


def perform(step: Predict, store: Store, reading: Reading = PLAIN, inference: Inference = INFERENCE) -> None:
    """Raises: RequestError if the version was deleted, or the file has changed since the run opened it;
    UnavailableError."""
    from hepfaas.scores.parts import score_part

    published = _published(step, store)
    if hashes_of(published) != (step.graph, step.spec):
        raise RequestError(f"model '{step.model}' has changed since the run was requested; request a new run")
    source = _Source(step.url, step.file, step.tree, step.identifiers, step.spectators, step.extra, reading)
    entries = EntryRange(*step.entries)
    with inference.model(graph_of(published)) as model:
        scored = _scored(published, model, source, entries, _read(published, source, entries))
        part = score_part(step.file, step.entries, ((scores.columns, scores.n_surplus) for scores in scored))
    store.create(step.key, memoryview(part))


def hashes_of(published: Published) -> tuple[str, str]:
    """Return the hashes of the graph and of the spec, on which scores depend beside the events."""
    spec = encoded(published.spec.to_json())
    return hashlib.sha256(published.graph).hexdigest(), hashlib.sha256(spec).hexdigest()


def predicted(
    published: Published,
    model: ConfinedModel,
    url: str,
    tree: str,
    *,
    wanted: tuple[int, int] | None = None,
    file: OpenedFile | None = None,
    reading: Reading = PLAIN,
    limit_s: float = STEP_S,
) -> Iterator[Scores]:
    """Yield the scores of all events of a file, or of the `wanted` entries, range after range. file: its header, if it
    was read before. limit_s: processor time of the preprocessing of `RANGE_EVENTS`.

    Raises: RequestError; UnavailableError.
    """
    inputs = published.spec.input_names
    file = file or opened(url, tree, reading)
    branches = [branch.name for branch in file.branches]
    identifiers = tuple(name for name in published.spec.identifiers if name in branches)
    spectators = with_branches(published.spec.spectators, published.spec.preprocessing, branches)
    extra = extra_inputs(spectators, published.spec.preprocessing, branches)
    source = _Source(url, file.identity, tree, identifiers, spectators, extra, reading, limit_s)
    first, stop = wanted or (0, file.entries)
    ranges = (
        EntryRange(max(first, entries.start), min(stop, entries.stop))
        for entries in planned(file.baskets(inputs), file.entries, RANGE_EVENTS)
    )
    wanted_ranges = (entries for entries in ranges if entries.start < entries.stop)
    for entries, arrays in _read_ahead(partial(_read, published, source), wanted_ranges):
        yield from _scored(published, model, source, entries, arrays)


@dataclass(frozen=True)
class _Source:
    """A file that was opened before: its identity, the identifiers and spectators that it has, and the branches that
    spectators are made of. limit_s: processor time of the preprocessing of `RANGE_EVENTS`."""

    url: str
    identity: str
    tree: str
    identifiers: Sequence[str]
    spectators: Sequence[str]
    extra: Sequence[str]
    reading: Reading
    limit_s: float = STEP_S


def _read(published: Published, source: _Source, entries: EntryRange) -> dict[str, Values]:
    names = list(dict.fromkeys([*published.spec.input_names, *source.identifiers, *source.extra]))
    return read(source.url, source.identity, source.tree, branches=names, entries=entries, reading=source.reading)


def _read_ahead(
    read_range: Callable[[EntryRange], dict[str, Values]], ranges: Iterable[EntryRange]
) -> Iterator[tuple[EntryRange, dict[str, Values]]]:
    """Yield the arrays of each range; the next range is read while one is used."""
    with ThreadPoolExecutor(1) as reader:
        coming: tuple[EntryRange, Future[dict[str, Values]]] | None = None
        for entries in ranges:
            following = entries, reader.submit(read_range, entries)
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
    """Yield the scores of a range that was read as a whole, a few thousand events at a time."""
    spec = published.spec
    events = max(1, min(RANGE_EVENTS, RANGE_SCORES // int(published.card["outputs"])))
    for start in range(0, entries.stop - entries.start, events):
        branches = {name: branch[start : start + events] for name, branch in arrays.items()}
        identifiers = {name: flat_values(branches[name], name) for name in source.identifiers}
        first = entries.start + start
        vectors = vectors_of(branches, spec, source.spectators, work_limit(source.limit_s))
        yield Scores(
            url=source.url,
            entries=np.arange(first, min(first + events, entries.stop), dtype=np.int64),
            identifiers={**identifiers, **vectors.spectators},
            scores=vectors.of_all(model.predict(vectors.features)),
            n_surplus=vectors.n_surplus,
            targets=spec.targets,
        )


def _published(step: Predict, store: Store) -> Published:
    """Raises: NotThereError if the version was deleted."""
    name, _, number = step.model.partition("/")
    try:
        return versions.read(store, Version(name, int(number)))
    except MissingError:
        return versions.load(store, step.model)
