"""Runs a LiteRT graph on a matrix of features. The only module that imports ai-edge-litert.

LiteRT does not validate graphs: only confined processes may import this module (see `inference`).
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

ROWS = 2_000
"""Rows computed at once."""


class LiteRtModel:
    """A graph in memory, or in a file if `graph` is a path. Not to be shared by threads."""

    def __init__(self, graph: bytes | str, threads: int = 1) -> None:
        source = {"model_path": graph} if isinstance(graph, str) else {"model_content": graph}
        self._interpreter = Interpreter(**source, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._rows = 0

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs of the network, (events, outputs), for features (events, features)."""
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
