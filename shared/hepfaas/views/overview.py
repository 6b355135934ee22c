"""Views of runs and model versions: lists, status, ledger. Everything is read from the store."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from hepfaas.errors import MissingError, RequestError, public_text
from hepfaas.models import versions
from hepfaas.orchestration import records, remarks
from hepfaas.orchestration.advancing import missing, phase_of
from hepfaas.orchestration.requesting import asked_for
from hepfaas.platform.address import place_of
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store
from hepfaas.runs import plan, prediction, preparation
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.cut_flow import CutFlow
from hepfaas.runs.differences import short_differences
from hepfaas.runs.kinds import AnyRecipe
from hepfaas.runs.ledger import CountedPart, Ledger, TrainedSegment, Training, ledger, prediction_ledger
from hepfaas.runs.phases import Finished, Input, Ready, Results
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.results import PreparedPart, ScoredPart, headers_of, prepared_parts, scored_parts
from hepfaas.runs.skipped import skipped_files
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import RangeStep, Train
from hepfaas.steps.objects import open_scores, part_of_fold, result_if_there, result_of
from hepfaas.training.split import event_ids, id_sum

PENDING, UNFINISHED = "pending", "unfinished"
ENDED = ("completed", "failed", "cancelled")
STATES = (UNFINISHED, *ENDED)
RATE_S = 60.0


@dataclass(frozen=True)
class Row:
    """One run in a list. files, epochs: of its recipe; model: '<name>/<version>' that it published, '' if none; tags:
    sorted."""

    run: str
    state: str
    kind: str
    files: int
    epochs: int | None
    created: str
    model: str
    tags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**asdict(self), "tags": list(self.tags)}


@dataclass(frozen=True)
class Listed:
    """One run in a list of several. differs: the first settings in which the listed trainings of its name differ. note:
    the last note on it."""

    row: Row
    recipe: AnyRecipe
    note: str
    differs: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**self.row.to_json(), "differs": self.differs, "note": self.note}


@dataclass(frozen=True)
class Progress:
    """How much of the present phase is done. Events and files are None in phases that read no entry ranges; the rate
    and the remaining seconds are None while they are unknown."""

    phase: str
    steps_done: int
    steps_of_phase: int
    events_done: int | None = None
    events_of_phase: int | None = None
    files_done: int | None = None
    files_of_phase: int | None = None
    events_per_s: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run with nothing left to do: result of the gate, test metrics of the model, numbers of scores."""

    phase: str = "finished"
    gate: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    scores: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Status:
    """Status of a run. What is None does not apply to it and is not in its JSON.

    places: hosts of the files, and how many files each has. served_by: events that each server has served. history:
    metrics of each complete epoch. cut_flow: after all events are prepared. retries, last_trouble: how often something
    was unavailable, and the last error. user_notes: notes of people on the run, oldest first.
    skipped_files: that cannot be read, with the reasons.
    """

    row: Row
    attempt: int
    places: Mapping[str, int]
    served_by: Mapping[str, Mapping[str, int]] | None = None
    submitter: Mapping[str, Any] | None = None
    notes: Sequence[str] | None = None
    user_notes: Sequence[Mapping[str, Any]] | None = None
    error: str | None = None
    refused: str | None = None
    failed_steps: Sequence[Mapping[str, str]] | None = None
    retries: int | None = None
    last_trouble: str | None = None
    history: Sequence[Mapping[str, Any]] | None = None
    stage: Progress | Outcome | None = None
    ledger: Ledger | None = None
    cut_flow: CutFlow | None = None
    skipped_files: Sequence[Mapping[str, str]] | None = None

    @property
    def state(self) -> str:
        """State of the run."""
        return self.row.state

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        apart = ("row", "history", "stage", "ledger", "cut_flow")
        values = {name: value for name, value in vars(self).items() if name not in apart}
        values |= {"epochs": self.history}
        values |= asdict(self.stage) if self.stage else {}
        values |= {"ledger": self.ledger.to_json() if self.ledger else None}
        values |= {"cut_flow": self.cut_flow.to_json() if self.cut_flow else None}
        return self.row.to_json() | {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ModelRow:
    """One model version in a list. Metrics are those of the test sample, None for models that were not trained here."""

    model: str
    features: int
    parameters: int
    events: int
    auc: float | None
    auc_uncertainty: float | None
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "model": self.model,
            "features": self.features,
            "parameters": self.parameters,
            "events": self.events,
            "AUC": self.auc,
            "±": self.auc_uncertainty,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Scored:
    """Result of a prediction: its parts, sorted by file and entries."""

    recipe: Prediction
    files: Sequence[Input]
    parts: Sequence[ScoredPart]


@dataclass(frozen=True)
class Pace:
    """Steps and events per second."""

    steps: float = 0.0
    events: float = 0.0


def runs(store: Store, tag: str = "") -> list[Listed]:
    """Return all runs, or those with a tag."""
    return compared([run for name in records.runs(store) if tag in ("", *(run := listed(store, name)).row.tags)])


def row(store: Store, run: str) -> Row:
    """Return the row of a run. Raises: RequestError if there is no such run."""
    request, tags = records.request_of(store, run), remarks.tags_of(store, run)
    return _row(run, request, records.last_end(store, run), tags)


def listed(store: Store, run: str) -> Listed:
    """Return a run for a list. Raises: RequestError if there is no such run."""
    request, known = records.request_of(store, run), remarks.remarks_of(store, run)
    note = remarks.note_at(store, known.notes[-1]).text if known.notes else ""
    return Listed(_row(run, request, records.last_end(store, run), known.tags), request.recipe, note)


def compared(listed: Sequence[Listed]) -> list[Listed]:
    """Return the runs of a list with what differs between the trainings of each name."""
    named: dict[str, list[Listed]] = {}
    for each in listed:
        if isinstance(each.recipe, Recipe):
            named.setdefault(each.recipe.name, []).append(each)
    differs = {
        each.row.run: text
        for group in named.values()
        if len(group) > 1
        for each, text in zip(group, short_differences([_values(one.recipe) for one in group]), strict=True)
    }
    return [replace(each, differs=differs.get(each.row.run, "")) for each in listed]


def _values(recipe: AnyRecipe) -> dict[str, Any]:
    """Return the values of a training as JSON, but its files as they are: there may be thousands."""
    assert isinstance(recipe, Recipe)
    return {**replace(recipe, files=()).to_json(), "files": recipe.files}


def pending(store: Store, run: str) -> Row | None:
    """Return the row of a run that another function requested and that has not begun; None if there is none."""
    request = None if records.is_deleted(store, run) else asked_for(store, run)
    return replace(_row(run, request, None, ()), state=PENDING) if request else None


def models(store: Store) -> list[ModelRow]:
    """Return a row for each model version."""
    return [_model_row(version, versions.card_of(store, version)) for version in versions.versions(store)]


def status(store: Store, run: str, verify: bool = False) -> Status:
    """Return the status of a run, with `verify` also its ledger. Raises: RequestError if there is no such run."""
    request, attempt = records.request_of(store, run), records.attempt(store, run)
    recipe, end = request.recipe, attempt.end  # read once: a run that ends meanwhile is shown by the next status
    troubles, given = records.troubles(store, run, attempt.number), remarks.remarks_of(store, run)
    known = Status(
        row=_row(run, request, end, given.tags),
        attempt=attempt.number,
        places=dict(Counter(map(place_of, recipe.urls))),
        served_by=records.served_by(store, run) or None,
        submitter={key: value for key, value in request.submitter.items() if key != "groups"} or None,
        notes=list(request.notes) or None,
        user_notes=[remarks.note_at(store, key).to_json() for key in given.notes] or None,
        error=(end.error if end else "") or None,
        refused=(end.refused if end else "") or None,
        failed_steps=[{"step": key, "error": error} for key, error in attempt.failed.items()] or None,
        retries=len(troubles) or None,
        last_trouble=records.trouble_at(store, troubles[-1]) if troubles else None,
        ledger=verified(store, run) if verify else None,
    )
    name, results = f"{run}/{attempt.number}", _results(store)
    try:
        coming = plan.next_steps(recipe, name, results)
        history, flow = None, None
        if isinstance(recipe, Recipe):
            history = _history(plan.chains_of(recipe, name, results), store)
            flow = plan.flow_of(recipe, name, results)
            skipped = skipped_files(recipe, preparation.headers(recipe, name, results))
            known = replace(
                known,
                notes=[*request.notes, *plan.notes(recipe, name, results)] or None,
                skipped_files=[one.to_json() for one in skipped] or None,
            )
    except RequestError as error:
        return replace(known, error=known.error or public_text(error))
    stage = _progress(store, run, attempt, coming) if isinstance(coming, Ready) else _outcome(store, coming)
    return replace(known, history=history, stage=stage, cut_flow=flow)


def verified(store: Store, run: str) -> Ledger:
    """Return the ledger of a run, its rows recounted from the stored parts. Raises: RequestError if it has no parts."""
    recipe = records.request_of(store, run).recipe
    if isinstance(recipe, Prediction):
        scores = scored(store, run)
        return prediction_ledger(scores.files, [_rescored(part, store) for part in scores.parts])
    if isinstance(recipe, Conversion):
        raise RequestError(f"run '{run}' is a conversion: it has no events to count")
    return _training_ledger(store, run, recipe, lambda part, fold: _recounted(part, store, fold))


def counted(store: Store, run: str, recipe: Recipe) -> Ledger:
    """Return the ledger of a training from the counts that its steps have stored, without reading the rows again.

    Raises: RequestError if it has no parts; MissingError if results were removed.
    """
    return _training_ledger(
        store, run, recipe, lambda part, _: CountedPart(part.file, part.entries, part.rows, part.id_sum, part.rejected)
    )


def _training_ledger(
    store: Store, run: str, recipe: Recipe, count: Callable[[PreparedPart, int | None], CountedPart]
) -> Ledger:
    attempt, results = _attempt(store, run), _results(store)
    chains = plan.chains_of(recipe, attempt, results)
    if not chains:
        raise RequestError(f"run '{run}' has not prepared all events yet: there is nothing to count")
    values = result_of(chains[0][0][0].data, store)
    headers = preparation.headers(recipe, attempt, results)
    seen = [[count(part, fold) for part in prepared_parts(values, fold)] for fold in recipe.fold_numbers]
    trainings = [
        Training(parts, _epochs(chain, store), chain[0][0].passes) for parts, chain in zip(seen, chains, strict=True)
    ]
    counted = ledger(preparation.inputs(recipe, headers), trainings)
    return replace(counted, skipped=tuple(skipped_files(recipe, headers)))


def scored(store: Store, run: str) -> Scored:
    """Return the scores of a prediction. Raises: RequestError if the run is not a prediction, or scores are missing."""
    recipe, attempt = records.request_of(store, run).recipe, _attempt(store, run)
    if not isinstance(recipe, Prediction):
        raise RequestError(f"run '{run}' is a {recipe.kind}: it has no scores")
    coming = plan.next_steps(recipe, attempt, _results(store))
    if not isinstance(coming, Finished) or coming.scores is None:
        raise RequestError(f"run '{run}' has not scored all events yet: GET /v1/runs/{run} shows its progress")
    headers = headers_of(result_of(prediction.open_levels(recipe, attempt)[-1][0].key, store))
    return Scored(recipe, prediction.inputs(recipe, headers), scored_parts(coming.scores))


def _results(store: Store) -> Results:
    def result(key: str) -> Mapping[str, Any] | None:
        if not key.startswith("steps/train/"):
            return result_if_there(key, store)
        with suppress(MissingError):
            return _trained(store, key)  # type: ignore[arg-type]  # a store is hashed by identity
        return None

    return result


def _attempt(store: Store, run: str) -> str:
    """Return the attempt that is under way, or the last one."""
    return f"{run}/{records.attempt(store, run).number}"


def _row(run: str, request: records.Request, end: records.End | None, tags: tuple[str, ...]) -> Row:
    return Row(
        run=run,
        state=end.state if end else UNFINISHED,
        kind=request.recipe.kind,
        files=len(request.recipe.urls),
        epochs=request.recipe.epochs if isinstance(request.recipe, Recipe) else None,
        created=utc(request.created),
        model=end.model if end else "",
        tags=tags,
    )


def _model_row(version: versions.Version, card: Mapping[str, Any]) -> ModelRow:
    test = card["metrics"].get("test", {})  # a model that was uploaded was not evaluated here
    return ModelRow(
        model=str(version),
        features=card["n_features"],
        parameters=card["parameters"],
        events=sum(file["events"] for file in card["data"]),
        auc=test.get("auc"),
        auc_uncertainty=test.get("auc_uncertainty"),
        accuracy=test.get("accuracy"),
    )


def _outcome(store: Store, finished: Finished) -> Outcome:
    metrics, scores = None, None
    if finished.model:
        version = versions.Version(finished.model["name"], finished.model["version"])
        with suppress(MissingError):  # it was deleted
            metrics = _main(versions.card_of(store, version)["metrics"].get("test", {}))
    if finished.scores is not None:
        parts = scored_parts(finished.scores)
        scores = {
            "events": sum(part.rows for part in parts),
            "surplus_events": sum(part.n_surplus for part in parts),
        }
    return Outcome(gate=finished.gate or None, metrics=metrics, scores=scores)


def _progress(store: Store, run: str, attempt: records.Attempt, coming: Ready) -> Progress:
    """Return the progress of the present phase, with the rate of the last minute."""
    steps = coming.levels[0]
    pace = _pace(store, run, steps[0].kind) if attempt.end is None else Pace()
    if coming.chain:
        done, total = coming.done, coming.total
        return Progress(coming.phase, done, total, eta_s=_seconds(total - done, pace.steps))
    n_sent = _n_sent(store, run, attempt, coming)
    undone = [*missing(coming.levels, n_sent, store), *range(n_sent, len(steps))]
    progress = Progress(coming.phase, len(steps) - len(undone), len(steps), eta_s=_seconds(len(undone), pace.steps))
    ranges = [step for step in steps if isinstance(step, RangeStep)]
    if not ranges:
        return progress
    events, files = sum(step.n_events for step in ranges), {step.file for step in ranges}
    undone_events = sum(ranges[index].n_events for index in undone)
    by_events = _seconds(undone_events, pace.events)
    return replace(
        progress,
        events_done=events - undone_events,
        events_of_phase=events,
        files_done=len(files) - len({ranges[index].file for index in undone}),
        files_of_phase=len(files),
        events_per_s=None if by_events is None else round(pace.events, 1),
        eta_s=progress.eta_s if by_events is None else by_events,
    )


def _n_sent(store: Store, run: str, attempt: records.Attempt, coming: Ready) -> int:
    """Return the number of steps that were sent and may have results; in a run without functions, all steps."""
    sent = records.sent(store, run, attempt.number, phase_of(coming))
    return max((slice_.first + slice_.count for slice_ in sent), default=len(coming.levels[0]))


def _pace(store: Store, run: str, kind: str) -> Pace:
    """Return the pace of the last minute's steps of a kind."""
    since = time.time() - RATE_S
    entries = [entry for entry in records.log_of(store, run, f"{int(since * 1e6):017d}") if entry.kind == kind]
    if not entries:
        return Pace()
    seconds = max(time.time() - min(entry.time - entry.seconds for entry in entries), 1e-3)
    return Pace(len(entries) / seconds, sum(entry.events for entry in entries) / seconds)


def _seconds(amount: int, per_s: float) -> float | None:
    """Return the seconds that an amount takes, None if nothing is left or the rate is unknown."""
    return round(amount / per_s, 1) if amount and per_s else None


def _history(chains: Sequence[Sequence[Sequence[Train]]], store: Store) -> list[dict[str, Any]]:
    """Return the metrics at the end of each complete epoch, with folds of one after the other."""
    history: list[dict[str, Any]] = []
    for fold, chain in enumerate(chains, 1):
        of_fold = {"fold": fold} if len(chains) > 1 else {}
        with suppress(MissingError):
            for number, segments in enumerate(chain, 1):
                result = _trained(store, segments[-1].key)  # type: ignore[arg-type]  # a store is hashed by identity
                history.append({**of_fold, "epoch": number, **result["metrics"]})
    return history


@functools.lru_cache(maxsize=10_000)
def _trained(store: Store, key: str) -> dict[str, Any]:
    """Return what a plan and a history need of the result of a train step. It never changes, and a client that follows
    a run reads it each second. Raises: MissingError."""
    result = result_of(key, store)
    return {"metrics": result["metrics"], "stop": bool(result.get("stop"))}


def _main(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that are single numbers, and the confusion matrix; `evaluation.json` has all."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) or name == "confusion"}


def _epochs(chain: Sequence[Sequence[Train]], store: Store) -> list[list[TrainedSegment]]:
    """Return the segments of each complete epoch."""
    epochs = []
    for segments in chain:
        results = [result for step in segments if (result := result_if_there(step.key, store)) is not None]
        if len(results) < len(segments):
            break
        epochs.append([TrainedSegment(result["rows"], result["id_sum"]) for result in results])
    return epochs


def _recounted(part: PreparedPart, store: Store, fold: int | None) -> CountedPart:
    """Return the counts of a prepared part from its rows; none where they are not the entries of its range."""
    seen, stored = part_of_fold(part.key, store, fold)
    splits = [stored.entries(number for number, _ in seen.batches(split)) for split in Split]
    is_whole = _are_entries([entry for entries in splits for entry in entries.tolist()], part)
    rows = tuple(len(entries) for entries in splits) if is_whole else (0, 0, 0)
    ids = id_sum(event_ids(part.file, splits[Split.TRAINING]))
    return CountedPart(part.file, part.entries, rows, ids, part.rejected)


def _are_entries(entries: Sequence[int], part: PreparedPart) -> bool:
    """Return whether these are all entries of a part's range but the rejected ones, each once."""
    start, stop = part.entries
    n_selected = stop - start - sum(part.rejected)
    return len(entries) == len(set(entries)) == n_selected and set(entries) <= set(range(start, stop))


def _rescored(part: ScoredPart, store: Store) -> CountedPart:
    """Return the counts of a scored part from its rows; none where they are not the entries of its range."""
    batches = open_scores(part.key, store).batches()
    entries = [entry for batch in batches for entry in batch.column("entry").to_pylist()]
    is_whole = entries == list(range(*part.entries))
    return CountedPart(part.file, part.entries, (len(entries) if is_whole else 0,))
