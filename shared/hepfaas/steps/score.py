"""score: the graph on one prepared part's held-back rows, and on as many of its training rows as it has test rows ->
counts of the scores, which add up over parts."""

from __future__ import annotations

import numpy as np

from hepfaas.errors import MissingError
from hepfaas.evaluation.part import part_counts
from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.epochs import BATCH_ROWS
from hepfaas.runs.results import Exported
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Score
from hepfaas.steps.objects import encoded, open_part, result_of
from hepfaas.training.weights import Factors


def perform(step: Score, store: Store, inference: Inference = INFERENCE) -> None:
    """Raises: MissingError; GraphError if the graph fails."""
    export = Exported.from_json(result_of(step.export, store))
    size_bytes = store.size_bytes(step.part)
    if size_bytes is None:
        raise MissingError(step.part, store.url)
    part = open_part(step.part, size_bytes, store)
    graph = Graph(store.get(export.graph), (part.n_features,), export.outputs)
    unit = Factors.from_json(result_of(step.weigh, store)).unit if step.weigh else 1.0
    scores, labels, splits, weights = [np.zeros((0, export.outputs), dtype=np.float32)], [], [], [np.zeros(0)]
    with inference.model(graph) as model:
        for split in Split:
            left = part.facts.rows[Split.TEST if split == Split.TRAINING else split]
            for number in part.facts.batches(split)[: -(-left // BATCH_ROWS)]:
                rows = part.rows(number)
                scores.append(model.predict(rows.features[:left]))
                labels.append(rows.labels[:left])
                weights.append(part.event_weights(number)[:left] if step.weigh else np.zeros(0))
                splits.append(np.full(len(labels[-1]), int(split)))
                left -= len(labels[-1])
    none = np.zeros(0, dtype=np.int64)
    counts = part_counts(
        np.concatenate(scores),
        np.concatenate([none, *labels]),
        np.concatenate([none, *splits]),
        rows=part.facts.rows,
        logits=export.logits,
        threshold=step.threshold,
        weights=np.concatenate(weights) if step.weigh else None,
        unit=unit,
    )
    store.create(step.key, encoded(counts.to_json()))
