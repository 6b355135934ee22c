"""predict: raw events of a file -> scores, with the same features as in training; a step does one entry range."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.formats import Form
from hepfaas.datasets.opened import OpenedFile, opened, read
from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.errors import MissingError, RequestError
from hepfaas.features.extra import extra_inputs, with_branches
from hepfaas.features.jagged import Values, flat_values, in_single
from hepfaas.features.vectors import Vectors, vectors_of
from hepfaas.models import versions
from hepfaas.models.inference import INFERENCE, Inference, RowError
from hepfaas.models.networks import Networks, networks_of, rule_of
from hepfaas.models.served import graph_of
from hepfaas.models.versions import Published, Version
from hepfaas.platform.storage import Store
from hepfaas.platform.work_limit import STEP_S, work_limit
from hepfaas.runs.folds import FoldRule
from hepfaas.runs.identities import file_of
from hepfaas.runs.steps import Predict
from hepfaas.scores.files import Columns, columns_of
from hepfaas.steps.objects import encoded, layout_of
from hepfaas.training.split import folds_of

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
    source = _Source(
        url=step.url,
        identity=step.file,
        tree=step.tree,
        identifiers=step.identifiers,
        spectators=step.spectators,
        extra=step.extra,
        fold_by=step.fold_by,
        reading=reading,
        layout=layout_of(step, store),
    )
    entries = EntryRange(*step.entries)
    with networks_of(published, graph_of(published), store, inference) as networks:
        scored = _scored(published, networks, source, entries, _read(published, source, entries))
        part = score_part(step.file, step.entries, ((scores.columns, scores.n_surplus) for scores in scored))
    store.create(step.key, memoryview(part))


def hashes_of(published: Published) -> tuple[str, str]:
    """Return the hashes of the graph, with the folds, and of the spec, on which scores depend beside the events."""
    spec, graph = encoded(published.spec.to_json()), hashlib.sha256(published.graph)
    if rule := rule_of(published):
        graph.update(encoded(rule.to_json()))
    return graph.hexdigest(), hashlib.sha256(spec).hexdigest()


def predicted(
    published: Published,
    networks: Networks,
    url: str,
    tree: str = "",
    *,
    wanted: tuple[int, int] | None = None,
    file: OpenedFile | None = None,
    dtype: str = "",
    reading: Reading = PLAIN,
    limit_s: float = STEP_S,
) -> Iterator[Scores]:
    """Yield the scores of all events of a file, or of the `wanted` entries, range after range. tree: '' for that
    of the training if the file has it, else for its only one. file: its header, if it was read before. dtype: its
    format, '' for that of its name. limit_s: processor time of the preprocessing of `RANGE_EVENTS`.

    Raises: RequestError; UnavailableError.
    """
    inputs = published.spec.input_names
    file = file or opened_for(published, url, tree, reading, dtype)
    branches = [branch.name for branch in file.branches]
    identifiers = tuple(name for name in published.spec.identifiers if name in branches)
    preprocessing, by = published.spec.preprocessing, networks.rule.folds.by if networks.rule else ""
    spectators = with_branches(published.spec.spectators, preprocessing, branches)
    fold_by = with_branches([by] if by else [], preprocessing, branches)
    source = _Source(
        url=url,
        identity=file.identity_of_events(published.tree),
        tree=file.tree,
        identifiers=identifiers,
        spectators=spectators,
        extra=extra_inputs([*spectators, *fold_by], preprocessing, branches),
        fold_by="".join(fold_by),
        reading=reading,
        layout=file.layout,
        limit_s=limit_s,
    )
    first, stop = wanted or (0, file.entries)
    ranges = (
        EntryRange(max(first, entries.start), min(stop, entries.stop))
        for entries in planned(file.baskets(inputs), file.entries, RANGE_EVENTS)
    )
    wanted_ranges = [entries for entries in ranges if entries.start < entries.stop]
    nowhere = min(first, file.entries)
    none = [EntryRange(nowhere, nowhere)]  # a file without events has scores, too: none, with their names
    for entries, arrays in _read_ahead(partial(_read, published, source), wanted_ranges or none):
        yield from _scored(published, networks, source, entries, arrays)


def opened_for(published: Published, url: str, tree: str = "", reading: Reading = PLAIN, dtype: str = "") -> OpenedFile:
    """Return the header of a file to predict on. tree, dtype: as in `predicted`.

    Raises: RequestError; UnavailableError.
    """
    return opened(url, tree or published.tree, reading, Form(dtype, published.spec.record_function), or_only=not tree)


def with_events(chunks: Iterable[Columns]) -> Generator[Columns]:
    """Yield the chunks that have events; the first empty one if none has, since it has the names of the columns."""
    n_events, empty = 0, None
    for chunk in chunks:
        n_events += len(chunk["entry"])
        if len(chunk["entry"]):
            yield chunk
        else:
            empty = empty or chunk
    if empty and not n_events:
        yield empty


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A file that was opened before: its identity, the identifiers and spectators that it has, and the branches that
    spectators and folds are made of. fold_by: expression of the fold of an event, '' if there is none or the file lacks
    its branches. limit_s: processor time of the preprocessing of `RANGE_EVENTS`."""

    url: str
    identity: str
    tree: str
    identifiers: Sequence[str]
    spectators: Sequence[str]
    extra: Sequence[str]
    fold_by: str
    reading: Reading
    layout: str
    limit_s: float = STEP_S


def _read(published: Published, source: _Source, entries: EntryRange) -> dict[str, Values]:
    names = list(dict.fromkeys([*published.spec.input_names, *source.identifiers, *source.extra]))
    place, reading = (source.url, file_of(source.identity), source.tree), source.reading
    arrays = read(*place, branches=names, entries=entries, reading=reading, layout=source.layout)
    if source.layout:  # the fractions of text files are float64, also where the model learned float32
        types = {branch.name: branch.type for branch in published.spec.inputs}
        arrays = {
            name: in_single(values) if types.get(name) == "float32" else values for name, values in arrays.items()
        }
    return arrays


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
    networks: Networks,
    source: _Source,
    entries: EntryRange,
    arrays: Mapping[str, Values],
) -> Iterator[Scores]:
    """Yield the scores of a range that was read as a whole, a few thousand events at a time."""
    spec = published.spec
    events = max(1, min(RANGE_EVENTS, RANGE_SCORES // int(published.card["outputs"])))
    for start in range(0, max(1, entries.stop - entries.start), events):
        branches = {name: branch[start : start + events] for name, branch in arrays.items()}
        identifiers = {name: flat_values(branches[name], name) for name in source.identifiers}
        first = entries.start + start
        numbers = np.arange(first, min(first + events, entries.stop), dtype=np.int64)
        others = [source.fold_by] if source.fold_by and source.fold_by not in source.spectators else []
        vectors = vectors_of(branches, spec, [*source.spectators, *others], work_limit(source.limit_s))
        folds = _folds(vectors, numbers, source, networks.rule)
        try:
            scores = networks.predict(vectors.features, folds)
        except RowError as error:
            entry = (numbers if vectors.selected is None else numbers[vectors.selected])[error.row]
            raise RequestError(f"{error.about} entry {entry:,} of '{source.url}': {error.reason}") from error
        yield Scores(
            url=source.url,
            entries=numbers,
            identifiers={**identifiers, **{name: vectors.spectators[name] for name in source.spectators}},
            scores=vectors.of_all(scores),
            n_surplus=vectors.n_surplus,
            targets=spec.targets,
        )


def _folds(
    vectors: Vectors, entries: NDArray[np.int64], source: _Source, rule: FoldRule | None
) -> NDArray[np.uint8] | None:
    """Return the fold of each selected event, (selected,); None if the events have none."""
    if rule is None or not (source.fold_by if rule.folds.by else source.identity in rule.files):
        return None
    selected = slice(None) if vectors.selected is None else vectors.selected
    values = vectors.spectators[source.fold_by][selected] if rule.folds.by else None
    return folds_of(source.identity, entries[selected], rule.seed, rule.folds, values)


def _published(step: Predict, store: Store) -> Published:
    """Raises: NotThereError if the version was deleted."""
    name, _, number = step.model.partition("/")
    try:
        return versions.read(store, Version(name, int(number)))
    except MissingError:
        return versions.load(store, step.model)
