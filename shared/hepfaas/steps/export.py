"""export: the best checkpoint, or one of each fold -> the served model: a LiteRT graph and a Keras file, checked
against each other; with folds the graph of all networks, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.epochs import CHECK_ROWS
from hepfaas.runs.results import Exported, prepared_parts
from hepfaas.runs.steps import Export
from hepfaas.steps.learning import Learners, held_back
from hepfaas.steps.objects import encoded, put_blob, result_of
from hepfaas.steps.served_graph import check
from hepfaas.training.checkpoint import arrays_of, weights_hash


def perform(step: Export, store: Store, learners: Learners, inference: Inference = INFERENCE) -> None:
    """Raises: RequestError if the network cannot be exported, or its graph computes other scores."""
    prepared = prepared_parts(result_of(step.data, store), step.fold)
    features = held_back(step, prepared, CHECK_ROWS, store)
    states, outputs = [], []
    for checkpoint in step.checkpoints:
        learner = learners.holding(checkpoint, step, store)
        states.append(arrays_of(store.get(checkpoint)))
        outputs.append(learner.predict(features))
    is_joined = len(states) > 1
    exported = learner.export(states if is_joined else ())
    mean = np.asarray(np.mean(outputs, axis=0, dtype=np.float64), dtype=np.float32)

    def checked(data: bytes, scores: NDArray[np.float32]) -> float:
        graph = Graph(data, features.shape[1:], scores.shape[1], f"the network of {step.module}")
        return check(graph, features, scores, step.targets, inference)

    difference = checked(exported.graph, mean)
    if is_joined:
        difference = max(difference, checked(exported.each, np.concatenate(outputs, axis=1)))
    facts = learner.facts
    result = Exported(
        graph=put_blob(store, exported.graph),
        keras=put_blob(store, exported.keras),
        outputs=mean.shape[1],
        n_classes=0 if step.targets else max(2, mean.shape[1]),
        logits=False,
        labels=step.labels,
        parameters=facts.parameters * len(states),
        weights=weights_hash(_all_weights(states) if is_joined else states[0]),
        check={"events": len(features), "largest_difference": difference},
        versions=dict(facts.versions),
        processor=facts.processor,
        each=put_blob(store, exported.each) if is_joined else "",
        score=facts.score,
    )
    store.create(step.key, encoded(result.to_json()))


def _all_weights(states: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the weights of all networks under different names."""
    return {
        f"model/{number}/{name}": array
        for number, state in enumerate(states)
        for name, array in state.items()
        if name.startswith("model/")
    }
