"""Checks of the graph of a network that is to be served: it computes what the network computes, and the score of an
event does not depend on the events that it is computed with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.features.targets import difference_in_units, standardised
from hepfaas.models.inference import ConfinedModel, Graph, Inference
from hepfaas.runs.targets import Row, targets_in

TOLERANCE = 1e-5
"""Largest difference of a score between graph and network; relative for scores above 1."""

ALONE_TOLERANCE = 1e-4
"""Largest difference of a score between an event alone and in a batch. Sums over features are added in another order
there, which changes their last digits."""

ALONE_ROWS = 32
"""Most events that are computed alone."""

Scores = NDArray[np.float32]


def check(
    graph: Graph, features: NDArray[np.float32], scores: Scores, targets: Sequence[Row], inference: Inference
) -> float:
    """Return the largest difference between the scores of the graph and those of the network.

    scores: of the network; standardised ones if there are targets. graph: its name names the network.
    Raises: RequestError if the graph cannot be computed, or either difference is too large.
    """
    with inference.model(graph) as model:
        served = model.predict(features)
        _check_alone(graph, model, features, served, targets)
    difference = _difference(served, scores, targets)
    if not difference <= TOLERANCE:
        raise RequestError(
            f"the LiteRT graph of {graph.name} differs from the network by {difference:.2g} on {len(features)} "
            f"held-back events; at most {TOLERANCE} is allowed: does a layer draw random numbers?"
        )
    return difference


def largest_difference(one: Scores, other: Scores) -> float:
    """Return the largest difference between scores, relative for scores above 1."""
    return float((np.abs(one - other) / np.maximum(1, np.abs(other))).max(initial=0))


def _check_alone(
    graph: Graph, model: ConfinedModel, features: NDArray[np.float32], served: Scores, targets: Sequence[Row]
) -> None:
    n_alone = min(ALONE_ROWS, len(features))
    alone = np.concatenate([served[:0], *(model.predict(features[row : row + 1]) for row in range(n_alone))])
    difference = _difference(alone, _standardised(served[:n_alone], targets), targets)
    if not difference <= ALONE_TOLERANCE:
        raise RequestError(
            f"the score of an event by {graph.name} depends on the events that it is computed with: alone it differs "
            f"by {difference:.2g} from that in a batch of {len(features)}; a layer combines the rows of a batch, as a "
            "mean over axis 0 does: combine the values of one event only, or use BatchNormalization"
        )


def _difference(served: Scores, scores: Scores, targets: Sequence[Row]) -> float:
    """Return the largest difference; the target's scores are standardised, and NaN equals NaN."""
    both = np.isnan(served) & np.isnan(scores)
    served, scores = np.where(both, 0, served), np.where(both, 0, scores)
    if not targets:
        return largest_difference(served, scores)
    rows = (-1, len(targets))
    return difference_in_units(served.reshape(rows), scores.reshape(rows), targets)


def _standardised(served: Scores, targets: Sequence[Row]) -> Scores:
    """Return the served values of targets, or of several networks, as a network gives them."""
    if not targets:
        return served
    columns = served.reshape(-1, len(targets)).T
    scales = zip(columns, targets_in(targets), strict=True)
    return np.stack([standardised(column, target) for column, target in scales], axis=1).reshape(served.shape)
