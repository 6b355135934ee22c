"""Runs a LiteRT graph on a matrix of features. The only module that imports ai-edge-litert."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

ROWS = 2_000
"""Rows computed at once."""


class LiteRtModel:
    """A graph in memory, with an interpreter of its own: not to be shared by threads."""

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        with _silent():
            self._interpreter = Interpreter(model_content=graph, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._rows = 0

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs of the network, (events, outputs), for features (events, features)."""
        if 0 < len(features) <= ROWS:
            return self._outputs(features)
        parts = [self._outputs(features[start : start + ROWS]) for start in range(0, len(features), ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    def _outputs(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(features) != self._rows:
            self._interpreter.resize_tensor_input(self._input, features.shape)
            self._interpreter.allocate_tensors()
            self._rows = len(features)
        self._interpreter.set_tensor(self._input, features)
        self._interpreter.invoke()
        outputs: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return outputs


@contextmanager
def _silent() -> Iterator[None]:
    """While it lasts, standard error goes nowhere: the library greets there, and says what is wrong by raising."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
