"""examine: a bounded sample of the test events and the graph -> histograms of branches, efficiencies, sculpting,
correlations and permutation importances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import MissingError
from hepfaas.evaluation import branches, importance
from hepfaas.evaluation.correlations import correlations
from hepfaas.evaluation.counts import check_valid, scored
from hepfaas.evaluation.metrics import curves_of
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.sample import Sample, SampledBatch, batches_of
from hepfaas.evaluation.sculpting import sculpting
from hepfaas.features.matrix import denormalise
from hepfaas.features.spec import FeatureSpec
from hepfaas.models.inference import INFERENCE, ConfinedModel, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.results import Exported, PreparedPart, prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Examine
from hepfaas.steps.objects import encoded, open_part, result_of
from hepfaas.steps.regression import examined


def perform(step: Examine, store: Store, inference: Inference = INFERENCE) -> None:
    """Raises: MissingError; GraphError if the graph fails; RequestError if scores of the model are invalid."""
    if step.targets:
        store.create(step.key, encoded(_of_regression(step, store, inference)))
        return
    counts = PartCounts.from_json(result_of(step.score, store))
    counts.scores.check()
    thresholds = [curve.threshold or 0.5 for curve in curves_of(counts.scores, Split.TEST)]
    export, spec = (
        Exported.from_json(result_of(step.export, store)),
        FeatureSpec.from_json(json.loads(store.get(step.spec))),
    )
    features, labels, weights, spectators = _rows(_parts(step, store), spec, store)
    graph = Graph(store.get(export.graph), (spec.n_features,), export.outputs)
    with inference.model(graph) as model:
        probabilities = _probabilities(model, features, export)
        importances = _importances(model, features, labels, weights, spec=spec, export=export)
    sample = Sample(
        branches=by_branch(denormalise(features, spec), spec),
        scaled=scaled_by_branch(features, spec),
        spectators=spectators,
        probabilities=probabilities,
        labels=labels,
        weights=weights,
    )
    passed = branches.selection(sample, thresholds[0])
    result = {
        "events": len(sample),
        "thresholds": thresholds,
        "branches": branches.to_json(branches.branch_histograms(sample, passed)),
        "scaled": branches.to_json(branches.scaled_histograms(sample, passed)),
        "sculpting": sculpting(sample, thresholds),
        "correlations": correlations(sample, step.classes),
        "importance": importances,
    }
    store.create(step.key, encoded(result))


def _of_regression(step: Examine, store: Store, inference: Inference) -> dict[str, Any]:
    spec = FeatureSpec.from_json(json.loads(store.get(step.spec)))
    features, targets, weights, spectators = _rows(_parts(step, store), spec, store)
    return examined(step, store, inference, features=features, standard=targets, weights=weights, spectators=spectators)


def _parts(step: Examine, store: Store) -> list[PreparedPart]:
    return prepared_parts(result_of(step.data, store), step.fold)


def _rows(
    parts: Sequence[PreparedPart], spec: FeatureSpec, store: Store
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return features, labels or targets, weights times the factors of the sample, and spectators."""
    batches = [(part, number, rows) for part in parts for number, rows in part.batches(Split.TEST)]
    features = [np.zeros((0, spec.n_features), dtype=np.float32)]
    labels, weights = list[NDArray[Any]](), [np.zeros(0)]
    spectators: dict[str, list[NDArray[np.float64]]] = {}
    opened: dict[str, Any] = {}
    for batch in batches_of([part.file for part, _, _ in batches], [rows for _, _, rows in batches], spec.n_features):
        part, number, _ = batches[batch.index]
        if part.key not in opened:
            opened = {part.key: _opened(part.key, store)}
        stored = opened[part.key]
        rows = stored.rows(number)
        features.append(rows.features[: batch.rows])
        labels.append(rows.labels[: batch.rows])
        weights.append(_weights(stored.event_weights(number), batch))
        for name, values in stored.spectators(number).items():
            spectators.setdefault(name, []).append(values[: batch.rows].astype(np.float64))
    joined = {name: np.concatenate(values) for name, values in spectators.items()}
    return (
        np.concatenate(features),
        np.concatenate(labels or [np.zeros(0, dtype=np.int64)]),
        np.concatenate(weights),
        joined,
    )


def _weights(event_weights: NDArray[np.float64] | None, batch: SampledBatch) -> NDArray[np.float64]:
    used = np.ones(batch.rows) if event_weights is None else event_weights[: batch.rows]
    return used * batch.factor


def _opened(key: str, store: Store) -> Any:
    size_bytes = store.size_bytes(key)
    if size_bytes is None:
        raise MissingError(key, store.url)
    return open_part(key, size_bytes, store)


def _probabilities(model: ConfinedModel, features: NDArray[np.float32], export: Exported) -> NDArray[np.float64]:
    """Return the probability of each class, (events, classes). Raises: RequestError if a score is invalid."""
    none = np.zeros(len(features), dtype=np.int64)
    events, n_not_finite, n_not_probable = scored(model.predict(features), none, none, logits=export.logits)
    check_valid(n_not_finite, n_not_probable)
    return events.probabilities


def _importances(
    model: ConfinedModel,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    *,
    spec: FeatureSpec,
    export: Exported,
) -> Mapping[str, Any]:
    """Return the AUC of some of the events and its fall for each branch and collection whose values are permuted."""
    groups = importance.groups_of({name: spec.slots(name) for name in spec.names})
    count = min(len(features), importance.n_rows(len(groups), spec.n_features))
    chosen = np.arange(count) * len(features) // max(1, count)
    features, labels, weights = features[chosen], labels[chosen], weights[chosen]

    def auc(changed: NDArray[np.float32]) -> float | None:
        return importance.mean_auc(_probabilities(model, changed, export), labels, weights)

    before = auc(features)
    if before is None:
        return {"events": count, "auc": None, "groups": []}
    falls = []
    for group in groups:
        after = [auc(importance.permuted(features, group, repeat)) for repeat in range(importance.REPEATS)]
        falls.append(importance.importance(group, before, [value for value in after if value is not None]))
    return {"events": count, "auc": before, "groups": falls}


def by_branch(values: NDArray[np.float64], spec: FeatureSpec) -> dict[str, NDArray[np.float64]]:
    """Return the columns of each branch without those of its indicator and mask."""
    return {
        branch.name: values[:, (start := spec.slots(branch.name).start) : start + branch.width]
        for branch in spec.branches
    }


def scaled_by_branch(features: NDArray[np.float32], spec: FeatureSpec) -> dict[str, NDArray[np.float64]]:
    """Return the features of each branch, NaN where a slot has no value."""
    empty = np.isnan(denormalise(features, spec))
    return by_branch(np.where(empty, np.nan, features.astype(np.float64)), spec)
