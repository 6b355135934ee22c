"""What comes next in a run, from what is there. Pure: no clock, no store, no state of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs import epochs
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Evaluate, Export, Open, Prepare, Publish, Score, Spec, Step, Sum, Survey, Train

FAN_OUT = 16

Results = Callable[[str], Mapping[str, Any] | None]
"""The result under a step's key, None if it is not there."""


@dataclass(frozen=True)
class Ready:
    """Steps that can be done now, in any order, all of one phase; `done` of the `total` of that phase are there."""

    phase: str
    steps: tuple[Step, ...]
    done: int
    total: int


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


def surveys(recipe: Recipe, found: Sequence[Mapping[str, Any]]) -> list[Survey]:
    """The survey step of each entry range, file after file."""
    names = tuple(name for name, _ in found[0]["features"])
    return [
        Survey(file.identity, recipe.tree, names, entries, file.url)
        for file in inputs(recipe, found)
        for entries in file.ranges
    ]


def prepares(recipe: Recipe, found: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> list[Prepare]:
    """The prepare step of each entry range, file after file."""
    return [
        Prepare(file.identity, recipe.tree, entries, spec["columns"], file.label, recipe.split_seed, file.url)
        for file in inputs(recipe, found)
        for entries in file.ranges
    ]


def trains(recipe: Recipe, spec: Mapping[str, Any], data: Sum, prepared: Mapping[str, Any]) -> list[list[Train]]:
    """The train steps, one list of segments an epoch."""
    rows = sum(part["rows"][0] for part in prepared["parts"])
    n_features = int(spec["n_features"])
    segment_rows = recipe.segment_rows or epochs.usual_segment_rows(n_features)
    before: str | None = None
    chain: list[list[Train]] = []
    for epoch in range(recipe.epochs):
        chain.append([])
        for segment in range(epochs.n_segments(rows, segment_rows)):
            step = Train(
                data.key,
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


def chain_of(recipe: Recipe, attempt: str, results: Results) -> list[list[Train]]:
    """The train steps, one list of segments an epoch; none before all events are prepared."""
    try:
        made = _matrix(recipe, attempt, results)
    except _Wait:
        return []
    return trains(recipe, made.spec, made.data, made.prepared)


def maker(recipe: Recipe, attempt: str, results: Results, key: str) -> Step | None:
    """The step of this run that makes the data under a key, which somebody found missing below a sum that is there.

    None where the run has no such step, or the plan itself asks for it.
    """
    try:
        made = _matrix(recipe, attempt, results)
    except _Wait:
        return None
    opening = opens(recipe, attempt)
    found = [results(step.key) or {} for step in opening]
    below = [*tree_of(surveys(recipe, found)), *tree_of(prepares(recipe, found, made.spec))]
    chain = trains(recipe, made.spec, made.data, made.prepared)
    levels: list[Sequence[Step]] = [opening, *below, *chain]
    return next((step for level in levels for step in level if step.key == key), None)


def tree_of(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps, and above them sums of up to 16 until one is left: the root, last list's only member."""
    levels = [list(steps)]
    while len(levels[-1]) > 1 or len(levels) == 1:
        below = levels[-1]
        groups = [below[start : start + FAN_OUT] for start in range(0, len(below), FAN_OUT)]
        levels.append([Sum(steps[0].kind, tuple(step.key for step in group)) for group in groups])
    return levels


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

    spec_step: Spec
    spec: Mapping[str, Any]
    data: Sum
    prepared: Mapping[str, Any]


def _matrix(recipe: Recipe, attempt: str, results: Results) -> _Matrix:
    found = _all("open", opens(recipe, attempt), results)
    survey = _phase("survey", surveys(recipe, found), results)
    names = tuple(name for name, _ in found[0]["features"])
    spec_step = Spec(survey.key, names, tuple(found[0]["identifiers"]), recipe.order, recipe.surplus)
    (spec,) = _all("spec", [spec_step], results)
    data = _phase("prepare", prepares(recipe, found, spec), results)
    prepared = results(data.key) or {}
    _check_rows(prepared)
    return _Matrix(spec_step, spec, data, prepared)


def _published(recipe: Recipe, attempt: str, results: Results) -> Mapping[str, Any]:
    made = _matrix(recipe, attempt, results)
    chain = trains(recipe, made.spec, made.data, made.prepared)
    trained = _trained(chain, results)
    ends = [segments[-1] for segments in chain]
    best = best_epoch([trained[step.key]["metrics"]["val_loss"] for step in ends])
    last = ends[best]
    export_step = Export(
        made.data.key,
        recipe.code,
        recipe.module,
        last.n_features,
        recipe.labels,
        recipe.batch_size,
        recipe.seed,
        recipe.threads,
        last.xla,
        last.key,
    )
    (export,) = _all("export", [export_step], results)
    scores = [
        Score(export_step.key, part["key"], export["n_classes"], recipe.threshold) for part in made.prepared["parts"]
    ]
    score = _phase("score", scores, results)
    evaluate_step = Evaluate(score.key, tuple(step.key for step in ends), best, recipe.classes)
    _all("evaluate", [evaluate_step], results)
    publish_step = Publish(
        recipe.name, _told(recipe), made.data.key, made.spec_step.key, export_step.key, evaluate_step.key
    )
    (published,) = _all("publish", [publish_step], results)
    return published


def _told(recipe: Recipe) -> str:
    """The recipe as a card tells it: a file is who it is, not where it was."""
    values = recipe.to_json()
    del values["files"]
    return json.dumps(values, sort_keys=True)


def _all(phase: str, steps: Sequence[Step], results: Results) -> list[Mapping[str, Any]]:
    found = [results(step.key) for step in steps]
    missing = tuple(step for step, result in zip(steps, found, strict=True) if result is None)
    if missing:
        raise _Wait(Ready(phase, missing, len(steps) - len(missing), len(steps)))
    return [result for result in found if result is not None]


def _phase(phase: str, steps: Sequence[Step], results: Results) -> Sum:
    """The root of a parallel phase, once it is there: one look settles a phase that was done before."""
    levels = tree_of(steps)
    root = levels[-1][0]
    assert isinstance(root, Sum)
    if results(root.key) is not None:
        return root
    missing: dict[str, Step] = {}
    wanted = set()
    for depth in range(len(levels) - 1, -1, -1):
        looked = [step for step in levels[depth] if depth == len(levels) - 1 or step.key in wanted]
        absent = [step for step in looked if results(step.key) is None]
        wanted = {member for step in absent if isinstance(step, Sum) for member in step.members}
        missing.update((step.key, step) for step in absent)
    ready = tuple(
        step
        for step in missing.values()
        if not isinstance(step, Sum) or not any(member in missing for member in step.members)
    )
    leaves = sum(1 for step in missing.values() if not isinstance(step, Sum))
    raise _Wait(Ready(phase, ready, len(steps) - leaves, len(steps)))


def _trained(chain: Sequence[Sequence[Train]], results: Results) -> dict[str, Mapping[str, Any]]:
    """Results of the chain of train steps; a chain has one next step only."""
    flat = [step for segments in chain for step in segments]
    trained: dict[str, Mapping[str, Any]] = {}
    for done, step in enumerate(flat):
        result = results(step.key)
        if result is None:
            raise _Wait(Ready("train", (step,), done, len(flat)))
        trained[step.key] = result
    return trained


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
