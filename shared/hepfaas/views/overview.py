"""What there is in a store, for a person: runs, how far one is, model versions. Everything is read from objects."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from hepfaas.errors import MissingError, RequestError, public_text
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.orchestration.advancing import missing, phase_of
from hepfaas.orchestration.requesting import asked_for
from hepfaas.platform.address import place_of
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store
from hepfaas.runs import plan, prediction
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.kinds import AnyRecipe
from hepfaas.runs.ledger import Ledger, ledger, prediction_ledger
from hepfaas.runs.opened import files_of
from hepfaas.runs.phases import Finished, Input, Ready
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.steps import Step, Train
from hepfaas.steps.objects import open_part, open_scores, result_if_there, result_of
from hepfaas.training.split import event_ids, id_sum

PENDING, UNFINISHED = "pending", "unfinished"
ENDED = ("completed", "failed", "cancelled")
STATES = (UNFINISHED, *ENDED)
RATE_S = 60.0


def runs(store: Store) -> list[dict[str, Any]]:
    """All runs: state, files, when they were asked for, the model that came out."""
    return [row(store, run) for run in records.runs(store)]


def models(store: Store) -> list[dict[str, Any]]:
    """All model versions with what their cards say."""
    return [_card_row(version, versions.card_of(store, version)) for version in versions.versions(store)]


def status(store: Store, run: str, verify: bool = False) -> dict[str, Any]:
    """State, phase, what of it is done and how fast, metrics so far, what went wrong; with `verify` the ledger."""
    request, attempt = records.request_of(store, run), records.attempt(store, run)
    found = _row(run, request, attempt.end)  # of one look: what ends meanwhile is told by the next
    found |= {"attempt": attempt.number, "places": _places(request.recipe)}
    found |= {"served_by": doors} if (doors := records.served_by(store, run)) else {}
    submitter = {key: value for key, value in request.submitter.items() if key != "groups"}
    found |= {"submitter": submitter} if submitter else {}
    found |= {"notes": list(request.notes)} if request.notes else {}
    found |= {name: text for name in ("error", "refused") if (text := getattr(attempt.end, name, ""))}
    found |= _troubles(store, run, attempt)
    name = f"{run}/{attempt.number}"
    try:
        coming = plan.next_steps(request.recipe, name, lambda key: result_if_there(key, store))
        if isinstance(request.recipe, Recipe):
            history = _history(_chain(request.recipe, name, store), store)
            found["epochs"] = [{"epoch": number, **metrics} for number, metrics in enumerate(history, 1)]
    except RequestError as error:
        found.setdefault("error", public_text(error))
    else:
        if isinstance(coming, Ready):
            found |= _progress(store, run, attempt, coming)
        else:
            found |= _outcome(store, coming)
    if verify:
        found["ledger"] = recounted(store, run)
    return found


def _outcome(store: Store, finished: Finished) -> dict[str, Any]:
    """What came out of a run that has nothing left to do."""
    found: dict[str, Any] = {"phase": "finished"}
    if finished.gate:
        found["gate"] = dict(finished.gate)
    if finished.model:
        version = versions.Version(finished.model["name"], finished.model["version"])
        with suppress(MissingError):  # it was deleted
            found["metrics"] = versions.card_of(store, version)["metrics"].get("test", {})
    if finished.scores is not None:
        parts = finished.scores["parts"]
        found["scores"] = {name: sum(part[key] for part in parts) for name, key in _COUNTED}
    return found


_COUNTED = (("events", "rows"), ("surplus_events", "n_surplus"))


def _progress(store: Store, run: str, attempt: records.Attempt, coming: Ready) -> dict[str, Any]:
    """Of the present phase: steps, events and files done of all; from what was done in the last minute the rate."""
    steps = coming.levels[0]
    pace = _pace(store, run, steps[0].kind) if attempt.end is None else Pace()
    if coming.chain:
        done, total = coming.chain
        return {"phase": coming.phase, "steps_done": done, "steps_of_phase": total, **pace.left(total - done)}
    left = missing(coming.levels, _sent_until(store, run, attempt, coming), store)
    unsent = len(steps) - _sent_until(store, run, attempt, coming)
    found = {
        "phase": coming.phase,
        "steps_done": len(steps) - len(left) - unsent,
        "steps_of_phase": len(steps),
    }
    events = [_events_of(step) for step in steps]
    if not any(events):
        return found | pace.left(len(left) + unsent)
    undone = [*left, *range(len(steps) - unsent, len(steps))]
    done_events = sum(events) - sum(events[index] for index in undone)
    files = Counter(getattr(step, "file", "") for step in steps)
    open_files = {getattr(steps[index], "file", "") for index in undone}
    found |= {"events_done": done_events, "events_of_phase": sum(events)}
    found |= {"files_done": len(files) - len(open_files), "files_of_phase": len(files)}
    return found | pace.left(len(left) + unsent, sum(events) - done_events)


def _sent_until(store: Store, run: str, attempt: records.Attempt, coming: Ready) -> int:
    """Steps up to which something may be there: those sent; in a run without functions all."""
    sent = records.sent(store, run, attempt.number, phase_of(coming))
    return max((part.first + part.count for part in sent), default=len(coming.levels[0]))


@dataclass(frozen=True)
class Pace:
    """Steps and events a second."""

    steps: float = 0.0
    events: float = 0.0

    def left(self, steps: int, events: int = 0) -> dict[str, float]:
        """How long so much takes, if that can be told yet."""
        if events and self.events:
            return {"events_per_s": round(self.events, 1), "eta_s": round(events / self.events, 1)}
        return {"eta_s": round(steps / self.steps, 1)} if steps and self.steps else {}


def _pace(store: Store, run: str, kind: str) -> Pace:
    """That of the last minute's steps of a kind."""
    since = time.time() - RATE_S
    entries = [entry for entry in records.log_of(store, run, f"{int(since * 1e6):017d}") if entry.kind == kind]
    if not entries:
        return Pace()
    seconds = max(time.time() - min(entry.time - entry.seconds for entry in entries), 1e-3)
    return Pace(len(entries) / seconds, sum(entry.events for entry in entries) / seconds)


def _events_of(step: Step) -> int:
    start, stop = getattr(step, "entries", (0, 0))
    return int(stop) - int(start)


def _troubles(store: Store, run: str, attempt: records.Attempt) -> dict[str, Any]:
    """Steps that cannot be done and why, and how often something was away and what it was last."""
    found: dict[str, Any] = {}
    if attempt.failed:
        found["failed_steps"] = [{"step": key, "error": error} for key, error in attempt.failed.items()]
    keys = records.troubles(store, run, attempt.number)
    if keys:
        found |= {"retries": len(keys), "last_trouble": records.trouble_at(store, keys[-1])}
    return found


def _places(recipe: AnyRecipe) -> dict[str, int]:
    """Where the files are: hosts, and how many of them each is to have."""
    return dict(Counter(map(place_of, recipe.urls)))


def recounted(store: Store, run: str) -> dict[str, Any]:
    """What `verified` finds, as JSON values."""
    counted = verified(store, run)
    return {**asdict(counted), "findings": list(counted.findings), "holds": counted.holds}


def verified(store: Store, run: str) -> Ledger:
    """The ledger of a run, its rows counted anew from the stored parts."""
    recipe, attempt = records.request_of(store, run).recipe, _attempt(store, run)
    if isinstance(recipe, Prediction):
        made = scored(store, run)
        return prediction_ledger(made.files, [_rescored(part, store) for part in made.parts])
    if isinstance(recipe, Conversion):
        raise RequestError(f"run '{run}' is a conversion: it has no events to count")
    chain = _chain(recipe, attempt, store)
    if not chain:
        raise RequestError(f"run '{run}' has not prepared all events yet: there is nothing to count")
    opened = plan.opened_files(recipe, attempt, lambda key: result_if_there(key, store))
    prepared = result_of(chain[0][0].data, store)
    parts = [_recounted(part, store) for part in prepared["parts"]]
    return ledger(plan.inputs(recipe, opened), parts, _epochs(chain, store))


def pending(store: Store, run: str) -> dict[str, Any] | None:
    """A run that another function asked for and that has not begun yet; None if nobody did."""
    request = None if records.is_deleted(store, run) else asked_for(store, run)
    return {**_row(run, request, None), "state": PENDING} if request else None


@dataclass(frozen=True)
class Scored:
    """What a prediction has made: the parts, in the order of its files and their entries."""

    recipe: Prediction
    files: Sequence[Input]
    parts: Sequence[Mapping[str, Any]]


def scored(store: Store, run: str) -> Scored:
    """Raises: RequestError if the run is no prediction, or its scores are not all there."""
    recipe, attempt = records.request_of(store, run).recipe, _attempt(store, run)
    if not isinstance(recipe, Prediction):
        raise RequestError(f"run '{run}' is a {recipe.kind}: it has no scores")
    found = plan.next_steps(recipe, attempt, lambda key: result_if_there(key, store))
    if not isinstance(found, Finished) or found.scores is None:
        raise RequestError(f"run '{run}' has not scored all events: GET /v1/runs/{run} tells how far it is")
    opened = files_of(result_of(prediction.open_levels(recipe, attempt)[-1][0].key, store))
    return Scored(recipe, prediction.inputs(recipe, opened), found.scores["parts"])


def _rescored(part: Mapping[str, Any], store: Store) -> dict[str, Any]:
    start, stop = part["entries"]
    batches = open_scores(part["key"], store).batches()
    entries = [entry for batch in batches for entry in batch.column("entry").to_pylist()]
    once = entries == list(range(start, stop))
    return {"file": part["file"], "entries": part["entries"], "rows": [len(entries) if once else 0]}


def _attempt(store: Store, run: str) -> str:
    """The attempt that is under way, or the last of a run that has ended."""
    return f"{run}/{records.attempt(store, run).number}"


def row(store: Store, run: str) -> dict[str, Any]:
    """One run in a list: state, files, when it was asked for, the model that came out."""
    return _row(run, records.request_of(store, run), records.last_end(store, run))


def _row(run: str, request: records.Request, end: records.End | None) -> dict[str, Any]:
    return {
        "run": run,
        "state": end.state if end else UNFINISHED,
        "kind": request.recipe.kind,
        "files": len(request.recipe.urls),
        "epochs": request.recipe.epochs if isinstance(request.recipe, Recipe) else None,
        "created": utc(request.created),
        "model": end.model if end else "",
    }


def _card_row(version: versions.Version, card: Mapping[str, Any]) -> dict[str, Any]:
    test = card["metrics"].get("test", {})  # a model that was uploaded was not evaluated here
    return {
        "model": str(version),
        "features": card["n_features"],
        "parameters": card["parameters"],
        "events": sum(file["events"] for file in card["data"]),
        "AUC": test.get("auc"),
        "±": test.get("auc_uncertainty"),
        "accuracy": test.get("accuracy"),
    }


def _chain(recipe: Recipe, attempt: str, store: Store) -> list[list[Train]]:
    return plan.chain_of(recipe, attempt, lambda key: result_if_there(key, store))


def _history(chain: Sequence[Sequence[Train]], store: Store) -> list[dict[str, Any]]:
    """Metrics at the end of each epoch that is complete."""
    metrics = []
    with suppress(MissingError):
        for segments in chain:
            metrics.append(_metrics_of(store, segments[-1].key))  # type: ignore[arg-type]  # a store is itself alone
    return metrics


@functools.lru_cache(maxsize=10_000)
def _metrics_of(store: Store, key: str) -> dict[str, Any]:
    """Those of a train step, which never change: who follows a run asks for them each second."""
    return dict(result_of(key, store)["metrics"])


def _epochs(chain: Sequence[Sequence[Train]], store: Store) -> list[list[dict[str, Any]]]:
    """Results of the train steps of each epoch that is complete."""
    epochs = []
    for segments in chain:
        found = [result_if_there(step.key, store) for step in segments]
        results = [result for result in found if result is not None]
        if len(results) < len(segments):
            break
        epochs.append(results)
    return epochs


def _recounted(part: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """What a part's rows say: their entries, counted again, and the sum of the training rows' ids."""
    size_bytes = store.size_bytes(part["key"])
    if size_bytes is None:
        raise MissingError(part["key"], store.url)
    stored = open_part(part["key"], size_bytes, store)
    entries = [stored.entries(split) for split in range(3)]
    start, stop = part["entries"]
    once = sorted(entry for some in entries for entry in some.tolist()) == list(range(start, stop))
    return {
        "file": part["file"],
        "entries": part["entries"],
        "rows": [len(some) for some in entries] if once else [0, 0, 0],
        "id_sum": id_sum(event_ids(part["file"], entries[0])),
    }
