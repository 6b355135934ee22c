"""Client of a learner process that converts an uploaded model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hepfaas.errors import RequestError
from hepfaas.learner.learner import UNLIMITED, Learner, LearnerLimits

MAX_ROW_VALUES = 10_000_000
"""Most numbers in one row. The function draws rows of this shape to check the graph."""


@dataclass(frozen=True, kw_only=True)
class ConverterSettings:
    """An uploaded model.

    code: its files by name. module: its name in messages. format: 'keras', 'saved_model' or 'frozen_graph'. file: the
    file to read, '.' for the whole folder. input, output: names of nodes; '' selects the only one.
    """

    code: Mapping[str, bytes]
    module: str
    format: str
    file: str
    input: str
    output: str


@dataclass(frozen=True)
class _Facts:
    integers: bool
    outputs: int
    parameters: int
    processor: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Converted:
    """A model as a LiteRT graph from float32 rows of this shape to `outputs` scores each.

    integers: whether the model takes whole numbers; then rows are truncated to integers.
    """

    graph: bytes
    shape: tuple[int, ...]
    integers: bool
    outputs: int
    parameters: int
    processor: str
    versions: Mapping[str, str]


class Converter(Learner):
    """A learner process with an uploaded model. After `convert`, `predict` returns the outputs of the model itself."""

    def __init__(
        self,
        settings: ConverterSettings,
        on_log: Callable[[str], None] = lambda line: None,
        limits: LearnerLimits = UNLIMITED,
    ) -> None:
        super().__init__(settings, on_log, cache_bytes=0, limits=limits)

    def convert(self) -> Converted:
        """Read the model and return its graph."""
        header, arrays = self._request({"do": "convert"}, room=self._room(1))
        shape = header.pop("shape", None)
        if (
            not isinstance(shape, list)
            or not shape
            or not all(type(size) is int and 0 < size < 2**63 for size in shape)
        ):
            raise self._invalid_answer(f"shape {str(shape)[:40]} of a row")
        if (values := math.prod(shape)) > MAX_ROW_VALUES:
            raise RequestError(
                f"{self._settings.module} takes rows of {values:,} numbers; at most {MAX_ROW_VALUES:,} are supported"
            )
        if len(arrays) != 1:
            raise self._invalid_answer(f"{len(arrays)} arrays, not a graph")
        facts = self._parsed(_Facts, header)
        self._outputs = facts.outputs
        return Converted(arrays[0].tobytes(), tuple(shape), **vars(facts))
