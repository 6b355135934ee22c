"""What there is in a store, for a person: runs, how far one is, model versions. Everything is read from objects."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from hepfaas.errors import MissingError, RequestError
from hepfaas.models import versions
from hepfaas.platform import records
from hepfaas.platform.storage import Store
from hepfaas.runs import plan
from hepfaas.runs.ledger import Ledger, ledger
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.steps import Step, Train
from hepfaas.service.advancing import missing, phase_of
from hepfaas.steps.objects import open_part, result_if_there, result_of
from hepfaas.training.split import event_ids, id_sum

UNFINISHED = "unfinished"
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
    found |= {"attempt": attempt.number, "served_by": _doors(request.recipe)}
    found |= {"notes": list(request.notes)} if request.notes else {}
    found |= {"error": attempt.end.error} if attempt.end and attempt.end.error else {}
    found |= _troubles(store, run, attempt)
    name = f"{run}/{attempt.number}"
    try:
        coming = plan.next_steps(request.recipe, name, lambda key: result_if_there(key, store))
        chain = _epochs(_chain(request.recipe, name, store), store)
        found["epochs"] = [{"epoch": number, **epoch[-1]["metrics"]} for number, epoch in enumerate(chain, 1)]
    except RequestError as error:
        found.setdefault("error", str(error))
    else:
        if isinstance(coming, plan.Ready):
            found |= _progress(store, run, attempt, coming)
        else:
            version = versions.Version(coming.model["name"], coming.model["version"])
            found |= {"phase": "finished", "metrics": versions.card_of(store, version)["metrics"]["test"]}
    if verify:
        counted = verified(store, run)
        found["ledger"] = {**asdict(counted), "findings": list(counted.findings), "holds": counted.holds}
    return found


def _progress(store: Store, run: str, attempt: records.Attempt, coming: plan.Ready) -> dict[str, Any]:
    """Of the present phase: steps, events and files done of all; from what was done in the last minute the rate."""
    steps = coming.levels[0]
    if coming.chain:
        done, total = coming.chain
        return {"phase": coming.phase, "steps_done": done, "steps_of_phase": total}
    left = missing(coming.levels, _sent_until(store, run, attempt, coming), store)
    unsent = len(steps) - _sent_until(store, run, attempt, coming)
    found = {
        "phase": coming.phase,
        "steps_done": len(steps) - len(left) - unsent,
        "steps_of_phase": len(steps),
    }
    events = [_events_of(step) for step in steps]
    if not any(events):
        return found
    undone = [*left, *range(len(steps) - unsent, len(steps))]
    done_events = sum(events) - sum(events[index] for index in undone)
    files = Counter(getattr(step, "file", "") for step in steps)
    open_files = {getattr(steps[index], "file", "") for index in undone}
    found |= {"events_done": done_events, "events_of_phase": sum(events)}
    found |= {"files_done": len(files) - len(open_files), "files_of_phase": len(files)}
    rate = _rate(store, run, coming.phase)
    if rate and attempt.end is None:
        found |= {"events_per_s": round(rate, 1), "eta_s": round((sum(events) - done_events) / rate, 1)}
    return found


def _sent_until(store: Store, run: str, attempt: records.Attempt, coming: plan.Ready) -> int:
    """Steps up to which something may be there: those sent; in a run without functions all."""
    sent = records.sent(store, run, attempt.number, phase_of(coming))
    return max((part.first + part.count for part in sent), default=len(coming.levels[0]))


def _rate(store: Store, run: str, kind: str) -> float:
    """Events a second in the last minute's steps of a kind."""
    since = time.time() - RATE_S
    entries = [entry for entry in records.log_of(store, run, f"{int(since * 1e6):017d}") if entry.kind == kind]
    if not entries:
        return 0.0
    began = min(entry.time - entry.seconds for entry in entries)
    return sum(entry.events for entry in entries) / max(time.time() - began, 1e-3)


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


def _doors(recipe: Recipe) -> dict[str, int]:
    """Who serves the data: hosts, and how many of the files each."""
    places = (urlsplit(file.url) for file in recipe.files)
    return dict(Counter(place.netloc if place.scheme else "disk" for place in places))


def verified(store: Store, run: str) -> Ledger:
    """The ledger of a run, its rows counted anew from the stored parts."""
    recipe, attempt = records.request_of(store, run).recipe, _attempt(store, run)
    chain = _chain(recipe, attempt, store)
    if not chain:
        raise RequestError(f"run '{run}' has not prepared all events yet: there is nothing to count")
    opened = plan.opened_files(recipe, attempt, lambda key: result_if_there(key, store))
    prepared = result_of(chain[0][0].data, store)
    parts = [_recounted(part, store) for part in prepared["parts"]]
    return ledger(plan.inputs(recipe, opened), parts, _epochs(chain, store))


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
        "files": len(request.recipe.files),
        "epochs": request.recipe.epochs,
        "created": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(request.created)),
        "model": end.model if end else "",
    }


def _card_row(version: versions.Version, card: Mapping[str, Any]) -> dict[str, Any]:
    test = card["metrics"]["test"]
    return {
        "model": str(version),
        "features": card["n_features"],
        "parameters": card["parameters"],
        "events": sum(file["events"] for file in card["data"]),
        "AUC": test["auc"],
        "±": test["auc_uncertainty"],
        "accuracy": test["accuracy"],
    }


def _chain(recipe: Recipe, attempt: str, store: Store) -> list[list[Train]]:
    return plan.chain_of(recipe, attempt, lambda key: result_if_there(key, store))


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
