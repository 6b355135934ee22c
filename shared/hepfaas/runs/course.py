"""The course of a training: the chain of its train steps, early stopping and learning rates. Pure."""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs import epochs
from hepfaas.runs.phases import (
    KEPT,
    Found,
    Ready,
    Results,
    Wait,
)
from hepfaas.runs.preparation import (
    Preparation,
    check_rows,
    class_numbers,
    classes,
    parts_in,
    targets_of,
)
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.results import PreparedPart
from hepfaas.runs.schedule import n_epochs_until_stop
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import (
    Train,
)


@functools.lru_cache(maxsize=KEPT)
def trains(
    recipe: Recipe,
    spec: Found,
    prepared: Found,
    weigh: Found | None = None,
    factors: tuple[float, ...] = (),
    fold: int | None = None,
) -> list[list[Train]]:
    """Return the train steps, one list of segments per epoch. Raises: RequestError if there are too many.

    factors: of the learning rate in each epoch, none if there is no schedule.
    """
    rows = sum(part.rows[Split.TRAINING] for part in parts_in(prepared, fold))
    n_features = int(spec.values["n_features"])
    labels = classes(recipe, weigh)
    segment_rows = recipe.segment_rows or epochs.usual_segment_rows(n_features)
    before = recipe.continues.checkpoint if recipe.continues else None
    n_chunks = _n_chunks(recipe, parts_in(prepared, fold))
    n_segments = epochs.n_segments(rows, segment_rows, n_chunks)
    if recipe.epochs * n_segments * len(recipe.fold_numbers) > epochs.MOST_TRAINS:
        each = f" of each of {len(recipe.fold_numbers)} folds" if recipe.folds else ""
        raise RequestError(
            f"{recipe.epochs:,} epochs of {n_segments:,} segments{each} are more than {epochs.MOST_TRAINS:,} steps of "
            "training; ask for fewer 'epochs' or more 'segment_rows'"
        )
    targets = targets_of(recipe, spec)
    class_weight = () if targets else _class_weight(recipe, parts_in(prepared, fold), weigh)
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
                fold=fold,
                spec=spec.values.get("columns", ""),
                learning_rate=rate if factor is None or rate is None else rate * factor,
                rate_factor=factor if rate is None else None,
                chunks=n_chunks,
                passes=recipe.epochs if n_chunks else 0,
            )
            chain[-1].append(step)
            before = step.key
    return chain


def _n_chunks(recipe: Recipe, parts: Sequence[PreparedPart]) -> int:
    """Return into how many chunks the training events are cut; 0 if one chunk has them all. No chunk is empty."""
    if recipe.chunk_events is None:
        return 0
    rows: Counter[int] = Counter()
    for part in parts:
        rows[part.label] += part.rows[Split.TRAINING]
    events = sum(sum(part.rows) for part in parts)
    count = min(-(-events // recipe.chunk_events), max(rows.values()))
    return count if count > 1 else 0


def _xla(recipe: Recipe, rows: int) -> bool | None:
    """Return whether to use XLA. None leaves it to the learner, which knows the network."""
    return recipe.xla if recipe.xla is not None or epochs.pays_for_xla(rows) else False


def following(step: Train, segments: int, n_epochs: int) -> Train | None:
    """Return the step after this one in a chain of `n_epochs` epochs of `segments` steps; None after the last."""
    epoch, segment = divmod(step.epoch * segments + step.segment + 1, segments)
    return None if epoch == n_epochs else replace(step, before=step.key, epoch=epoch, segment=segment)


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
class Course:
    """The chain of a training, one list of segments per epoch.

    by_epoch: whether steps of the next epoch may differ from those of this one in more than their place, or there may
    be none. known: epochs whose results were read since the chain depends on them; None if it does not.
    """

    chain: list[list[Train]]
    by_epoch: bool
    known: int | None = None


def course_of(recipe: Recipe, matrix: Preparation, results: Results, fold: int | None = None) -> Course:
    """Return the chain of the training of a fold, or the only one, as far as the results say how it goes on.

    Raises: RequestError if one of the samples has no event.
    """
    check_rows(parts_in(matrix.prepared, fold), fold)
    schedule = recipe.learning_rate_schedule
    if recipe.patience is None and not (schedule and schedule.follows_results):
        factors = schedule.factors(recipe.epochs, ()) if schedule else ()
        return Course(trains(recipe, matrix.spec, matrix.prepared, matrix.weigh, factors, fold), bool(schedule))
    losses: list[float] = []
    results = functools.cache(results)
    while True:  # each turn reads the epochs up to the next change of the learning rate
        factors = schedule.factors(recipe.epochs, losses) if schedule else ()
        chain = trains(recipe, matrix.spec, matrix.prepared, matrix.weigh, factors, fold)
        losses = _losses(chain, results)
        if not schedule or schedule.factors(recipe.epochs, losses) == factors:
            break
    stop = None if recipe.patience is None else n_epochs_until_stop(losses, recipe.patience, recipe.min_delta)
    return Course(chain[:stop], True, min(len(losses), stop or len(losses)))


def _losses(chain: Sequence[Sequence[Train]], results: Results) -> list[float]:
    """Return the validation losses of the first epochs, up to one without a result."""
    ended = itertools.takewhile(lambda result: result is not None, (results(segments[-1].key) for segments in chain))
    return [result["metrics"]["val_loss"] for result in ended if result]


def trained(course: Course, results: Results) -> dict[Train, Mapping[str, Any]]:
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
        classes = class_numbers(recipe).values()
        rows = [sum(part.rows[Split.TRAINING] for part in parts if part.label == number) for number in classes]
        factors = tuple(sum(rows) / (len(rows) * max(1, count)) for count in rows)
    else:
        given = dict(recipe.class_weight)
        unknown = sorted(set(given) - set(labels))
        if unknown:
            raise RequestError(f"class_weight names label {unknown[0]}; the labels are {', '.join(map(str, labels))}")
        factors = tuple(given.get(label, 1.0) for label in labels)
    return factors if set(factors) != {1.0} else ()
