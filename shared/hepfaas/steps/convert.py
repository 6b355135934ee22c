"""convert: a model made elsewhere -> the served model: its LiteRT graph, checked against the model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.learner.converter import ConverterSettings
from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Convert
from hepfaas.steps.learning import Learners
from hepfaas.steps.objects import code_files, encoded, put_blob
from hepfaas.steps.served_graph import TOLERANCE, largest_difference

CHECK_ROWS, CHECK_VALUES = 1_000, 4_000_000
"""Most rows, and most values, drawn for the check."""

SEED = 21


def perform(step: Convert, store: Store, learners: Learners, inference: Inference = INFERENCE) -> None:
    """Raises: RequestError if the model cannot be read or converted, or its graph computes other scores."""
    files = code_files(step.code, store)
    name = f"the model in '{step.file}'" if step.file != "." else "the SavedModel"
    settings = ConverterSettings(
        code=files, module=name, format=step.format, file=step.file, input=step.input, output=step.output
    )
    with learners.converter(settings) as learner:
        converted = learner.convert()
        rows = _drawn(converted.shape, converted.integers)
        scores = learner.predict(rows)
    with inference.model(Graph(converted.graph, converted.shape, converted.outputs, name)) as model:
        difference = largest_difference(model.predict(rows), scores)
    if not difference <= TOLERANCE:
        raise RequestError(
            f"the LiteRT graph of {name} differs from the model by {difference:.2g} on {len(rows)} random rows; "
            f"at most {TOLERANCE} is allowed: does the model draw random numbers, or give NaN?"
        )
    result = {
        "graph": put_blob(store, converted.graph),
        "shape": list(converted.shape),
        "outputs": converted.outputs,
        "parameters": converted.parameters,
        "check": {"events": len(rows), "largest_difference": difference},
        "versions": dict(converted.versions),
        "processor": converted.processor,
    }
    store.create(step.key, encoded(result))


def _drawn(shape: tuple[int, ...], integers: bool) -> NDArray[np.float32]:
    """Return rows of values in [0, 1), or of 0 and 1 for whole numbers, which every network accepts."""
    rows = max(1, min(CHECK_ROWS, CHECK_VALUES // math.prod(shape)))
    drawn = np.random.default_rng(SEED).random((rows, *shape), dtype=np.float32)
    return np.round(drawn) if integers else drawn
