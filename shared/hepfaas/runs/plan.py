"""The next steps of a run, from the results that exist; and the plan of a training. Pure: no clock, no store, no state.
The other kinds of runs have their plans in prediction.py and conversion.py."""

from __future__ import annotations

import functools
import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from hepfaas.errors import RequestError
from hepfaas.runs import conversion, epochs, prediction
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.kinds import AnyRecipe
from hepfaas.runs.phases import (
    KEPT,
    Finished,
    Found,
    Input,
    Levels,
    Ready,
    Results,
    Wait,
    check_distinct,
    cut,
    one,
    phase,
    tree_of,
)
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile, Recipe
from hepfaas.runs.results import Header, PreparedPart, headers_of, prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import (
    Compare,
    Evaluate,
    Export,
    Learning,
    Open,
    Prepare,
    Publish,
    Score,
    Spec,
    Step,
    Survey,
    Train,
)


def next_steps(recipe: AnyRecipe, attempt: str, results: Results) -> Ready | Finished:
    """Return the phase that a run is in, or its outcome. Raises: RequestError if results make the recipe impossible."""
    try:
        if isinstance(recipe, Prediction):
            return prediction.finished(recipe, attempt, results)
        if isinstance(recipe, Conversion):
            return conversion.finished(recipe, results)
        return _finished(recipe, attempt, results)
    except Wait as wait:
        return wait.ready


def maker(recipe: AnyRecipe, attempt: str, results: Results, key: str) -> Step | None:
    """Return the step of this run that makes the data under a key, which are missing below a sum that exists.

    None where the run has no such step, or where the plan itself requests it.
    """
    try:
        if isinstance(recipe, Prediction):
            levels = prediction.levels(recipe, attempt, results)
        elif isinstance(recipe, Conversion):
            levels = conversion.levels(recipe)
        else:
            levels = _levels(recipe, attempt, results)
    except Wait:
        return None
    return next((step for level in levels for step in level if step.key == key), None)


def opens(recipe: Recipe, attempt: str) -> list[Open]:
    """Return the open step of each file, in the order of the recipe."""
    return [
        Open(
            url=file.url,
            tree=recipe.tree,
            selected=recipe.selected,
            excluded=recipe.excluded,
            identifiers=recipe.identifiers,
            range_events=recipe.range_events,
            attempt=attempt,
        )
        for file in recipe.files
    ]


def inputs(recipe: Recipe, headers: Sequence[Header]) -> list[Input]:
    """Return the opened files, each with its share of the event limit. Raises: RequestError if they do not match."""
    _check_files(recipe.files, headers)
    shares = _shares([header.entries for header in headers], recipe.n_events)
    files = [
        Input(file.url, file.label, header.identity, cut(header.ranges, 0, share))
        for file, header, share in zip(recipe.files, headers, shares, strict=True)
    ]
    with_events = {file.label for file in files if file.entries}
    if len(with_events) < len(recipe.labels):
        empty = sorted(set(recipe.labels) - with_events)
        raise RequestError(
            f"label {', '.join(map(str, empty))} has no event in TTree '{recipe.tree}' of its files; "
            "a classifier needs events of every label"
        )
    return files


@functools.lru_cache(maxsize=KEPT)
def open_levels(recipe: Recipe, attempt: str) -> Levels:
    """Return the open steps and their sums."""
    return tree_of(opens(recipe, attempt))


@functools.lru_cache(maxsize=KEPT)
def survey_levels(recipe: Recipe, opened: Found) -> Levels:
    """Return the survey steps of all entry ranges, file after file, and their sums."""
    headers = _headers(opened)
    branches = headers[0].branches  # one tuple for all steps, which are named by it
    steps = [
        Survey(file=file.identity, tree=recipe.tree, branches=branches, entries=entries, url=file.url)
        for file in inputs(recipe, headers)
        for entries in file.ranges
    ]
    return tree_of(steps)


@functools.lru_cache(maxsize=KEPT)
def prepare_levels(recipe: Recipe, opened: Found, spec: Found) -> Levels:
    """Return the prepare steps of all entry ranges, file after file, and their sums."""
    columns = spec.values["columns"]
    steps = [
        Prepare(
            file=file.identity,
            tree=recipe.tree,
            entries=entries,
            spec=columns,
            label=file.label,
            split_seed=recipe.split_seed,
            url=file.url,
        )
        for file in inputs(recipe, _headers(opened))
        for entries in file.ranges
    ]
    return tree_of(steps)


@functools.lru_cache(maxsize=KEPT)
def score_levels(recipe: Recipe, export: Found, prepared: Found) -> Levels:
    """Return the score steps of all parts, and their sums."""
    n_classes = export.values["n_classes"]
    return tree_of(
        [
            Score(export=export.key, part=part.key, n_classes=n_classes, threshold=recipe.threshold)
            for part in _parts(prepared)
        ]
    )


@functools.lru_cache(maxsize=KEPT)
def trains(recipe: Recipe, spec: Found, prepared: Found) -> list[list[Train]]:
    """Return the train steps, one list of segments per epoch. Raises: RequestError if there are too many."""
    rows = sum(part.rows[Split.TRAINING] for part in _parts(prepared))
    n_features = int(spec.values["n_features"])
    segment_rows = recipe.segment_rows or epochs.usual_segment_rows(n_features)
    before = recipe.continues.checkpoint if recipe.continues else None
    n_segments = epochs.n_segments(rows, segment_rows)
    if recipe.epochs * n_segments > epochs.MOST_TRAINS:
        raise RequestError(
            f"{recipe.epochs:,} epochs of {n_segments:,} segments are more than {epochs.MOST_TRAINS:,} steps of "
            "training; ask for fewer 'epochs' or more 'segment_rows'"
        )
    chain: list[list[Train]] = []
    for epoch in range(recipe.epochs):
        chain.append([])
        for segment in range(n_segments):
            step = Train(
                data=prepared.key,
                code=recipe.code,
                module=recipe.module,
                n_features=n_features,
                labels=recipe.labels,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                threads=recipe.threads,
                xla=_xla(recipe, rows),
                before=before,
                epoch=epoch,
                segment=segment,
                segment_rows=segment_rows,
                shuffle=recipe.shuffle,
            )
            chain[-1].append(step)
            before = step.key
    return chain


def _xla(recipe: Recipe, rows: int) -> bool | None:
    """Return whether to use XLA. None leaves it to the learner, which knows the network."""
    return recipe.xla if recipe.xla is not None or epochs.pays_for_xla(rows) else False


def following(step: Train, segments: int, n_epochs: int) -> Train | None:
    """Return the step after this one in a chain of `n_epochs` epochs of `segments` steps; None after the last."""
    epoch, segment = divmod(step.epoch * segments + step.segment + 1, segments)
    return None if epoch == n_epochs else replace(step, before=step.key, epoch=epoch, segment=segment)


def chain_of(recipe: Recipe, attempt: str, results: Results) -> list[list[Train]]:
    """Return the train steps, one list of segments per epoch; none before all events are prepared."""
    try:
        matrix = _matrix(recipe, attempt, results)
    except Wait:
        return []
    return trains(recipe, matrix.spec, matrix.prepared)


def headers(recipe: Recipe, attempt: str, results: Results) -> list[Header]:
    """Return the header of each file; none before all files are opened."""
    root = results(open_levels(recipe, attempt)[-1][0].key)
    return headers_of(root) if root else []


def _levels(recipe: Recipe, attempt: str, results: Results) -> list[Sequence[Step]]:
    """Return all steps of a training that are known once its events are prepared."""
    matrix = _matrix(recipe, attempt, results)
    return [
        *open_levels(recipe, attempt),
        *survey_levels(recipe, matrix.opened),
        *prepare_levels(recipe, matrix.opened, matrix.spec),
        *trains(recipe, matrix.spec, matrix.prepared),
        *_sample_levels(recipe, attempt, matrix.spec, results),
    ]


def best_epoch(losses: Sequence[float]) -> int:
    """Return the index of the lowest validation loss. Raises: RequestError if one of them is not finite."""
    for epoch, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise RequestError(
                f"the loss after epoch {epoch} is {loss}: the training diverged; try a smaller learning rate or "
                "look for unscaled inputs (branches with a constant value pass unchanged)"
            )
    return min(range(len(losses)), key=losses.__getitem__)


@dataclass(frozen=True)
class _Matrix:
    """Results of the phases before training."""

    opened: Found
    spec: Found
    prepared: Found


def _matrix(recipe: Recipe, attempt: str, results: Results) -> _Matrix:
    opened = phase("open", open_levels(recipe, attempt), results)
    spec = _kept(recipe.continues, "spec", results) if recipe.continues else _spec(recipe, opened, results)
    prepared = phase("prepare", prepare_levels(recipe, opened, spec), results)
    _check_rows(_parts(prepared))
    return _Matrix(opened, spec, prepared)


def _spec(recipe: Recipe, opened: Found, results: Results) -> Found:
    survey = phase("survey", survey_levels(recipe, opened), results)
    first = _headers(opened)[0]
    step = Spec(
        survey=survey.key,
        branches=first.branches,
        identifiers=first.identifiers,
        order=recipe.order,
        surplus=recipe.surplus,
    )
    return one(step, results)


def _finished(recipe: Recipe, attempt: str, results: Results) -> Finished:
    matrix = _matrix(recipe, attempt, results)
    if recipe.continues:
        _kept(recipe.continues, "checkpoint", results)
    chain = trains(recipe, matrix.spec, matrix.prepared)
    ends = [segments[-1] for segments in chain]
    best = best_epoch([epoch["metrics"]["val_loss"] for epoch in _trained(chain, results)])
    last = ends[best]
    network = {item.name: getattr(last, item.name) for item in fields(Learning)}
    export = one(Export(**network, checkpoint=last.key), results)
    score = phase("score", score_levels(recipe, export, matrix.prepared), results)
    ended = tuple(step.key for step in ends)
    evaluate = one(Evaluate(score=score.key, epochs=ended, best_epoch=best, classes=recipe.classes), results)
    gate = (
        _gate(recipe, recipe.gate, attempt, spec=matrix.spec, export=export, results=results) if recipe.gate else None
    )
    if gate and not gate.values["passed"]:
        return Finished(None, gate.values)
    publish = Publish(
        name=recipe.name,
        recipe=_on_card(recipe),
        data=matrix.prepared.key,
        spec=matrix.spec.key,
        checkpoint=last.key,
        export=export.key,
        evaluate=evaluate.key,
        compare=gate.key if gate else None,
    )
    return Finished(one(publish, results).values, gate.values if gate else None)


def _gate(recipe: Recipe, wanted: Gate, attempt: str, *, spec: Found, export: Found, results: Results) -> Found:
    """Return the comparison of the new model with the last version on the sample, each by its own spec."""
    sample = _sample(recipe, wanted)
    opened = phase("gate", open_levels(sample, attempt), results)
    scores = []
    for columns, graph in (
        (spec, export),
        (_kept(wanted.last, "spec", results), _kept(wanted.last, "export", results)),
    ):
        prepared = phase("gate", prepare_levels(sample, opened, columns), results)
        scores.append(phase("gate", score_levels(sample, graph, prepared), results).key)
    new, last = scores
    compare = Compare(metric=wanted.metric, fall=wanted.fall, model=wanted.last.model, score=new, last=last)
    return phase("gate", ((compare,),), results)


def _sample(recipe: Recipe, wanted: Gate) -> Recipe:
    """Return a recipe that reads all events of the gate's files as the run reads its own."""
    return replace(recipe, files=wanted.sample, n_events=-1)


def _sample_levels(recipe: Recipe, attempt: str, spec: Found, results: Results) -> list[Sequence[Step]]:
    """Return the known steps that read the gate's sample."""
    if recipe.gate is None:
        return []
    sample = _sample(recipe, recipe.gate)
    levels = open_levels(sample, attempt)
    root, last = levels[-1][0].key, results(recipe.gate.last.spec)
    values = results(root)
    if values is None:
        return list(levels)
    specs = [spec, *([Found(recipe.gate.last.spec, last)] if last else [])]
    return [*levels, *(level for one in specs for level in prepare_levels(sample, Found(root, values), one))]


def _kept(earlier: Earlier, part: Literal["spec", "checkpoint", "export"], results: Results) -> Found:
    """Return a result that an earlier version was made of. Raises: RequestError if it is lost, as no step makes it."""
    key = {"spec": earlier.spec, "checkpoint": earlier.checkpoint, "export": earlier.export}[part]
    values = results(key)
    if values is None:
        raise RequestError(
            f"the {part} of model '{earlier.model}' ({key}) is not in the store any more, so no model can be compared "
            "with it or continue from it; train on all files again"
        )
    return Found(key, values)


def _on_card(recipe: Recipe) -> str:
    """Return the recipe as JSON text for a card, without the files: a card names them by identity."""
    values = asdict(recipe)
    del values["files"]
    if values["gate"]:
        del values["gate"]["sample"]
    return json.dumps(values, sort_keys=True)


def _trained(chain: Sequence[Sequence[Train]], results: Results) -> list[Mapping[str, Any]]:
    """Return the result of the last step of each epoch. Each step of a chain needs the one before, so a binary search
    finds the first without a result. Raises: Wait."""
    flat = [step for segments in chain for step in segments]
    done = bisect_left(flat, True, key=lambda step: results(step.key) is None)
    ends = [segments[-1] for segments in chain]
    missing = [flat[done]] if done < len(flat) else [end for end in ends if results(end.key) is None]
    if missing:
        raise Wait(Ready("train", ((missing[0],),), results, (done, len(flat)), len(chain[0])))
    return [results(end.key) or {} for end in ends]


def _check_files(files: Sequence[LabelledFile], headers: Sequence[Header]) -> None:
    check_distinct([file.url for file in files], headers)
    for file, header in zip(files, headers, strict=True):
        _check_branches(files[0].url, headers[0], file.url, header)


def _check_branches(first_url: str, first: Header, url: str, header: Header) -> None:
    expected, actual = dict(first.features), dict(header.features)
    for name, jagged in [*expected.items(), *actual.items()]:
        for file, other, branches in ((url, first_url, actual), (first_url, url, expected)):
            if name not in branches:
                raise RequestError(
                    f"'{file}' has no branch '{name}', which '{other}' has; exclude it (exclude_branches) or "
                    "name the branches you want (selected_branches)"
                )
        if expected[name] != actual[name]:
            flat, jagged_one = (url, first_url) if jagged else (first_url, url)
            raise RequestError(f"branch '{name}' is flat in '{flat}' and jagged in '{jagged_one}'; exclude it")


@functools.lru_cache(maxsize=KEPT)
def _headers(opened: Found) -> list[Header]:
    return headers_of(opened.values)


@functools.lru_cache(maxsize=KEPT)
def _parts(prepared: Found) -> list[PreparedPart]:
    return prepared_parts(prepared.values)


def _check_rows(parts: Sequence[PreparedPart]) -> None:
    for split in Split:
        if not any(part.rows[split] for part in parts):
            events = sum(sum(part.rows) for part in parts)
            raise RequestError(f"the {split.label} sample has no event: {events} events are too few to split 64/16/20")


def _shares(entries: Sequence[int], n_events: int) -> list[int]:
    """Return the events used of each file: all, or its share of the limit and at least one, as MLaaS4HEP does."""
    total = sum(entries)
    if n_events < 0 or n_events >= total:
        return list(entries)
    return [min(count, max(1, round(count / total * n_events))) for count in entries]
