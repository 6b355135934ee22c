"""score: the graph on one prepared part's held-back rows, and on as many of its training rows as it has test rows ->
counts of the scores, which add up over parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.part import part_counts
from hepfaas.evaluation.predictions import PredictionCounts, prediction_counts
from hepfaas.features.targets import in_units
from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.results import Exported
from hepfaas.runs.splits import HELD_BACK, Split
from hepfaas.runs.steps import Score
from hepfaas.runs.targets import Row, targets_in
from hepfaas.steps.objects import encoded, part_of_fold, result_of
from hepfaas.training.weights import Factors


def perform(step: Score, store: Store, inference: Inference = INFERENCE) -> None:
    """Raises: MissingError; GraphError if the graph fails."""
    export = Exported.from_json(result_of(step.export, store))
    facts, part = part_of_fold(step.part, store, step.fold)
    graph = Graph(store.get(export.graph), (part.n_features,), export.outputs)
    unit = Factors.from_json(result_of(step.weigh, store)).unit if step.weigh else 1.0
    scores, labels, splits, weights = [np.zeros((0, export.outputs), dtype=np.float32)], [], [], [np.zeros(0)]
    with inference.model(graph) as model:
        for split in HELD_BACK if step.targets else Split:
            left = facts.rows[Split.TEST if split == Split.TRAINING else split]
            for number, _ in facts.batches(split):
                if not left:
                    break
                rows = part.rows(number)
                scores.append(model.predict(rows.features[:left]))
                labels.append(rows.labels[:left])
                weights.append(part.event_weights(number)[:left] if step.weigh else np.zeros(0))
                splits.append(np.full(len(labels[-1]), int(split)))
                left -= len(labels[-1])
    none = np.zeros(0, dtype=np.int64)
    outputs, numbers = np.concatenate(scores), np.concatenate([none, *splits])
    used = np.concatenate(weights) if step.weigh else None
    if step.targets:
        standard = np.concatenate([np.zeros_like(scores[0]), *labels])
        counts = predictions(outputs, standard, numbers, step.targets, weights=used, unit=unit).to_json()
    else:
        counts = part_counts(
            outputs,
            np.concatenate([none, *labels]),
            numbers,
            rows=facts.rows,
            logits=export.logits,
            threshold=step.threshold,
            weights=used,
            unit=unit,
        ).to_json()
    store.create(step.key, encoded(counts))


def predictions(
    predicted: NDArray[np.float32],
    standard: NDArray[np.float32],
    splits: NDArray[np.int64],
    targets: Sequence[Row],
    *,
    weights: NDArray[np.float64] | None,
    unit: float,
) -> PredictionCounts:
    """Return the residuals of a part: predicted in units, standard: true values, (events, targets) each."""
    return prediction_counts(
        predicted.astype(np.float64),
        in_units(standard, targets),
        splits,
        targets_in(targets),
        weights=weights,
        unit=unit,
    )
