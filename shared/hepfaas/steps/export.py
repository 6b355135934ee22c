"""export: the best checkpoint, or one of each fold -> the served model: a LiteRT graph and a Keras file, checked
against each other; with folds the graph of all networks, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.targets import difference_in_units
from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.epochs import CHECK_ROWS
from hepfaas.runs.results import Exported, PreparedPart, prepared_parts
from hepfaas.runs.splits import HELD_BACK
from hepfaas.runs.steps import Export
from hepfaas.steps.learning import Learners, fetching, parts_of
from hepfaas.steps.objects import encoded, put_blob, result_of
from hepfaas.training.checkpoint import arrays_of, weights_hash
from hepfaas.training.segments import Rows, blocks_of, first_rows, seed_of

TOLERANCE = 1e-5
"""Largest difference of a score between graph and network; relative for scores above 1 (logits)."""


def perform(step: Export, store: Store, learners: Learners, inference: Inference = INFERENCE) -> None:
    """Raises: RequestError if the network cannot be exported, or its graph computes other scores."""
    features = _held_back(step, prepared_parts(result_of(step.data, store), step.fold), store)
    states, outputs = [], []
    for checkpoint in step.checkpoints:
        learner = learners.holding(checkpoint, step, store)
        states.append(arrays_of(store.get(checkpoint)))
        outputs.append(learner.predict(features))
    is_joined = len(states) > 1
    exported = learner.export(states if is_joined else ())
    mean = np.asarray(np.mean(outputs, axis=0, dtype=np.float64), dtype=np.float32)
    difference = _checked(step, exported.graph, features, mean, inference)
    if is_joined:
        difference = max(
            difference, _checked(step, exported.each, features, np.concatenate(outputs, axis=1), inference)
        )
    facts = learner.facts
    result = Exported(
        graph=put_blob(store, exported.graph),
        keras=put_blob(store, exported.keras),
        outputs=mean.shape[1],
        n_classes=0 if step.targets else max(2, mean.shape[1]),
        logits=facts.logits,
        labels=step.labels,
        parameters=facts.parameters * len(states),
        weights=weights_hash(_all_weights(states) if is_joined else states[0]),
        check={"events": len(features), "largest_difference": difference},
        versions=dict(facts.versions),
        processor=facts.processor,
        each=put_blob(store, exported.each) if is_joined else "",
    )
    store.create(step.key, encoded(result.to_json()))


def _checked(
    step: Export, data: bytes, features: NDArray[np.float32], scores: NDArray[np.float32], inference: Inference
) -> float:
    """Return the largest difference between the scores of a graph and of the network. Raises: RequestError if it is too
    large."""
    graph = Graph(data, features.shape[1:], scores.shape[1], f"the network of {step.module}")
    with inference.model(graph) as model:
        served = model.predict(features)
    if step.targets:
        rows = (-1, len(step.targets))
        difference = difference_in_units(served.reshape(rows), scores.reshape(rows), step.targets)
    else:
        difference = largest_difference(served, scores)
    if not difference <= TOLERANCE:
        raise RequestError(
            f"the LiteRT graph of {step.module}'s network differs from the network by {difference:.2g} on "
            f"{len(features)} held-back events; at most {TOLERANCE} is allowed: does a layer draw random numbers?"
        )
    return difference


def _held_back(step: Export, prepared: Sequence[PreparedPart], store: Store) -> NDArray[np.float32]:
    """Return the features of up to 10,000 validation and test events."""
    parts = [part for split in HELD_BACK for part in parts_of(split, prepared)]
    blocks = first_rows(blocks_of(parts, seed_of(step.seed, "check")), CHECK_ROWS)
    fetch: Callable[[str], Rows] = fetching(prepared, store)
    return np.concatenate([fetch(batch).features[start:stop] for block in blocks for batch, start, stop in block])


def _all_weights(states: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the weights of all networks under different names."""
    return {
        f"model/{number}/{name}": array
        for number, state in enumerate(states)
        for name, array in state.items()
        if name.startswith("model/")
    }


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the largest difference between scores, relative for scores above 1."""
    return float((np.abs(one - other) / np.maximum(1, np.abs(other))).max(initial=0))
