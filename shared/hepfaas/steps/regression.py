"""The examine step of a regression: profiles of a sample of test events, in units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.evaluation.predictions import PredictionCounts
from hepfaas.evaluation.profiles import profiles
from hepfaas.features.matrix import denormalise
from hepfaas.features.spec import FeatureSpec
from hepfaas.features.targets import in_units
from hepfaas.models.inference import Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.results import Exported
from hepfaas.runs.steps import Examine
from hepfaas.runs.targets import targets_in
from hepfaas.steps.objects import result_of


def examined(
    step: Examine,
    store: Store,
    inference: Inference,
    *,
    features: NDArray[np.float32],
    standard: NDArray[np.float32],
    weights: NDArray[np.float64],
    spectators: Mapping[str, NDArray[np.float64]],
) -> dict[str, Any]:
    """Return the profiles of a sample of the test events: standard: true values, (events, targets).

    Raises: RequestError if a prediction is not finite.
    """
    targets = targets_in(step.targets)
    PredictionCounts.from_json(result_of(step.score, store)).check(targets)
    export = Exported.from_json(result_of(step.export, store))
    spec = FeatureSpec.from_json(json.loads(store.get(step.spec)))
    graph = Graph(store.get(export.graph), (spec.n_features,), export.outputs)
    with inference.model(graph) as model:
        predicted = model.predict(features).astype(np.float64)
    values = denormalise(features, spec)
    firsts = {name: values[:, spec.slots(name).start] for name in spec.names}
    true = in_units(standard, step.targets)
    found = profiles(predicted, true, {**spectators, **firsts}, weights, targets)
    return {"events": len(predicted), "profiles": found}
