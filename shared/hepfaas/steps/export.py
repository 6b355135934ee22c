"""export: the best checkpoint, or one of each fold -> the served model: a LiteRT graph and a Keras file, checked
against each other."""

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
    exported = learner.export(states if step.joined else (), step.joined)
    scores = np.concatenate(outputs, axis=1)
    if step.joined == "mean":
        scores = np.asarray(np.mean(outputs, axis=0, dtype=np.float64), dtype=np.float32)
    graph = Graph(exported.graph, features.shape[1:], scores.shape[1], f"the network of {step.module}")
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
    facts = learner.facts
    result = Exported(
        graph=put_blob(store, exported.graph),
        keras=put_blob(store, exported.keras),
        outputs=scores.shape[1],
        n_classes=0 if step.targets else max(2, outputs[0].shape[1]),
        logits=facts.logits,
        labels=step.labels,
        parameters=facts.parameters * len(states),
        weights=weights_hash(_all_weights(states) if step.joined else states[0]),
        check={"events": len(features), "largest_difference": difference},
        versions=dict(facts.versions),
        processor=facts.processor,
    )
    store.create(step.key, encoded(result.to_json()))


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
