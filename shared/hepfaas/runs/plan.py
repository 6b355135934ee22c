"""The next steps of a run, from the results that exist. Pure: no clock, no store, no state.

A training is planned in preparation.py and course.py, other kinds of runs in prediction.py and conversion.py.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from hepfaas.runs import conversion, prediction, skipped
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.course import (
    best_epoch,
    course_of,
    trained,
)
from hepfaas.runs.cut_flow import CutFlow, cut_flow
from hepfaas.runs.kinds import AnyRecipe
from hepfaas.runs.notes import on_classes, on_labels
from hepfaas.runs.phases import (
    KEPT,
    Finished,
    Found,
    Levels,
    Ready,
    Results,
    Wait,
    one,
    phase,
    tree_of,
)
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.preparation import (
    Preparation,
    class_names,
    classes,
    earlier_result,
    headers_in,
    open_levels,
    parts_in,
    preparation_of,
    prepare_levels,
    spec_of,
    survey_levels,
    targets_of,
)
from hepfaas.runs.recipe import Gate, Recipe
from hepfaas.runs.results import Header, PreparedPart
from hepfaas.runs.skipped import read_files
from hepfaas.runs.steps import (
    Compare,
    Evaluate,
    Examine,
    Export,
    Learning,
    Publish,
    Score,
    Step,
    Train,
)
from hepfaas.runs.targets import Row, Target, targets_in

MOST_NAMED = 10
"""Files that a note names."""


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
        levels: Iterable[Sequence[Step]]
        if isinstance(recipe, Prediction):
            levels = prediction.levels(recipe, attempt, results)
        elif isinstance(recipe, Conversion):
            levels = conversion.levels(recipe)
        else:
            levels = _levels(recipe, attempt, results)
        return next((step for level in levels for step in level if step.key == key), None)
    except Wait:
        return None


@functools.lru_cache(maxsize=KEPT)
def score_levels(
    recipe: Recipe,
    export: Found,
    prepared: Found,
    weigh: Found | None = None,
    targets: tuple[Row, ...] = (),
    fold: int | None = None,
) -> Levels:
    """Return the score steps of all parts, and their sums. fold: whose network was exported."""
    n_classes = export.values["n_classes"]
    return tree_of(
        [
            Score(
                export=export.key,
                part=part.key,
                n_classes=n_classes,
                threshold=recipe.threshold,
                weigh=weigh.key if weigh else "",
                targets=targets,
                fold=fold,
            )
            for part in parts_in(prepared)
        ]
    )


def chains_of(recipe: Recipe, attempt: str, results: Results) -> list[list[list[Train]]]:
    """Return the train steps of each fold, or of the only training, one list of segments per epoch; none before all
    events are prepared.

    A training that has stopped early ends with the epoch after which it stopped.
    """
    try:
        matrix = preparation_of(recipe, attempt, results)
    except Wait:
        return []
    return [course_of(recipe, matrix, results, fold).chain for fold in recipe.fold_numbers]


@dataclass(frozen=True)
class Prepared:
    """The events of a run in the form in which a network learns them.

    spec: key of the blob with the columns. parts: in the order of files and entries. classes: name of the class of each
    number that is stored as a label; none in a regression. targets: of a regression. files: address and tree of each
    file by the identity of its events, in the order of the recipe.
    """

    spec: str
    parts: Sequence[PreparedPart]
    classes: Mapping[int, str]
    targets: Sequence[Target]
    files: Mapping[str, tuple[str, str]]


def prepared(recipe: Recipe, attempt: str, results: Results) -> Ready | Prepared:
    """Return the next phase of a run that ends when all events are prepared, or what is prepared."""
    try:
        matrix = preparation_of(recipe, attempt, results)
    except Wait as wait:
        return wait.ready
    return Prepared(
        spec=matrix.spec.values["columns"],
        parts=parts_in(matrix.prepared),
        classes=dict(zip(classes(recipe, matrix.weigh), class_names(recipe, matrix.weigh), strict=True)),
        targets=targets_in(targets_of(recipe, matrix.spec)),
        files={
            header.identity: (file.url, recipe.tree_of(file))
            for file, header in read_files(recipe, headers_in(matrix.opened))
        },
    )


def n_epochs(recipe: Recipe, attempt: str, results: Results) -> list[int] | None:
    """Return after how many epochs the training of each fold, or the only one, ended; None while one goes on."""
    try:
        return list(map(len, _trainings(recipe, preparation_of(recipe, attempt, results), results)))
    except Wait:
        return None


def notes(recipe: Recipe, attempt: str, results: Results) -> list[str]:
    """Return notes on the files, the values of their branches, the classes and the network, as far as they are
    known."""
    key = open_levels(recipe, attempt)[-1][0].key
    if (opened := results(key)) is None:
        return []
    headers = headers_in(Found(key, opened))
    of_files = dict.fromkeys(note for header in headers for note in header.notes)
    of_skipped = skipped.notes(skipped.skipped_files(recipe, headers))
    return [
        *of_skipped,
        *empty_files(recipe, headers),
        *of_files,
        *(findings(recipe, attempt, results) or ()),
        *(class_notes(recipe, attempt, results) or ()),
        *network_notes(recipe, attempt, results),
    ]


def class_notes(recipe: Recipe, attempt: str, results: Results) -> list[str] | None:
    """Return notes on labels and classes; None before all events are prepared."""
    try:
        matrix = preparation_of(recipe, attempt, results)
    except Wait:
        return None
    of_events = matrix.weigh.values.get("labels", ()) if matrix.weigh and recipe.label else ()
    of_classes = (on_classes(recipe, parts_in(matrix.prepared, fold), fold) for fold in recipe.fold_numbers)
    return [*on_labels(recipe, of_events), *itertools.chain.from_iterable(of_classes)]


def network_notes(recipe: Recipe, attempt: str, results: Results) -> list[str]:
    """Return the notes on the network that the user's code makes; none before its first train step."""
    try:
        matrix = preparation_of(recipe, attempt, results)
        chain = course_of(recipe, matrix, results, recipe.fold_numbers[0]).chain
    except Wait:
        return []
    return list((results(chain[0][0].key) or {}).get("notes", ()))


def empty_files(recipe: Recipe, headers: Sequence[Header]) -> list[str]:
    """Return a note on the files without events; none if all have some."""
    read = read_files(recipe, headers)
    empty = [file.address for file, header in read if not header.entries]
    if not empty:
        return []
    more = ", …" if len(empty) > MOST_NAMED else ""
    has = "has" if len(empty) == 1 else "have"
    return [f"{len(empty):,} of {len(read):,} files {has} no event: {', '.join(empty[:MOST_NAMED])}{more}"]


def findings(recipe: Recipe, attempt: str, results: Results) -> list[str] | None:
    """Return notes on the values of the branches; None before these are known."""
    try:
        opened = phase("open", open_levels(recipe, attempt), results)
        spec = (
            earlier_result(recipe.continues, "spec", results) if recipe.continues else spec_of(recipe, opened, results)
        )
    except Wait:
        return None
    return list(spec.values.get("notes", ()))


def flow_of(recipe: Recipe, attempt: str, results: Results) -> CutFlow | None:
    """Return the cut flow of a training; None before all events are prepared, or without cuts and weights."""
    if not recipe.preprocessing.cuts and not recipe.is_weighted:
        return None
    try:
        matrix = preparation_of(recipe, attempt, results)
    except Wait:
        return None
    return _flow(recipe, matrix.opened, matrix.prepared)


@functools.lru_cache(maxsize=KEPT)
def _flow(recipe: Recipe, opened: Found, prepared: Found) -> CutFlow:
    return cut_flow(_cuts(recipe), parts_in(prepared), dict(_samples(recipe, headers_in(opened))))


def _cuts(recipe: Recipe) -> tuple[str, ...]:
    return tuple(cut.name for cut in recipe.preprocessing.cuts)


def _samples(recipe: Recipe, headers: Sequence[Header]) -> tuple[tuple[str, str], ...]:
    """Return the sample of each file, by the file's identity: its name, or that of its class."""
    names = dict(zip(recipe.labels, recipe.classes, strict=True))
    has_no_names = bool(recipe.label or recipe.targets)
    return tuple(
        (header.identity, file.sample or (file.short_name if has_no_names else names[file.label]))
        for file, header in read_files(recipe, headers)
    )


def _levels(recipe: Recipe, attempt: str, results: Results) -> Iterator[Sequence[Step]]:
    """Yield all steps of a training that are known once its events are prepared."""
    matrix = preparation_of(recipe, attempt, results)
    yield from open_levels(recipe, attempt)
    yield from survey_levels(recipe, matrix.opened)
    yield from prepare_levels(recipe, matrix.opened, matrix.spec, matrix.weigh)
    for fold in recipe.fold_numbers:
        yield from course_of(recipe, matrix, results, fold).chain
    yield from _sample_levels(recipe, attempt, matrix, results)


def _finished(recipe: Recipe, attempt: str, results: Results) -> Finished:
    matrix = preparation_of(recipe, attempt, results)
    if recipe.continues:
        earlier_result(recipe.continues, "checkpoint", results)
    trainings = _trainings(recipe, matrix, results)
    best = [best_epoch([result["metrics"]["val_loss"] for result in epochs.values()]) for epochs in trainings]
    lasts = [list(epochs)[number] for epochs, number in zip(trainings, best, strict=True)]
    exports = [one(_export([last]), results) for last in lasts]
    targets, names = lasts[0].targets, class_names(recipe, matrix.weigh)
    scores = [
        phase("score", score_levels(recipe, export, matrix.prepared, matrix.weigh, targets, last.fold), results)
        for export, last in zip(exports, lasts, strict=True)
    ]
    examine = one(
        Examine(
            data=matrix.prepared.key,
            spec=matrix.spec.values["columns"],
            export=exports[0].key,
            score=scores[0].key,
            classes=names,
            targets=targets,
            fold=lasts[0].fold,
        ),
        results,
    )
    evaluate = one(
        Evaluate(
            examine=examine.key,
            trainings=tuple(
                (score.key, tuple(step.key for step in epochs), number)
                for score, epochs, number in zip(scores, trainings, best, strict=True)
            ),
            classes=names,
            data=matrix.prepared.key,
            cuts=_cuts(recipe),
            targets=targets,
            samples=_samples(recipe, headers_in(matrix.opened)),
            labels=_labels(recipe, headers_in(matrix.opened)),
        ),
        results,
    )
    export = one(_export(lasts), results) if recipe.folds else exports[0]
    gate = _gate(recipe, recipe.gate, attempt, matrix=matrix, export=export, results=results) if recipe.gate else None
    if gate and not gate.values["passed"]:
        return Finished(None, gate.values)
    publish = Publish(
        name=recipe.name,
        recipe=_on_card(recipe),
        data=matrix.prepared.key,
        spec=matrix.spec.key,
        checkpoint=lasts[0].key,
        export=export.key,
        evaluate=evaluate.key,
        compare=gate.key if gate else None,
    )
    return Finished(one(publish, results).values, gate.values if gate else None)


def _labels(recipe: Recipe, headers: Sequence[Header]) -> str:
    """Return the text of the plot labels, with the luminosity of the samples and the titles in the files."""
    plots = recipe.plots
    luminosity = plots.luminosity
    if luminosity is None and recipe.luminosity is not None:
        luminosity = recipe.luminosity / 1000
    _, first = read_files(recipe, headers)[0]
    titles = dict(first.titles) | dict(plots.titles)
    return replace(plots, luminosity=luminosity, titles=tuple(titles.items())).text


def _trainings(recipe: Recipe, matrix: Preparation, results: Results) -> list[Mapping[Train, Mapping[str, Any]]]:
    """Return the result of the last step of each epoch, for each fold or the only training.

    Raises: Wait with the next steps of all folds that are not trained.
    """
    trainings: list[Mapping[Train, Mapping[str, Any]]] = []
    waiting: list[Ready] = []
    done = 0
    for fold in recipe.fold_numbers:
        course = course_of(recipe, matrix, results, fold)
        try:
            trainings.append(trained(course, results))
            done += len(trainings[-1]) * len(course.chain[0])
        except Wait as wait:
            waiting.append(replace(wait.ready, fold=fold))
    if waiting:
        chains = [ready.chain for ready in waiting if ready.chain]
        steps_done, steps = (done + sum(counts) for counts in zip(*chains, strict=True))
        raise Wait(replace(waiting[0], others=tuple(waiting[1:]), whole=(steps_done, steps)))
    return trainings


def _export(lasts: Sequence[Train]) -> Export:
    """Return the export of the network of a train step, or of several."""
    network = {item.name: getattr(lasts[0], item.name) for item in fields(Learning)}
    return Export(**network, checkpoints=tuple(step.key for step in lasts))


def _gate(recipe: Recipe, wanted: Gate, attempt: str, *, matrix: Preparation, export: Found, results: Results) -> Found:
    """Return the comparison of the new model with the last version on the sample, each by its own spec."""
    sample = _sample(recipe, wanted)
    opened = phase("gate", open_levels(sample, attempt), results)
    weigh = matrix.weigh if recipe.label else None
    scores = []
    for columns, graph in (
        (matrix.spec, export),
        (earlier_result(wanted.last, "spec", results), earlier_result(wanted.last, "export", results)),
    ):
        prepared = phase("gate", prepare_levels(sample, opened, columns, weigh), results)
        scores.append(phase("gate", score_levels(sample, graph, prepared, weigh), results).key)
    new, last = scores
    compare = Compare(metric=wanted.metric, fall=wanted.fall, model=wanted.last.model, score=new, last=last)
    return phase("gate", ((compare,),), results)


def _sample(recipe: Recipe, wanted: Gate) -> Recipe:
    """Return a recipe that reads all events of the gate's files as the run reads its own."""
    return replace(recipe, files=wanted.sample, n_events=-1, unreadable_files="fail")


def _sample_levels(recipe: Recipe, attempt: str, matrix: Preparation, results: Results) -> list[Sequence[Step]]:
    """Return the known steps that read the gate's sample."""
    if recipe.gate is None:
        return []
    sample = _sample(recipe, recipe.gate)
    levels = open_levels(sample, attempt)
    root, last = levels[-1][0].key, results(recipe.gate.last.spec)
    values = results(root)
    if values is None:
        return list(levels)
    specs = [matrix.spec, *([Found(recipe.gate.last.spec, last)] if last else [])]
    opened, weigh = Found(root, values), matrix.weigh if recipe.label else None
    return [*levels, *(level for spec in specs for level in prepare_levels(sample, opened, spec, weigh))]


def _on_card(recipe: Recipe) -> str:
    """Return the recipe as JSON text for a card, without the files: a card names them by identity."""
    values = asdict(recipe)
    del values["files"]
    if values["gate"]:
        del values["gate"]["sample"]
    return json.dumps(values, sort_keys=True)
