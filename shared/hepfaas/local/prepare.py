"""`hepfaas prepare`: writes the matrix, labels and weights of a folder's events for programs that train elsewhere."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.listings import on_server
from hepfaas.errors import MissingError, RequestError
from hepfaas.expressions.expression import parse
from hepfaas.features.spec import FeatureSpec
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import recipe_of
from hepfaas.local.matrix_files import (
    ABOUT,
    FILE,
    README,
    RESERVED,
    SPEC,
    Columns,
    Layout,
    check_folder,
    distinct,
    name_of,
    open_file,
    readme,
    whole_folder,
)
from hepfaas.local.phases import MAX_REPEATS, Phases
from hepfaas.local.progress import Progress
from hepfaas.local.tables import table
from hepfaas.local.workers import Workers
from hepfaas.platform.storage import Store, probe
from hepfaas.platform.terminal import visible
from hepfaas.runs import plan, preparation
from hepfaas.runs.phases import Ready
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.skipped import skipped_files
from hepfaas.runs.splits import Split
from hepfaas.steps.objects import open_part
from hepfaas.training.prepared import ENTRY, LABEL, TARGET, TRAINING_WEIGHT, WEIGHT, StoredPart

OURS = (ENTRY, LABEL, WEIGHT, TRAINING_WEIGHT)
"""Columns with the same name in the store and in files."""


@dataclass(frozen=True)
class Output:
    """Output options. form: parquet, npz or hdf5. force: replace an earlier result."""

    folder: Path
    form: str = "parquet"
    force: bool = False


def prepare(
    folder: Path, names: Mapping[str, str], store: Store, workers: int, output: Output, verbose: int | None = None
) -> dict[str, Any]:
    """Write the prepared events of a folder, which needs no model.py, and return what was written.

    Results in the store that a training on the same events has made, or will make, are the same. verbose: None takes
    that of params.json.
    """
    start = time.monotonic()
    check_folder(output.folder.resolve(), output.force)
    probe(store)
    job = job_in(folder, {**names, "name": "prepared"}, inside=False, listing=on_server, with_code=False)
    recipe = recipe_of(job, store)
    notes = list(job.notes)
    if recipe.folds:
        notes.append("'folds' has no effect here: the events are split into training, validation and test events")
        by = parse(recipe.folds.by, "params.json").names if recipe.folds.by else ()  # no features of a training either
        excluded = (*recipe.excluded, *sorted(set(by).difference(recipe.selected)))
        recipe = replace(recipe, folds=None, excluded=excluded)
    progress = Progress()
    progress.say(f"{len(recipe.files)} files; store {store.url}")
    for note in notes:
        progress.say(f"note: {note}")
    with progress, Workers(workers, store.url) as pool:
        written = Work(store, recipe, pool, progress, job.params.verbose if verbose is None else verbose).do(output)
        progress.finish()
    return {**written, "seconds": round(time.monotonic() - start, 2)}


def report_text(report: Mapping[str, Any]) -> str:
    """Return what was written as text."""
    rows = [{"sample": split, "events": events} for split, events in report["events"].items()]
    classes = ", ".join(f"{label}: {visible(name)}" for label, name in report["classes"].items())
    learned = f"labels {classes}" if classes else f"targets {', '.join(map(visible, report['targets']))}"
    return (
        f"{table(rows, '')}\n\n{report['features']:,} features; {learned}; in {report['seconds']:.1f} s.\n"
        f"The events are in {visible(report['out'])}; {README} there shows how to read them."
    )


class Work:
    """The events of one recipe: prepared, then written."""

    def __init__(self, store: Store, recipe: Recipe, workers: Workers, progress: Progress, verbose: int = 0) -> None:
        self._store, self._recipe, self._progress = store, recipe, progress
        self._attempt = f"prepare/{uuid.uuid4().hex}"  # files are opened again, as by each run
        self._phases = Phases(store, recipe, self._attempt, workers=workers, progress=progress, verbose=verbose)

    def do(self, output: Output) -> dict[str, Any]:
        """Write the events. Raises: RequestError if there is none, or they cannot be written; UnavailableError."""
        repeats: Counter[str] = Counter()
        while True:
            prepared = self.prepared()
            try:
                written = self._written(_Events(prepared, self._store), output)
            except MissingError as missing:  # an object below a sum that exists was deleted
                repeats[missing.key] += 1
                if repeats[missing.key] > MAX_REPEATS:
                    raise
                self._phases.remake(missing)
            else:
                flow = plan.flow_of(self._recipe, self._attempt, self._phases.result)
                headers = preparation.headers(self._recipe, self._attempt, self._phases.result)
                skipped = [one.to_json() for one in skipped_files(self._recipe, headers)]
                return {**written, "skipped_files": skipped, "cut_flow": flow.to_json() if flow else None}

    def prepared(self) -> plan.Prepared:
        """Prepare the events."""
        while isinstance(coming := plan.prepared(self._recipe, self._attempt, self._phases.result), Ready):
            self._phases.begin(coming)
            self._phases.do(coming)
        self._phases.show_cut_flow()
        self._phases.end_phase()
        return coming

    def _written(self, events: _Events, output: Output) -> dict[str, Any]:
        counts, layout = events.counts, events.layout
        if not sum(counts.values()):
            raise RequestError("no event passes all cuts, so there is nothing to write; the cut flow shows the losses")
        for note in events.notes:
            self._progress.say(f"note: {note}")
        self._progress.begin("write", 0, sum(counts.values()))
        with whole_folder(output.folder, output.force) as folder:
            for split, n_events in counts.items():
                with open_file(folder, output.form, layout=layout, split=split, n_events=n_events) as write:
                    for features, columns in events.blocks(split):
                        write(features, columns)
                        self._progress.advance(len(features))
            for name, values in ((SPEC, events.spec.to_json()), (ABOUT, layout.to_json())):
                (folder / name).write_text(f"{json.dumps(values, indent=1)}\n")
            (folder / README).write_text(readme(output.form, layout))
        return {
            "out": str(output.folder),
            "format": output.form,
            "files": [str(output.folder / name_of(split, output.form)) for split in counts],
            "features": len(layout.features),
            "events": {split.label: n_events for split, n_events in counts.items()},
            "classes": {str(label): name for label, name in layout.classes.items()},
            "targets": list(layout.targets),
        }


class _Events:
    """Prepared events in the store, with the names that their columns have in files.

    counts: number of events of each sample. notes: on columns that are not called as their branches.
    """

    def __init__(self, prepared: plan.Prepared, store: Store) -> None:
        """Raises: RequestError if no type holds the values of all files; MissingError."""
        self._parts, self._store = prepared.parts, store
        self._numbers = {identity: number for number, identity in enumerate(prepared.files)}
        self.spec = FeatureSpec.from_json(json.loads(store.get(prepared.spec)))
        self.counts = {split: sum(part.rows[split] for part in self._parts) for split in Split}
        types, trees = self._types(), {tree for _, tree in prepared.files.values()}
        targets = {f"{TARGET}{number}": target for number, target in enumerate(prepared.targets)}
        if targets:
            del types[LABEL]
        others = [name for name in types if name not in OURS]
        wanted = [targets[name].name if name in targets else _name_of(name) for name in others]
        names = distinct([*wanted, *self.spec.columns], RESERVED)
        self._names = {**{name: name for name in OURS}, **dict(zip(others, names, strict=False))}
        self.layout = Layout(
            features=tuple(names[len(others) :]),
            types={FILE: np.dtype(np.int32), **{self._names[name]: kind for name, kind in types.items()}},
            files=tuple(url if len(trees) == 1 else f"{url}:{tree}" for url, tree in prepared.files.values()),
            tree=trees.pop() if len(trees) == 1 else "",
            classes=prepared.classes,
            targets={self._names[name]: target for name, target in targets.items()},
        )
        renamed = zip([*wanted, *self.spec.columns], names, strict=True)
        self.notes = [f"'{name}' is written as column '{column}'" for name, column in renamed if name != column]

    def blocks(self, split: Split) -> Iterator[tuple[NDArray[np.float32], Columns]]:
        """Yield the events of a sample, some thousands at a time, in the order of files and entries."""
        for part in self._parts:
            if not part.rows[split]:
                continue
            stored: StoredPart = open_part(part.key, part.size_bytes, self._store)
            for number in stored.facts.batches(split):
                rows = stored.prepared(number)
                columns = {**_ones(len(rows)), ENTRY: rows.entries, **rows.columns}
                named = {self._names[name]: values for name, values in columns.items()}
                place = {FILE: np.full(len(rows), self._numbers[part.file], dtype=np.int32)}
                types = self.layout.types
                yield rows.features, {name: (place | named)[name].astype(types[name], copy=False) for name in types}

    def _types(self) -> dict[str, np.dtype[Any]]:
        """Return the type of each stored column but the features, which holds the values of all parts."""
        types = {ENTRY: np.dtype(np.int64), **{name: values.dtype for name, values in _ones(0).items()}}
        for part in self._parts:
            stored: StoredPart = open_part(part.key, part.size_bytes, self._store)
            for name, kind in stored.types.items():
                types[name] = _common(name, types.get(name, kind), kind)
        return types


def _name_of(column: str) -> str:
    """Return the name of the identifier or spectator in a stored column."""
    return column.partition("/")[2]


def _ones(n_events: int) -> dict[str, NDArray[Any]]:
    """Return the weights of events of a run without weights."""
    return {WEIGHT: np.ones(n_events), TRAINING_WEIGHT: np.ones(n_events, dtype=np.float32)}


def _common(name: str, one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any]:
    both = np.result_type(one, other)
    if both.kind == "f" and "f" not in one.kind + other.kind:
        raise RequestError(
            f"'{_name_of(name)}' is {one} in some files and {other} in others, and no type holds both "
            "exactly; leave it out of 'identifiers' and 'spectators'"
        )
    return both
