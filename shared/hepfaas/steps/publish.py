"""publish: the served model, its inputs and its metrics -> a numbered version under a name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.features.spec import FeatureSpec
from hepfaas.models import versions
from hepfaas.platform.storage import Store
from hepfaas.runs.folds import FoldRule, Folds
from hepfaas.runs.results import Exported, PreparedPart, prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Publish
from hepfaas.steps.objects import encoded, result_of


def perform(step: Publish, store: Store) -> None:
    """Raises: MissingError."""
    export, evaluate = Exported.from_json(result_of(step.export, store)), result_of(step.evaluate, store)
    columns = store.get(result_of(step.spec, store)["columns"])
    version = versions.claim(store, step.name, step.key)
    files = {
        versions.GRAPH: store.get(export.graph),
        versions.KERAS: store.get(export.keras),
        **({versions.FOLDS: store.get(export.each)} if export.each else {}),
        versions.SPEC: columns,
        versions.EVALUATION: encoded(evaluate),
        **{name: store.get(blob) for name, blob in evaluate["plots"].items()},
    }
    versions.publish(store, version, _card(step, version, FeatureSpec.from_json(json.loads(columns)), store), files)
    result = {"name": version.name, "version": version.number, "files": sorted([*files, versions.CARD])}
    store.create(step.key, encoded(result))


def _card(step: Publish, version: versions.Version, spec: FeatureSpec, store: Store) -> dict[str, Any]:
    """Return the card: how to use the version, and what it was made from."""
    recipe, prepared = json.loads(step.recipe), prepared_parts(result_of(step.data, store))
    export, evaluate = Exported.from_json(result_of(step.export, store)), result_of(step.evaluate, store)
    return {
        "name": version.name,
        "version": version.number,
        "features": [_described(spec, branch.name) for branch in spec.branches],
        "n_features": spec.n_features,
        "surplus": spec.surplus,
        "identifiers": list(spec.identifiers),
        "notes": result_of(step.spec, store).get("notes", []),
        "spec": result_of(step.spec, store)["columns"].rpartition("/")[2],
        "recipe": recipe,
        "data": _data(prepared),
        "folds": _folds(recipe, prepared),
        "labels": export.labels,
        "targets": result_of(step.spec, store).get("targets", []),
        "outputs": export.outputs,
        "logits": export.logits,
        "score": export.score,
        "parameters": export.parameters,
        "weights": export.weights,
        "graph_check": export.check,
        "versions": export.versions,
        "processor": export.processor,
        "metrics": evaluate["metrics"],
        "best_epoch": evaluate["best_epoch"],
        "gate": result_of(step.compare, store) if step.compare else None,
        "steps": {
            "data": step.data,
            "spec": step.spec,
            "checkpoint": step.checkpoint,
            "export": step.export,
            "evaluate": step.evaluate,
        },
    }


def _folds(recipe: Mapping[str, Any], prepared: Sequence[PreparedPart]) -> dict[str, Any] | None:
    """Return how the fold of an event is found, None without folds: `FoldRule.to_json`."""
    folds = recipe.get("folds")
    if not folds:
        return None
    return FoldRule(
        Folds(**folds), recipe["split_seed"], tuple(dict.fromkeys(part.file for part in prepared))
    ).to_json()


_ALWAYS = {"name", "jagged", "type", "low", "high", "width"}


def _described(spec: FeatureSpec, name: str) -> dict[str, Any]:
    (branch,) = (branch for branch in spec.branches if branch.name == name)
    slots = spec.slots(name)
    return {
        "branch": name,
        "jagged": branch.jagged,
        "type": branch.type,
        "low": branch.low,
        "high": branch.high,
        "columns": [slots.start, slots.stop],
        **{name: value for name, value in branch.to_json().items() if name not in _ALWAYS},
    }


def _data(prepared: Sequence[PreparedPart]) -> list[dict[str, Any]]:
    """Return each file by its identity: label, events and their split; with folds all events are test events."""
    files: dict[str, list[PreparedPart]] = {}
    for part in prepared:
        files.setdefault(part.file, []).append(part)
    splits = {file: [sum(part.rows[split] for part in parts) for split in Split] for file, parts in files.items()}
    return [
        {"file": file, "label": files[file][0].label, "events": sum(split), "split": split}
        for file, split in splits.items()
    ]
