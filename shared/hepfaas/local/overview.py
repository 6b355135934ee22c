"""What there is in a store, for a person: runs, how far one is, model versions. Everything is read from objects."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.models import versions
from hepfaas.platform import records
from hepfaas.platform.storage import Store
from hepfaas.runs import plan
from hepfaas.runs.ledger import Ledger, ledger
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.steps import Train
from hepfaas.steps.objects import open_part, result_if_there, result_of
from hepfaas.training.split import event_ids, id_sum


def runs(store: Store) -> list[dict[str, Any]]:
    """All runs: state, files, when they were asked for, the model that came out."""
    return [_row(store, run) for run in records.runs(store)]


def models(store: Store) -> list[dict[str, Any]]:
    """All model versions with what their cards say."""
    return [_card_row(version, versions.card_of(store, version)) for version in versions.versions(store)]


def status(store: Store, run: str, verify: bool = False) -> dict[str, Any]:
    """State, phase, steps done, metrics so far; with `verify` the ledger, recounted from the stored rows."""
    request = records.request_of(store, run)
    end = records.last_end(store, run)
    found: dict[str, Any] = _row(store, run)
    found |= {"notes": list(request.notes)} if request.notes else {}
    found |= {"error": end.error} if end and end.error else {}
    attempt = _attempt(store, run)
    try:
        coming = plan.next_steps(request.recipe, attempt, lambda key: result_if_there(key, store))
        chain = _epochs(_chain(request.recipe, attempt, store), store)
        found["epochs"] = [{"epoch": number, **epoch[-1]["metrics"]} for number, epoch in enumerate(chain, 1)]
    except RequestError as error:
        found.setdefault("error", str(error))
    else:
        if isinstance(coming, plan.Ready):
            found |= {"phase": coming.phase, "steps_done": coming.done, "steps_of_phase": coming.total}
        else:
            version = versions.Version(coming.model["name"], coming.model["version"])
            found |= {"phase": "finished", "metrics": versions.card_of(store, version)["metrics"]["test"]}
    if verify:
        counted = verified(store, run)
        found["ledger"] = {**asdict(counted), "findings": list(counted.findings), "holds": counted.holds}
    return found


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


def _row(store: Store, run: str) -> dict[str, Any]:
    request, end = records.request_of(store, run), records.last_end(store, run)
    return {
        "run": run,
        "state": end.state if end else "unfinished",
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
    stored = open_part(part["key"], store.size_bytes(part["key"]) or 0, store)
    entries = [stored.entries(split) for split in range(3)]
    start, stop = part["entries"]
    once = sorted(entry for some in entries for entry in some.tolist()) == list(range(start, stop))
    return {
        "file": part["file"],
        "entries": part["entries"],
        "rows": [len(some) for some in entries] if once else [0, 0, 0],
        "id_sum": id_sum(event_ids(part["file"], entries[0])),
    }
