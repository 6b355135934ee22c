"""convert: a model that was made elsewhere -> what will be served: its LiteRT graph, checked against the model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.learner.converter import ConverterSettings
from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Convert
from hepfaas.steps.export import TOLERANCE, largest_difference
from hepfaas.steps.learning import Learners
from hepfaas.steps.objects import code_files, encoded, put_blob

CHECK_ROWS, CHECK_VALUES = 1_000, 4_000_000
"""Rows drawn for the check, fewer where they are large."""

SEED = 21


def perform(step: Convert, store: Store, learners: Learners, inference: Inference = INFERENCE) -> None:
    """Raises: RequestError if the model cannot be read or has no such graph, or the graph computes something else."""
    files = code_files(step.code, store)
    name = f"the model in '{step.file}'" if step.file != "." else "the SavedModel"
    settings = ConverterSettings(
        code=files, module=name, format=step.format, file=step.file, input=step.input, output=step.output
    )
    with learners.converter(settings) as learner:
        found = learner.convert()
        rows = _drawn(found.shape, found.integers)
        scores = learner.predict(rows)
    with inference.model(Graph(found.graph, found.shape, found.outputs, name)) as model:
        difference = largest_difference(model.predict(rows), scores)
    if not difference <= TOLERANCE:
        raise RequestError(
            f"the LiteRT graph of {name} differs from the model by {difference:.2g} on {len(rows)} drawn rows; at most "
            f"{TOLERANCE} is right: does it draw random numbers, or give NaN?"
        )
    result = {
        "graph": put_blob(store, found.graph),
        "shape": list(found.shape),
        "outputs": found.outputs,
        "parameters": found.parameters,
        "check": {"events": len(rows), "largest_difference": difference},
        "versions": dict(found.versions),
        "processor": found.processor,
    }
    store.create(step.key, encoded(result))


def _drawn(shape: tuple[int, ...], integers: bool) -> NDArray[np.float32]:
    """Rows with values in [0, 1), of whole numbers 0 and 1: what every network takes."""
    rows = max(1, min(CHECK_ROWS, CHECK_VALUES // math.prod(shape)))
    drawn = np.random.default_rng(SEED).random((rows, *shape), dtype=np.float32)
    return np.round(drawn) if integers else drawn
