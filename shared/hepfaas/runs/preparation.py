"""The plan of a training up to its prepared events: open, survey, spec, weigh and prepare steps. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.expressions.patterns import matching
from hepfaas.runs.old_specs import check_branches, check_events
from hepfaas.runs.phases import (
    KEPT,
    Found,
    Input,
    Levels,
    Results,
    check_distinct,
    cut,
    one,
    phase,
    tree_of,
)
from hepfaas.runs.recipe import Earlier, LabelledFile, Recipe, Sample
from hepfaas.runs.results import Header, PreparedPart, headers_of, prepared_parts
from hepfaas.runs.skipped import read_files
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import (
    IDENTIFIERS,
    Open,
    Prepare,
    Spec,
    Survey,
    Weigh,
)
from hepfaas.runs.targets import Row, Target

MOST_FLOWS = 500_000
"""Files × cuts of a run with weights."""


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
            tree=recipe.tree_of(file),
            usual_tree=recipe.tree,
            selected=recipe.selected,
            excluded=recipe.excluded,
            identifiers=recipe.identifiers,
            range_events=recipe.range_events,
            attempt=attempt,
            removed=removed,
            preprocessing=recipe.preprocessing.text,
            expressions=_expressions(recipe, file),
            sum_of_weights=sums.get(file.sample, ""),
            titles=recipe.plots.branch_titles,
            skips=recipe.unreadable_files == "skip",
            dtype=recipe.dtype,
            record_function=recipe.record_function,
        )
        for file in recipe.files
    ]


def _telling(recipe: Recipe) -> tuple[str, ...]:
    """Return the names in the weights, the label and the fold of events that are not selected by name. As features they
    could tell the class, and data do not have all of them. An identifier that gives the fold stays an identifier."""
    weights = [recipe.weight, *(sample.weight for sample in recipe.samples)]
    used = _names_in(recipe.label, *weights)
    if recipe.folds:
        names = _names_in(recipe.folds.by)
        used |= names.difference(*(matching(name, list(names)) for name in recipe.identifiers or IDENTIFIERS))
    return tuple(sorted(used.difference(recipe.selected, recipe.excluded)))


def _names_in(*texts: str) -> set[str]:
    return {name for text in texts if text for name in parse(text, "params.json").names}


def _expressions(recipe: Recipe, file: LabelledFile) -> tuple[str, ...]:
    """Return the expressions that give one number for each event of a file: weight, label, spectators, targets, which
    events are not test events, and the fold."""
    weighting, by = recipe.weighting(file.sample), recipe.folds.by if recipe.folds else ""
    texts = [*weighting.expressions, *recipe.spectators, *recipe.targets, recipe.split.training, by]
    return tuple(filter(None, dict.fromkeys(texts)))


def inputs(recipe: Recipe, headers: Sequence[Header]) -> list[Input]:
    """Return the files that are read, each with its share of the event limit. headers: of all files of the recipe.

    Raises: RequestError if they do not match, or too many are skipped.
    """
    read = read_files(recipe, headers)
    _check_files(read)
    shares = _shares([header.entries for _, header in read], recipe.n_events)
    files = [
        Input(file.url, file.label, header.identity, cut(header.ranges, 0, share), recipe.tree_of(file))
        for (file, header), share in zip(read, shares, strict=True)
    ]
    with_events = {file.label for file in files if file.entries}
    if not (recipe.label or recipe.targets) and len(with_events) < len(recipe.labels):
        empty = sorted(set(recipe.labels) - with_events)
        trees = dict.fromkeys(file.tree for file in files if file.label in empty)
        raise RequestError(
            f"label {', '.join(map(str, empty))} has no event in TTree '{', '.join(trees)}' of its files; "
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
    headers = headers_in(opened)
    files = list(zip(read_files(recipe, headers), inputs(recipe, headers), strict=True))
    _check_specs(recipe, [listed for listed, _ in files])
    branches, preprocessing = files[0][0][1].branches, recipe.preprocessing.text
    weightings = _weightings(recipe) if recipe.is_weighted else {}
    moments, histograms = (recipe.features.scaled_by(kind, branches) for kind in ("standard", "robust"))
    steps = [
        Survey(
            file=file.identity,
            tree=file.tree,
            branches=branches,
            entries=entries,
            inputs=read,
            preprocessing=preprocessing,
            weighting=weightings.get(listed.sample, ""),
            moments=moments,
            histograms=histograms,
            targets=recipe.targets,
            url=file.url,
            layout=header.layout,
        )
        for (listed, header), file in files
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
    columns, headers = spec.values["columns"], headers_in(opened)
    classes, targets = class_numbers(recipe), targets_of(recipe, spec)
    weightings = _weightings(recipe) if weigh else {}
    steps = [
        Prepare(
            file=file.identity,
            tree=file.tree,
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
            folds=recipe.folds.text if recipe.folds else "",
            url=file.url,
            layout=header.layout,
        )
        for (listed, header), file in zip(read_files(recipe, headers), inputs(recipe, headers), strict=True)
        for entries in file.ranges
    ]
    return tree_of(steps)


def class_numbers(recipe: Recipe) -> dict[int, int]:
    """Return the number of the class of each label of a file; the events of a regression are of one class."""
    return {label: 0 if recipe.targets else number for number, label in enumerate(recipe.labels)}


def targets_of(recipe: Recipe, spec: Found) -> tuple[Row, ...]:
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


def headers(recipe: Recipe, attempt: str, results: Results) -> list[Header]:
    """Return the header of each file, also of those that are skipped; none before all files are opened."""
    root = results(open_levels(recipe, attempt)[-1][0].key)
    return headers_of(root) if root else []


def surveys(recipe: Recipe, attempt: str, results: Results) -> list[Survey]:
    """Return the survey steps; none before all files are opened."""
    key = open_levels(recipe, attempt)[-1][0].key
    opened = results(key)
    steps = survey_levels(recipe, Found(key, opened))[0] if opened else ()
    return [step for step in steps if isinstance(step, Survey)]


@dataclass(frozen=True)
class Preparation:
    """Results of the phases before training."""

    opened: Found
    spec: Found
    prepared: Found
    weigh: Found | None


def preparation_of(recipe: Recipe, attempt: str, results: Results) -> Preparation:
    if recipe.gate and recipe.targets:
        raise RequestError("a gate compares classifiers, and the run has a 'target'; leave one of them out")
    if recipe.folds and (recipe.gate or recipe.continues):
        other = "a gate" if recipe.gate else "a training that continues from an earlier version"
        raise RequestError(
            f"{other} needs events that no network has learned, and with 'folds' each event is learned "
            "by some; leave one of them out"
        )
    opened = phase("open", open_levels(recipe, attempt), results)
    spec = earlier_result(recipe.continues, "spec", results) if recipe.continues else spec_of(recipe, opened, results)
    weigh = _weigh(recipe, opened, results) if recipe.is_weighted else None
    prepared = phase("prepare", prepare_levels(recipe, opened, spec, weigh), results)
    return Preparation(opened, spec, prepared, weigh)


def spec_of(recipe: Recipe, opened: Found, results: Results) -> Found:
    survey = phase("survey", survey_levels(recipe, opened), results)
    _, first = read_files(recipe, headers_in(opened))[0]
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
        record_function=recipe.record_function,
        ranges=recipe.specs.text,
    )
    return one(step, results)


def _weigh(recipe: Recipe, opened: Found, results: Results) -> Found:
    survey = phase("survey", survey_levels(recipe, opened), results)
    files, classes = read_files(recipe, headers_in(opened)), class_numbers(recipe)
    step = Weigh(
        survey=survey.key,
        files=tuple(
            (header.identity, -1 if recipe.label else classes[file.label], file.sample) for file, header in files
        ),
        samples=tuple(_normalisation(recipe, sample, files) for sample in recipe.samples),
        weighting=recipe.weighting("").text,
    )
    return one(step, results)


def _normalisation(
    recipe: Recipe, sample: Sample, files: Sequence[tuple[LabelledFile, Header]]
) -> tuple[str, float | None, tuple[str, ...]]:
    """Return name, luminosity × cross section (None: not normalised) and sums of weights of a sample, as `Weigh` takes
    them. With an event limit, a sum over all generated events counts for the share of events that is used."""
    if sample.cross_section is None:
        return sample.name, None, ()
    factor = sample.cross_section * (1.0 if recipe.luminosity is None else recipe.luminosity)
    if sample.sum_of_weights is None:
        return sample.name, factor, ()
    own = [number for number, (file, _) in enumerate(files) if file.sample == sample.name]
    entries = [header.entries for _, header in files]
    shares = _shares(entries, recipe.n_events)
    factor *= sum(entries[number] for number in own) / max(1, sum(shares[number] for number in own))
    if isinstance(sample.sum_of_weights, str):
        return sample.name, factor, tuple(files[number][1].sum_of_weights for number in own)
    return sample.name, factor, (json.dumps(sample.sum_of_weights),)


def class_names(recipe: Recipe, weigh: Found | None) -> tuple[str, ...]:
    if recipe.label and weigh:
        return tuple(f"{recipe.label} = {label}" for label in weigh.values["labels"])
    if recipe.targets:
        return ()
    return recipe.classes


def classes(recipe: Recipe, weigh: Found | None) -> tuple[int, ...]:
    """Return the numbers of the classes that the learner separates."""
    if recipe.label and weigh:
        return tuple(range(len(weigh.values["labels"])))
    if recipe.targets:
        return ()
    return tuple(class_numbers(recipe).values())


def earlier_result(earlier: Earlier, part: Literal["spec", "checkpoint", "export"], results: Results) -> Found:
    """Return a result that an earlier version was made of. Raises: RequestError if it is lost, as no step makes it."""
    key = {"spec": earlier.spec, "checkpoint": earlier.checkpoint, "export": earlier.export}[part]
    values = results(key)
    if values is None:
        raise RequestError(
            f"the {part} of model '{earlier.model}' ({key}) is not in the store any more, so no model can be compared "
            "with it or continue from it; train on all files again"
        )
    return Found(key, values)


def _check_files(files: Sequence[tuple[LabelledFile, Header]]) -> None:
    check_distinct([file.address for file, _ in files], [header for _, header in files])
    first, header_of_first = files[0]
    for file, header in files:
        _check_branches(first.address, header_of_first, file.address, header)


def _check_specs(recipe: Recipe, files: Sequence[tuple[LabelledFile, Header]]) -> None:
    """Raise RequestError if the ranges that came with the run are of other files."""
    if not recipe.specs:
        return
    (file, first), *_ = files
    has_all = not (recipe.selected or recipe.excluded or recipe.preprocessing or first.extra)
    others = [*first.identifiers, *(name for name, _ in first.left_out)] if has_all else None
    check_branches(recipe.specs, dict(first.features), others, file.address)
    entries = {file.address: header.entries for file, header in files}
    check_events(recipe.specs, entries, bool(recipe.preprocessing.cuts))


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
def headers_in(opened: Found) -> list[Header]:
    return headers_of(opened.values)


@functools.lru_cache(maxsize=KEPT)
def parts_in(prepared: Found, fold: int | None = None) -> list[PreparedPart]:
    """Return the prepared parts as the network of a fold sees them."""
    return prepared_parts(prepared.values, fold)


def check_rows(parts: Sequence[PreparedPart], fold: int | None = None) -> None:
    for split in Split:
        if not any(part.rows[split] for part in parts):
            events, rejected = sum(sum(part.rows) for part in parts), sum(sum(part.rejected) for part in parts)
            why = f"the cuts reject {rejected:,} of {events + rejected:,} events, and " if rejected else ""
            of = "" if fold is None else f" of fold {fold + 1}"
            raise RequestError(
                f"the {split.label} sample{of} has no event: {why}{events:,} events are too few to split"
            )


def _shares(entries: Sequence[int], n_events: int) -> list[int]:
    """Return the events used of each file: all, or its share of the limit and at least one, as MLaaS4HEP does."""
    total = sum(entries)
    if n_events < 0 or n_events >= total:
        return list(entries)
    return [min(count, max(1, round(count / total * n_events))) for count in entries]
