"""The function's side of a learner process that has a model which was made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hepfaas.errors import RequestError
from hepfaas.learner.learner import UNLIMITED, Learner, Limits

MOST_NUMBERS = 10_000_000
"""Numbers of a row: the function draws rows of this shape to check the graph."""


@dataclass(frozen=True)
class ConverterSettings:
    """What the model is.

    code: its files by name; module: what messages call it. format: 'keras', 'saved_model' or 'frozen_graph'; file: the
    one of them that is read, '.' the folder of them all. input, output: names of its nodes, '': those that it has.
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
    """A model as LiteRT graph, which takes rows of float32 of this shape and gives so many scores for each.

    integers: whether the model itself takes whole numbers, to which rows are cut.
    """

    graph: bytes
    shape: tuple[int, ...]
    integers: bool
    outputs: int
    parameters: int
    processor: str
    versions: Mapping[str, str]


class Converter(Learner):
    """A learner process with such a model: after `convert`, `predict` gives what the model itself computes."""

    def __init__(
        self, settings: ConverterSettings, on_log: Callable[[str], None] = lambda line: None, limits: Limits = UNLIMITED
    ) -> None:
        super().__init__(settings, on_log, cache_bytes=0, limits=limits)

    def convert(self) -> Converted:
        """Reads the model and makes its graph."""
        header, arrays = self._ask({"do": "convert"}, room=self._room(1))
        shape = header.pop("shape", None)
        if (
            not isinstance(shape, list)
            or not shape
            or not all(type(size) is int and 0 < size < 2**63 for size in shape)
        ):
            raise self._no_answer(f"shape {str(shape)[:40]} of a row")
        if (numbers := math.prod(shape)) > MOST_NUMBERS:
            raise RequestError(
                f"{self._settings.module} takes rows of {numbers:,} numbers; at most {MOST_NUMBERS:,} are served"
            )
        if len(arrays) != 1:
            raise self._no_answer(f"{len(arrays)} arrays, not a graph")
        facts = self._read(_Facts, header)
        self._outputs = facts.outputs
        return Converted(arrays[0].tobytes(), tuple(shape), **vars(facts))
