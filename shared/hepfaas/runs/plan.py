"""What comes next in a run, from what is there. Pure: no clock, no store, no state of its own."""

from __future__ import annotations

import functools
import json
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs import epochs
from hepfaas.runs.opened import files_of
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Evaluate, Export, Open, Prepare, Publish, Score, Spec, Step, Sum, Survey, Train

FAN_OUT = 16
KEPT = 64
"""Trees of steps and chains kept in memory: to name 10,000 steps takes a fifth of a second."""

Results = Callable[[str], Mapping[str, Any] | None]
"""The result under a step's key, None if it is not there."""

Levels = tuple[tuple[Step, ...], ...]
"""The steps of a phase, and above them sums of up to 16 until one is left; of a single step only itself."""


@dataclass(frozen=True)
class Ready:
    """The phase that a run is in. `chain`: steps done and steps in all, where the phase is a chain of steps, and
    `segments` how many of them make an epoch."""

    phase: str
    levels: Levels
    results: Results = field(repr=False, compare=False)
    chain: tuple[int, int] | None = None
    segments: int = 1

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps that can be done now, in any order."""
        missing = self._missing
        return tuple(
            step
            for step in missing.values()
            if not isinstance(step, Sum) or not any(member in missing for member in step.members)
        )

    @property
    def done(self) -> int:
        """Steps of the phase whose results are there, sums not counted."""
        if self.chain:
            return self.chain[0]
        return self.total - sum(1 for step in self._missing.values() if not isinstance(step, Sum))

    @property
    def total(self) -> int:
        """Steps of the phase, sums not counted."""
        return self.chain[1] if self.chain else len(self.levels[0])

    @functools.cached_property
    def _missing(self) -> dict[str, Step]:
        """From the root down: below a sum that is there nothing is looked at."""
        missing: dict[str, Step] = {}
        wanted = {self.levels[-1][0].key}
        for level in reversed(self.levels):
            absent = [step for step in level if step.key in wanted and self.results(step.key) is None]
            wanted = {member for step in absent if isinstance(step, Sum) for member in step.members}
            missing.update((step.key, step) for step in absent)
        return missing


@dataclass(frozen=True)
class Finished:
    """Everything is there; the result of the publish step."""

    model: Mapping[str, Any]


@dataclass(frozen=True)
class Input:
    """One file as the run reads it: its entry ranges, cut to the share of the event limit."""

    url: str
    label: int
    identity: str
    ranges: tuple[tuple[int, int], ...]

    @property
    def entries(self) -> int:
        """Entries read."""
        return sum(stop - start for start, stop in self.ranges)


class _Wait(Exception):
    """Unwinds the plan to its caller: these steps come first."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready


def next_steps(recipe: Recipe, attempt: str, results: Results) -> Ready | Finished:
    """The steps that can be done now. Raises: RequestError when what was found makes the recipe impossible."""
    try:
        return Finished(_published(recipe, attempt, results))
    except _Wait as wait:
        return wait.ready


def opens(recipe: Recipe, attempt: str) -> list[Open]:
    """The open step of each file, in the recipe's order."""
    return [
        Open(
            file.url,
            recipe.tree,
            recipe.selected,
            recipe.excluded,
            recipe.identifiers,
            recipe.range_events,
            attempt,
        )
        for file in recipe.files
    ]


def inputs(recipe: Recipe, found: Sequence[Mapping[str, Any]]) -> list[Input]:
    """The files as opened, each with its share of the event limit. Raises: RequestError if they do not go together."""
    _check_files(recipe.files, found)
    entries = [int(file["entries"]) for file in found]
    shares = _shares(entries, recipe.n_events)
    files = [
        Input(file.url, file.label, opened["identity"], _cut(opened["ranges"], share))
        for file, opened, share in zip(recipe.files, found, shares, strict=True)
    ]
    with_events = {file.label for file in files if file.entries}
    if len(with_events) < len(recipe.labels):
        empty = sorted(set(recipe.labels) - with_events)
        raise RequestError(
            f"label {', '.join(map(str, empty))} has no event in TTree '{recipe.tree}' of its files; "
            "a classifier needs events of every label"
        )
    return files


@dataclass(frozen=True)
class Found:
    """A result under its key. Values are compared too: the key of an open step tells a place, not what is there."""

    key: str
    values: Mapping[str, Any] = field(hash=False, repr=False)


@functools.lru_cache(maxsize=KEPT)
def open_levels(recipe: Recipe, attempt: str) -> Levels:
    """The open steps and their sums."""
    return tree_of(opens(recipe, attempt))


@functools.lru_cache(maxsize=KEPT)
def survey_levels(recipe: Recipe, opened: Found) -> Levels:
    """The survey steps of all entry ranges, file after file, and their sums."""
    files = files_of(opened.values)
    names = tuple(name for name, _ in files[0]["features"])
    steps = [
        Survey(file.identity, recipe.tree, names, entries, file.url)
        for file in inputs(recipe, files)
        for entries in file.ranges
    ]
    return tree_of(steps)


@functools.lru_cache(maxsize=KEPT)
def prepare_levels(recipe: Recipe, opened: Found, spec: Found) -> Levels:
    """The prepare steps of all entry ranges, file after file, and their sums."""
    columns = spec.values["columns"]
    steps = [
        Prepare(file.identity, recipe.tree, entries, columns, file.label, recipe.split_seed, file.url)
        for file in inputs(recipe, files_of(opened.values))
        for entries in file.ranges
    ]
    return tree_of(steps)


@functools.lru_cache(maxsize=KEPT)
def score_levels(recipe: Recipe, export: Found, prepared: Found) -> Levels:
    """The score steps of all parts, and their sums."""
    n_classes = export.values["n_classes"]
    return tree_of([Score(export.key, part["key"], n_classes, recipe.threshold) for part in prepared.values["parts"]])


@functools.lru_cache(maxsize=KEPT)
def trains(recipe: Recipe, spec: Found, prepared: Found) -> list[list[Train]]:
    """The train steps, one list of segments an epoch."""
    rows = sum(part["rows"][0] for part in prepared.values["parts"])
    n_features = int(spec.values["n_features"])
    segment_rows = recipe.segment_rows or epochs.usual_segment_rows(n_features)
    before: str | None = None
    chain: list[list[Train]] = []
    for epoch in range(recipe.epochs):
        chain.append([])
        for segment in range(epochs.n_segments(rows, segment_rows)):
            step = Train(
                prepared.key,
                recipe.code,
                recipe.module,
                n_features,
                recipe.labels,
                recipe.batch_size,
                recipe.seed,
                recipe.threads,
                epochs.pays_for_xla(rows) if recipe.xla is None else recipe.xla,
                before,
                epoch,
                segment,
                segment_rows,
                recipe.shuffle,
            )
            chain[-1].append(step)
            before = step.key
    return chain


def following(step: Train, segments: int, n_epochs: int) -> Train | None:
    """The step after this one in a chain of so many segments an epoch; None after the last."""
    epoch, segment = divmod(step.epoch * segments + step.segment + 1, segments)
    return None if epoch == n_epochs else replace(step, before=step.key, epoch=epoch, segment=segment)


def chain_of(recipe: Recipe, attempt: str, results: Results) -> list[list[Train]]:
    """The train steps, one list of segments an epoch; none before all events are prepared."""
    try:
        made = _matrix(recipe, attempt, results)
    except _Wait:
        return []
    return trains(recipe, made.spec, made.prepared)


def opened_files(recipe: Recipe, attempt: str, results: Results) -> list[Mapping[str, Any]]:
    """What the open steps found, file after file; nothing before all are opened."""
    found = results(open_levels(recipe, attempt)[-1][0].key)
    return files_of(found) if found else []


def maker(recipe: Recipe, attempt: str, results: Results, key: str) -> Step | None:
    """The step of this run that makes the data under a key, which somebody found missing below a sum that is there.

    None where the run has no such step, or the plan itself asks for it.
    """
    try:
        made = _matrix(recipe, attempt, results)
    except _Wait:
        return None
    levels: list[Sequence[Step]] = [
        *open_levels(recipe, attempt),
        *survey_levels(recipe, made.opened),
        *prepare_levels(recipe, made.opened, made.spec),
        *trains(recipe, made.spec, made.prepared),
    ]
    return next((step for level in levels for step in level if step.key == key), None)


def tree_of(steps: Sequence[Step]) -> Levels:
    """The steps, and above them sums of up to 16 until one is left: the root, last level's only member."""
    levels: list[tuple[Step, ...]] = [tuple(steps)]
    while len(levels[-1]) > 1 or len(levels) == 1:
        below = levels[-1]
        groups = [below[start : start + FAN_OUT] for start in range(0, len(below), FAN_OUT)]
        levels.append(tuple(Sum(steps[0].kind, tuple(step.key for step in group)) for group in groups))
    return tuple(levels)


def best_epoch(losses: Sequence[float]) -> int:
    """Index of the lowest validation loss. Raises: RequestError if one of them is not a number."""
    for epoch, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise RequestError(
                f"the loss after epoch {epoch} is {loss}: the training diverged; try a smaller learning rate or "
                "look for unscaled inputs (branches with a constant value pass unchanged)"
            )
    return min(range(len(losses)), key=losses.__getitem__)


@dataclass(frozen=True)
class _Matrix:
    """Everything that comes before training."""

    opened: Found
    spec: Found
    prepared: Found


def _matrix(recipe: Recipe, attempt: str, results: Results) -> _Matrix:
    opened = _phase("open", open_levels(recipe, attempt), results)
    survey = _phase("survey", survey_levels(recipe, opened), results)
    first = files_of(opened.values)[0]
    names = tuple(name for name, _ in first["features"])
    spec = _one(Spec(survey.key, names, tuple(first["identifiers"]), recipe.order, recipe.surplus), results)
    prepared = _phase("prepare", prepare_levels(recipe, opened, spec), results)
    _check_rows(prepared.values)
    return _Matrix(opened, spec, prepared)


def _published(recipe: Recipe, attempt: str, results: Results) -> Mapping[str, Any]:
    made = _matrix(recipe, attempt, results)
    chain = trains(recipe, made.spec, made.prepared)
    ends = [segments[-1] for segments in chain]
    best = best_epoch([found["metrics"]["val_loss"] for found in _trained(chain, results)])
    last = ends[best]
    export = _one(
        Export(
            made.prepared.key,
            recipe.code,
            recipe.module,
            last.n_features,
            recipe.labels,
            recipe.batch_size,
            recipe.seed,
            recipe.threads,
            last.xla,
            last.key,
        ),
        results,
    )
    score = _phase("score", score_levels(recipe, export, made.prepared), results)
    evaluate = _one(Evaluate(score.key, tuple(step.key for step in ends), best, recipe.classes), results)
    publish = Publish(recipe.name, _told(recipe), made.prepared.key, made.spec.key, export.key, evaluate.key)
    return _one(publish, results).values


def _told(recipe: Recipe) -> str:
    """The recipe as a card tells it: a file is who it is, not where it was."""
    values = recipe.to_json()
    del values["files"]
    return json.dumps(values, sort_keys=True)


def _one(step: Step, results: Results) -> Found:
    """The result of a step that is a phase of its own."""
    return _phase(step.kind, ((step,),), results)


def _phase(phase: str, levels: Levels, results: Results) -> Found:
    """The root of a phase, once it is there: one look settles a phase that was done before."""
    root = levels[-1][0].key
    found = results(root)
    if found is None:
        raise _Wait(Ready(phase, levels, results))
    return Found(root, found)


def _trained(chain: Sequence[Sequence[Train]], results: Results) -> list[Mapping[str, Any]]:
    """Result of the last step of each epoch. In a chain the steps before one that is there were there too, so the
    first that is not is found by halving."""
    flat = [step for segments in chain for step in segments]
    done = bisect_left(flat, True, key=lambda step: results(step.key) is None)
    ends = [segments[-1] for segments in chain]
    missing = [flat[done]] if done < len(flat) else [end for end in ends if results(end.key) is None]
    if missing:
        raise _Wait(Ready("train", ((missing[0],),), results, (done, len(flat)), len(chain[0])))
    return [results(end.key) or {} for end in ends]


def _check_files(files: Sequence[LabelledFile], found: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for file, opened in zip(files, found, strict=True):
        if opened["identity"] in seen:
            raise RequestError(f"'{file.url}' and '{seen[opened['identity']]}' are the same file; list each file once")
        seen[opened["identity"]] = file.url
        _check_branches(files[0].url, found[0], file.url, opened)


def _check_branches(first_url: str, first: Mapping[str, Any], url: str, opened: Mapping[str, Any]) -> None:
    wanted, got = dict(map(tuple, first["features"])), dict(map(tuple, opened["features"]))
    for name, jagged in [*wanted.items(), *got.items()]:
        for where, other, branches in ((url, first_url, got), (first_url, url, wanted)):
            if name not in branches:
                raise RequestError(
                    f"'{where}' has no branch '{name}', which '{other}' has; exclude it (exclude_branches) or "
                    "name the branches you want (selected_branches)"
                )
        if wanted[name] != got[name]:
            flat, jagged_one = (url, first_url) if jagged else (first_url, url)
            raise RequestError(f"branch '{name}' is flat in '{flat}' and jagged in '{jagged_one}'; exclude it")


def _check_rows(prepared: Mapping[str, Any]) -> None:
    for number, split in enumerate(("training", "validation", "test")):
        if not any(part["rows"][number] for part in prepared["parts"]):
            events = sum(sum(part["rows"]) for part in prepared["parts"])
            raise RequestError(f"the {split} sample has no event: {events} events are too few to split 64/16/20")


def _shares(entries: Sequence[int], n_events: int) -> list[int]:
    """How many events each file gives: all, or its share of the limit, at least one (originals.md 1.6)."""
    total = sum(entries)
    if n_events < 0 or n_events >= total:
        return list(entries)
    return [min(count, max(1, round(count / total * n_events))) for count in entries]


def _cut(ranges: Sequence[Sequence[int]], limit: int) -> tuple[tuple[int, int], ...]:
    return tuple((start, min(stop, limit)) for start, stop in ranges if start < limit)
