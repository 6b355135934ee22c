"""The next steps of a run, from the results that exist; and the plan of a training. Pure: no clock, no store, no state.
The other kinds of runs have their plans in prediction.py and conversion.py."""

from __future__ import annotations

import functools
import itertools
import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.runs import conversion, epochs, prediction
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.cut_flow import CutFlow, cut_flow
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
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile, Recipe, Sample
from hepfaas.runs.results import Header, PreparedPart, headers_of, prepared_parts
from hepfaas.runs.schedule import n_epochs_until_stop
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import (
    Compare,
    Evaluate,
    Examine,
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
    Weigh,
)
from hepfaas.runs.targets import Row, Target, targets_in

MOST_NAMED = 10
"""Files that a note names."""
MOST_FLOWS = 500_000
"""Files × cuts of a run with weights."""


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


def opens(recipe: Recipe, attempt: str) -> list[Open]:
    """Return the open step of each file, in the order of the recipe."""
    sums = {one.name: one.sum_of_weights for one in recipe.samples if isinstance(one.sum_of_weights, str)}
    if recipe.is_weighted and len(recipe.files) * len(recipe.preprocessing.cuts) > MOST_FLOWS:
        raise RequestError(
            f"the weights of {len(recipe.files):,} files after each of {len(recipe.preprocessing.cuts)} cuts are more "
            f"than {MOST_FLOWS:,} sums; join cuts by 'and', or use fewer and larger files"
        )
    kept = [text for text in (*recipe.spectators, *recipe.targets) if text in parse(text, "params.json").names]
    removed = (*recipe.preprocessing.removed, *dict.fromkeys([*kept, *_telling(recipe)]))
    return [
        Open(
            url=file.url,
            tree=recipe.tree,
            selected=recipe.selected,
            excluded=recipe.excluded,
            identifiers=recipe.identifiers,
            range_events=recipe.range_events,
            attempt=attempt,
            removed=removed,
            preprocessing=recipe.preprocessing.text,
            expressions=_expressions(recipe, file),
            sum_of_weights=sums.get(file.sample, ""),
        )
        for file in recipe.files
    ]


def _telling(recipe: Recipe) -> tuple[str, ...]:
    """Return the names in the weights and the label of events that are not selected by name. As features they could
    tell the class, and data do not have them."""
    weights = [recipe.weight, *(sample.weight for sample in recipe.samples)]
    used = {name for text in (recipe.label, *weights) if text for name in parse(text, "params.json").names}
    return tuple(sorted(used.difference(recipe.selected, recipe.excluded)))


def _expressions(recipe: Recipe, file: LabelledFile) -> tuple[str, ...]:
    """Return the expressions that give one number for each event of a file: weight, label, spectators, targets, and
    which events are not test events."""
    texts = [*recipe.weighting(file.sample).expressions, *recipe.spectators, *recipe.targets, recipe.split.training]
    return tuple(filter(None, dict.fromkeys(texts)))


def inputs(recipe: Recipe, headers: Sequence[Header]) -> list[Input]:
    """Return the opened files, each with its share of the event limit. Raises: RequestError if they do not match."""
    _check_files(recipe.files, headers)
    shares = _shares([header.entries for header in headers], recipe.n_events)
    files = [
        Input(file.url, file.label, header.identity, cut(header.ranges, 0, share))
        for file, header, share in zip(recipe.files, headers, shares, strict=True)
    ]
    with_events = {file.label for file in files if file.entries}
    if not (recipe.label or recipe.targets) and len(with_events) < len(recipe.labels):
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
    branches, preprocessing = headers[0].branches, recipe.preprocessing.text
    weightings = _weightings(recipe) if recipe.is_weighted else {}
    moments, histograms = (recipe.features.scaled_by(kind, branches) for kind in ("standard", "robust"))
    steps = [
        Survey(
            file=file.identity,
            tree=recipe.tree,
            branches=branches,
            entries=entries,
            inputs=read,
            preprocessing=preprocessing,
            weighting=weightings.get(listed.sample, ""),
            moments=moments,
            histograms=histograms,
            targets=recipe.targets,
            url=file.url,
        )
        for listed, header, file in zip(recipe.files, headers, inputs(recipe, headers), strict=True)
        for read in [_read(header)]  # values that many steps share are made once, and hashed by identity
        for entries in file.ranges
    ]
    return tree_of(steps)


def _weightings(recipe: Recipe) -> dict[str, str]:
    """Return the text of the weighting of each sample."""
    return {sample: recipe.weighting(sample).text for sample in {file.sample for file in recipe.files}}


def _read(header: Header) -> tuple[str, ...]:
    """Return the branches that a survey of a file reads, () if they are its features."""
    return tuple(dict.fromkeys([*(header.inputs or header.branches), *header.extra])) if header.extra else header.inputs


@functools.lru_cache(maxsize=KEPT)
def prepare_levels(recipe: Recipe, opened: Found, spec: Found, weigh: Found | None = None) -> Levels:
    """Return the prepare steps of all entry ranges, file after file, and their sums."""
    columns, headers = spec.values["columns"], _headers(opened)
    classes, targets = _class_numbers(recipe), _targets(recipe, spec)
    weightings = _weightings(recipe) if weigh else {}
    steps = [
        Prepare(
            file=file.identity,
            tree=recipe.tree,
            entries=entries,
            spec=columns,
            label=-1 if recipe.label else classes[file.label],
            split_seed=recipe.split_seed,
            inputs=header.extra,
            spectators=recipe.spectators,
            weighting=weightings.get(listed.sample, ""),
            weigh=weigh.key if weigh else "",
            targets=targets,
            split=recipe.split.text,
            url=file.url,
        )
        for listed, header, file in zip(recipe.files, headers, inputs(recipe, headers), strict=True)
        for entries in file.ranges
    ]
    return tree_of(steps)


def _class_numbers(recipe: Recipe) -> dict[int, int]:
    """Return the number of the class of each label of a file; the events of a regression are of one class."""
    return {label: 0 if recipe.targets else number for number, label in enumerate(recipe.labels)}


def _targets(recipe: Recipe, spec: Found) -> tuple[Row, ...]:
    """Return the targets with their scale, as steps name them. Raises: RequestError if the earlier version that the run
    continues from learned others."""
    targets = [Target.from_json(values) for values in spec.values.get("targets", ())]
    known = tuple(target.name for target in targets)
    if known != recipe.targets:
        learned, wanted = (", ".join(names) or "classes" for names in (known, recipe.targets))
        model = recipe.continues.model if recipe.continues else recipe.name
        raise RequestError(
            f"model '{model}' learned {learned}, and this run learns {wanted}; train a new model, or give the same "
            "'target'"
        )
    return tuple(target.row for target in targets)


@functools.lru_cache(maxsize=KEPT)
def score_levels(
    recipe: Recipe, export: Found, prepared: Found, weigh: Found | None = None, targets: tuple[Row, ...] = ()
) -> Levels:
    """Return the score steps of all parts, and their sums."""
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
            )
            for part in _parts(prepared)
        ]
    )


@functools.lru_cache(maxsize=KEPT)
def trains(
    recipe: Recipe, spec: Found, prepared: Found, weigh: Found | None = None, factors: tuple[float, ...] = ()
) -> list[list[Train]]:
    """Return the train steps, one list of segments per epoch. Raises: RequestError if there are too many.

    factors: of the learning rate in each epoch, none if there is no schedule.
    """
    rows = sum(part.rows[Split.TRAINING] for part in _parts(prepared))
    n_features = int(spec.values["n_features"])
    labels = _classes(recipe, weigh)
    segment_rows = recipe.segment_rows or epochs.usual_segment_rows(n_features)
    before = recipe.continues.checkpoint if recipe.continues else None
    n_segments = epochs.n_segments(rows, segment_rows)
    if recipe.epochs * n_segments > epochs.MOST_TRAINS:
        raise RequestError(
            f"{recipe.epochs:,} epochs of {n_segments:,} segments are more than {epochs.MOST_TRAINS:,} steps of "
            "training; ask for fewer 'epochs' or more 'segment_rows'"
        )
    targets = _targets(recipe, spec)
    class_weight = () if targets else _class_weight(recipe, _parts(prepared), weigh)
    chain: list[list[Train]] = []
    for epoch in range(recipe.epochs):
        chain.append([])
        factor, rate = factors[epoch] if factors else None, recipe.learning_rate
        for segment in range(n_segments):
            step = Train(
                data=prepared.key,
                code=recipe.code,
                module=recipe.module,
                n_features=n_features,
                labels=labels,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                threads=recipe.threads,
                xla=_xla(recipe, rows),
                before=before,
                epoch=epoch,
                segment=segment,
                segment_rows=segment_rows,
                shuffle=recipe.shuffle,
                weighted=weigh is not None,
                class_weight=class_weight,
                targets=targets,
                learning_rate=rate if factor is None or rate is None else rate * factor,
                rate_factor=factor if rate is None else None,
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
    """Return the train steps, one list of segments per epoch; none before all events are prepared.

    A training that has stopped early ends with the epoch after which it stopped.
    """
    try:
        matrix = _matrix(recipe, attempt, results)
    except Wait:
        return []
    return _course(recipe, matrix, results).chain


@dataclass(frozen=True)
class Prepared:
    """The events of a run in the form in which a network learns them.

    spec: key of the blob with the columns. parts: in the order of files and entries. classes: name of the class of each
    number that is stored as a label; none in a regression. targets: of a regression. files: address of each file by its
    identity, in the order of the recipe.
    """

    spec: str
    parts: Sequence[PreparedPart]
    classes: Mapping[int, str]
    targets: Sequence[Target]
    files: Mapping[str, str]


def prepared(recipe: Recipe, attempt: str, results: Results) -> Ready | Prepared:
    """Return the next phase of a run that ends when all events are prepared, or what is prepared."""
    try:
        matrix = _matrix(recipe, attempt, results)
    except Wait as wait:
        return wait.ready
    return Prepared(
        spec=matrix.spec.values["columns"],
        parts=_parts(matrix.prepared),
        classes=dict(zip(_classes(recipe, matrix.weigh), _class_names(recipe, matrix.weigh), strict=True)),
        targets=targets_in(_targets(recipe, matrix.spec)),
        files={header.identity: file.url for file, header in zip(recipe.files, _headers(matrix.opened), strict=True)},
    )


def n_epochs(recipe: Recipe, attempt: str, results: Results) -> int | None:
    """Return after how many epochs a training ended, None while it goes on."""
    try:
        return len(_trained(_course(recipe, _matrix(recipe, attempt, results), results), results))
    except Wait:
        return None


def headers(recipe: Recipe, attempt: str, results: Results) -> list[Header]:
    """Return the header of each file; none before all files are opened."""
    root = results(open_levels(recipe, attempt)[-1][0].key)
    return headers_of(root) if root else []


def surveys(recipe: Recipe, attempt: str, results: Results) -> list[Survey]:
    """Return the survey steps; none before all files are opened."""
    key = open_levels(recipe, attempt)[-1][0].key
    opened = results(key)
    steps = survey_levels(recipe, Found(key, opened))[0] if opened else ()
    return [step for step in steps if isinstance(step, Survey)]


def notes(recipe: Recipe, attempt: str, results: Results) -> list[str]:
    """Return notes on the files and on the values of their branches, as far as they are known."""
    key = open_levels(recipe, attempt)[-1][0].key
    if (opened := results(key)) is None:
        return []
    headers = _headers(Found(key, opened))
    of_files = dict.fromkeys(note for header in headers for note in header.notes)
    return [*empty_files(recipe, headers), *of_files, *(findings(recipe, attempt, results) or ())]


def empty_files(recipe: Recipe, headers: Sequence[Header]) -> list[str]:
    """Return a note on the files without events; none if all have some."""
    empty = [file.url for file, header in zip(recipe.files, headers, strict=True) if not header.entries]
    if not empty:
        return []
    more = ", …" if len(empty) > MOST_NAMED else ""
    has = "has" if len(empty) == 1 else "have"
    return [f"{len(empty):,} of {len(headers):,} files {has} no event: {', '.join(empty[:MOST_NAMED])}{more}"]


def findings(recipe: Recipe, attempt: str, results: Results) -> list[str] | None:
    """Return notes on the values of the branches; None before these are known."""
    try:
        opened = phase("open", open_levels(recipe, attempt), results)
        spec = _kept(recipe.continues, "spec", results) if recipe.continues else _spec(recipe, opened, results)
    except Wait:
        return None
    return list(spec.values.get("notes", ()))


def flow_of(recipe: Recipe, attempt: str, results: Results) -> CutFlow | None:
    """Return the cut flow of a training; None before all events are prepared, or without cuts and weights."""
    if not recipe.preprocessing.cuts and not recipe.is_weighted:
        return None
    try:
        matrix = _matrix(recipe, attempt, results)
    except Wait:
        return None
    return _flow(recipe, matrix.opened, matrix.prepared)


@functools.lru_cache(maxsize=KEPT)
def _flow(recipe: Recipe, opened: Found, prepared: Found) -> CutFlow:
    return cut_flow(_cuts(recipe), _parts(prepared), dict(_samples(recipe, _headers(opened))))


def _cuts(recipe: Recipe) -> tuple[str, ...]:
    return tuple(cut.name for cut in recipe.preprocessing.cuts)


def _samples(recipe: Recipe, headers: Sequence[Header]) -> tuple[tuple[str, str], ...]:
    """Return the sample of each file, by the file's identity: its name, or that of its class."""
    names = dict(zip(recipe.labels, recipe.classes, strict=True))
    has_no_names = bool(recipe.label or recipe.targets)
    return tuple(
        (header.identity, file.sample or (PurePosixPath(file.url).stem if has_no_names else names[file.label]))
        for file, header in zip(recipe.files, headers, strict=True)
    )


def _levels(recipe: Recipe, attempt: str, results: Results) -> Iterator[Sequence[Step]]:
    """Yield all steps of a training that are known once its events are prepared."""
    matrix = _matrix(recipe, attempt, results)
    yield from open_levels(recipe, attempt)
    yield from survey_levels(recipe, matrix.opened)
    yield from prepare_levels(recipe, matrix.opened, matrix.spec, matrix.weigh)
    yield from _course(recipe, matrix, results).chain
    yield from _sample_levels(recipe, attempt, matrix, results)


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
    weigh: Found | None


def _matrix(recipe: Recipe, attempt: str, results: Results) -> _Matrix:
    if recipe.gate and recipe.targets:
        raise RequestError("a gate compares classifiers, and the run has a 'target'; leave one of them out")
    opened = phase("open", open_levels(recipe, attempt), results)
    spec = _kept(recipe.continues, "spec", results) if recipe.continues else _spec(recipe, opened, results)
    weigh = _weigh(recipe, opened, results) if recipe.is_weighted else None
    prepared = phase("prepare", prepare_levels(recipe, opened, spec, weigh), results)
    return _Matrix(opened, spec, prepared, weigh)


def _spec(recipe: Recipe, opened: Found, results: Results) -> Found:
    survey = phase("survey", survey_levels(recipe, opened), results)
    first = _headers(opened)[0]
    step = Spec(
        survey=survey.key,
        branches=first.branches,
        identifiers=first.identifiers,
        order=recipe.order,
        surplus=recipe.surplus,
        inputs=first.inputs,
        preprocessing=recipe.preprocessing.text,
        spectators=recipe.spectators,
        rules=recipe.features.text,
        targets=recipe.targets,
    )
    return one(step, results)


def _weigh(recipe: Recipe, opened: Found, results: Results) -> Found:
    survey = phase("survey", survey_levels(recipe, opened), results)
    headers, classes = _headers(opened), _class_numbers(recipe)
    step = Weigh(
        survey=survey.key,
        files=tuple(
            (header.identity, -1 if recipe.label else classes[file.label], file.sample)
            for file, header in zip(recipe.files, headers, strict=True)
        ),
        samples=tuple(_normalisation(recipe, sample, headers) for sample in recipe.samples),
        weighting=recipe.weighting("").text,
    )
    return one(step, results)


def _normalisation(
    recipe: Recipe, sample: Sample, headers: Sequence[Header]
) -> tuple[str, float | None, tuple[str, ...]]:
    """Return name, luminosity × cross section (None: not normalised) and sums of weights of a sample, as `Weigh` takes
    them. With an event limit, a sum over all generated events counts for the share of events that is used."""
    if sample.cross_section is None:
        return sample.name, None, ()
    factor = sample.cross_section * (1.0 if recipe.luminosity is None else recipe.luminosity)
    if sample.sum_of_weights is None:
        return sample.name, factor, ()
    own = [number for number, file in enumerate(recipe.files) if file.sample == sample.name]
    entries = [header.entries for header in headers]
    shares = _shares(entries, recipe.n_events)
    factor *= sum(entries[number] for number in own) / max(1, sum(shares[number] for number in own))
    if isinstance(sample.sum_of_weights, str):
        return sample.name, factor, tuple(headers[number].sum_of_weights for number in own)
    return sample.name, factor, (json.dumps(sample.sum_of_weights),)


def _class_names(recipe: Recipe, weigh: Found | None) -> tuple[str, ...]:
    if recipe.label and weigh:
        return tuple(f"{recipe.label} = {label}" for label in weigh.values["labels"])
    if recipe.targets:
        return ()
    return recipe.classes


def _classes(recipe: Recipe, weigh: Found | None) -> tuple[int, ...]:
    """Return the numbers of the classes that the learner separates."""
    if recipe.label and weigh:
        return tuple(range(len(weigh.values["labels"])))
    if recipe.targets:
        return ()
    return tuple(_class_numbers(recipe).values())


def _finished(recipe: Recipe, attempt: str, results: Results) -> Finished:
    matrix = _matrix(recipe, attempt, results)
    if recipe.continues:
        _kept(recipe.continues, "checkpoint", results)
    trained = _trained(_course(recipe, matrix, results), results)
    ends = list(trained)
    best = best_epoch([result["metrics"]["val_loss"] for result in trained.values()])
    last = ends[best]
    network = {item.name: getattr(last, item.name) for item in fields(Learning)}
    export = one(Export(**network, checkpoint=last.key), results)
    score = phase("score", score_levels(recipe, export, matrix.prepared, matrix.weigh, last.targets), results)
    ended, names = tuple(step.key for step in ends), _class_names(recipe, matrix.weigh)
    examine = one(
        Examine(
            data=matrix.prepared.key,
            spec=matrix.spec.values["columns"],
            export=export.key,
            score=score.key,
            classes=names,
            targets=last.targets,
        ),
        results,
    )
    evaluate = one(
        Evaluate(
            score=score.key,
            examine=examine.key,
            epochs=ended,
            best_epoch=best,
            classes=names,
            data=matrix.prepared.key,
            cuts=_cuts(recipe),
            targets=last.targets,
            samples=_samples(recipe, _headers(matrix.opened)),
        ),
        results,
    )
    gate = _gate(recipe, recipe.gate, attempt, matrix=matrix, export=export, results=results) if recipe.gate else None
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


def _gate(recipe: Recipe, wanted: Gate, attempt: str, *, matrix: _Matrix, export: Found, results: Results) -> Found:
    """Return the comparison of the new model with the last version on the sample, each by its own spec."""
    sample = _sample(recipe, wanted)
    opened = phase("gate", open_levels(sample, attempt), results)
    weigh = matrix.weigh if recipe.label else None
    scores = []
    for columns, graph in (
        (matrix.spec, export),
        (_kept(wanted.last, "spec", results), _kept(wanted.last, "export", results)),
    ):
        prepared = phase("gate", prepare_levels(sample, opened, columns, weigh), results)
        scores.append(phase("gate", score_levels(sample, graph, prepared, weigh), results).key)
    new, last = scores
    compare = Compare(metric=wanted.metric, fall=wanted.fall, model=wanted.last.model, score=new, last=last)
    return phase("gate", ((compare,),), results)


def _sample(recipe: Recipe, wanted: Gate) -> Recipe:
    """Return a recipe that reads all events of the gate's files as the run reads its own."""
    return replace(recipe, files=wanted.sample, n_events=-1)


def _sample_levels(recipe: Recipe, attempt: str, matrix: _Matrix, results: Results) -> list[Sequence[Step]]:
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


@dataclass(frozen=True)
class _Course:
    """The chain of a training, one list of segments per epoch.

    by_epoch: whether steps of the next epoch may differ from those of this one in more than their place, or there may
    be none. known: epochs whose results were read since the chain depends on them; None if it does not.
    """

    chain: list[list[Train]]
    by_epoch: bool
    known: int | None = None


def _course(recipe: Recipe, matrix: _Matrix, results: Results) -> _Course:
    """Return the chain of a training as far as the results say how it goes on. Raises: RequestError if one of the
    samples has no event."""
    _check_rows(_parts(matrix.prepared))
    schedule = recipe.learning_rate_schedule
    if recipe.patience is None and not (schedule and schedule.follows_results):
        factors = schedule.factors(recipe.epochs, ()) if schedule else ()
        return _Course(trains(recipe, matrix.spec, matrix.prepared, matrix.weigh, factors), bool(schedule))
    losses: list[float] = []
    results = functools.cache(results)
    while True:  # each turn reads the epochs up to the next change of the learning rate
        factors = schedule.factors(recipe.epochs, losses) if schedule else ()
        chain = trains(recipe, matrix.spec, matrix.prepared, matrix.weigh, factors)
        losses = _losses(chain, results)
        if not schedule or schedule.factors(recipe.epochs, losses) == factors:
            break
    stop = None if recipe.patience is None else n_epochs_until_stop(losses, recipe.patience, recipe.min_delta)
    return _Course(chain[:stop], True, min(len(losses), stop or len(losses)))


def _losses(chain: Sequence[Sequence[Train]], results: Results) -> list[float]:
    """Return the validation losses of the first epochs, up to one without a result."""
    ended = itertools.takewhile(lambda result: result is not None, (results(segments[-1].key) for segments in chain))
    return [result["metrics"]["val_loss"] for result in ended if result]


def _trained(course: _Course, results: Results) -> dict[Train, Mapping[str, Any]]:
    """Return the result of the last step of each epoch. Each step of a chain needs the one before, so a binary search
    finds the first without a result. Raises: Wait."""
    chain, segments = course.chain, len(course.chain[0])
    flat = [step for steps in chain for step in steps]
    first, stop = (0, len(flat)) if course.known is None else _epoch_after(course.known, segments, len(flat))
    done = bisect_left(flat, True, lo=first, hi=stop, key=lambda step: results(step.key) is None)
    n_ended = done // segments
    if n_ended and (results(chain[n_ended - 1][-1].key) or {}).get("stop"):  # a callback of the model's code
        done, chain = n_ended * segments, chain[:n_ended]
        flat = flat[:done]
    ends = [steps[-1] for steps in chain]
    missing = [flat[done]] if done < len(flat) else [end for end in ends if results(end.key) is None]
    if missing:
        raise Wait(Ready("train", ((missing[0],),), results, (done, len(flat)), segments, course.by_epoch))
    return {end: results(end.key) or {} for end in ends}


def _epoch_after(n_epochs: int, segments: int, n_steps: int) -> tuple[int, int]:
    """Return the first step of the epoch that follows, and the step after its last."""
    return n_epochs * segments, min((n_epochs + 1) * segments, n_steps)


def _class_weight(recipe: Recipe, parts: Sequence[PreparedPart], weigh: Found | None) -> tuple[float, ...]:
    """Return the factor of the event weights of each label, none if all are 1.

    Balanced: as in scikit-learn, the number of training events over that of the label and the number of labels.

    Raises: RequestError if the recipe names a label that no event has.
    """
    labels = tuple(weigh.values["labels"]) if recipe.label and weigh else recipe.labels
    if recipe.class_weight == "balanced" and weigh:
        raise RequestError("'class_weight': \"balanced\" counts events; with event weights use 'balance': true")
    if recipe.class_weight == "balanced":
        classes = _class_numbers(recipe).values()
        rows = [sum(part.rows[Split.TRAINING] for part in parts if part.label == number) for number in classes]
        factors = tuple(sum(rows) / (len(rows) * max(1, count)) for count in rows)
    else:
        given = dict(recipe.class_weight)
        unknown = sorted(set(given) - set(labels))
        if unknown:
            raise RequestError(f"class_weight names label {unknown[0]}; the labels are {', '.join(map(str, labels))}")
        factors = tuple(given.get(label, 1.0) for label in labels)
    return factors if set(factors) != {1.0} else ()


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
            events, rejected = sum(sum(part.rows) for part in parts), sum(sum(part.rejected) for part in parts)
            why = f"the cuts reject {rejected:,} of {events + rejected:,} events, and " if rejected else ""
            raise RequestError(f"the {split.label} sample has no event: {why}{events:,} events are too few to split")


def _shares(entries: Sequence[int], n_events: int) -> list[int]:
    """Return the events used of each file: all, or its share of the limit and at least one, as MLaaS4HEP does."""
    total = sum(entries)
    if n_events < 0 or n_events >= total:
        return list(entries)
    return [min(count, max(1, round(count / total * n_events))) for count in entries]
