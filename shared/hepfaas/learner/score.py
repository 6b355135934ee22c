"""The score of a classifier: what turns the outputs of its network into probabilities.

Decided once, when the network is made, from the last operation of its graph and from its loss: the loss is computed for
a few outputs, so that logits are recognised whatever declares or hides them. The last layers of the served network do
the conversion; the network that learns is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

Form = Literal["probability", "logit", "margin", "unknown"]
"""Form of the outputs that a loss asks for: 0 to 1, their logits, -1 to 1, or none that can be told."""

Loss = Callable[[NDArray[np.float32], NDArray[np.int64]], float]
"""Mean loss of outputs, (rows, outputs), for labels, (rows,)."""

PASSED = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "EnsureShape")
"""Operations that change no value."""

PROBABILITIES = ("Sigmoid", "Softmax")
BETWEEN_ONES = ("Tanh", "Softsign")
LINEAR = ("BiasAdd", "MatMul", "BatchMatMulV2", "AddV2", "Add", "Sub", "Mul", "Einsum", "ConcatV2")

TOLERANCE = 1e-5
"""Least change of a loss that counts."""


@dataclass(frozen=True)
class Conversion:
    """How outputs become scores. text: for people, '' if outputs are scores; layers: makes the Keras layers."""

    text: str
    layers: Callable[[], tuple[Any, ...]]


def _clip() -> Any:
    return keras.layers.ReLU(max_value=1.0, name="clipped", dtype="float32")


def _rescaling(scale: float, offset: float) -> Any:
    return keras.layers.Rescaling(scale, offset, name="rescaled", dtype="float32")


def _sigmoid() -> Any:
    return keras.layers.Activation("sigmoid", name="probability", dtype="float32")


AS_IT_IS = Conversion("", tuple)
SECOND_SIGMOID = Conversion(
    "the score is the output; the loss has from_logits=True, though the network ends in a sigmoid or softmax already: "
    "leave out one of them",
    tuple,
)
CLIPPED = Conversion("the score is the output of the network, clipped to 0 to 1", lambda: (_clip(),))
SHIFTED = Conversion(
    "the score is (output + 1) / 2, since the network learns -1 and 1", lambda: (_rescaling(0.5, 0.5), _clip())
)
SIGMOID = Conversion("the score is the sigmoid of the output, which is a logit", lambda: (_sigmoid(),))
SIGMOIDS = Conversion("each score is the sigmoid of its output, which is a logit", lambda: (_sigmoid(),))
SOFTMAX = Conversion(
    "the scores are the softmax of the outputs, which are logits",
    lambda: (keras.layers.Softmax(name="probability", dtype="float32"),),
)
SIGMOID_OF_MARGIN = Conversion(
    "the score is the sigmoid of twice the output, since the network learns a margin of -1 to 1",
    lambda: (_rescaling(2.0, 0.0), _sigmoid()),
)


def conversion_of(operation: str, n_outputs: int, loss: Loss | None, declared_logits: bool) -> Conversion:
    """Return the conversion of a network's outputs.

    operation: the last one of the network, '' if it is not known. loss: None if there is none. declared_logits: the
    loss has `from_logits`.
    """
    if operation in PROBABILITIES:
        return SECOND_SIGMOID if declared_logits else AS_IT_IS
    with np.errstate(all="ignore"):
        form: Form = "logit" if declared_logits else "unknown" if loss is None else _form(loss, n_outputs)
        if form == "unknown":
            form = "margin" if operation in BETWEEN_ONES else "logit" if operation in LINEAR else "probability"
        if form == "probability":
            return CLIPPED
        if n_outputs > 1:
            return SIGMOIDS if loss and not _takes_any_offset(loss, n_outputs) else SOFTMAX
    if form == "logit":
        return SIGMOID
    return SHIFTED if operation in BETWEEN_ONES else SIGMOID_OF_MARGIN


def last_operation(graph: Any) -> str:
    """Return the operation that computes the values of a function's only output."""
    operation = graph.outputs[0].op
    while operation.type in PASSED and operation.inputs:
        operation = operation.inputs[0].op
    return str(operation.type)


def _form(loss: Loss, n_outputs: int) -> Form:
    """Return the form of the outputs for which the loss is smallest. Comparisons with NaN are false."""
    return _form_of_one(loss) if n_outputs == 1 else _form_of_several(loss, n_outputs)


def _form_of_one(loss: Loss) -> Form:
    def falls(label: int, start: float, end: float) -> bool:
        """Return whether the loss of events with this label is smaller for the second output."""
        labels = np.full(2, label, dtype=np.int64)
        first, second = (loss(np.full((2, 1), output, dtype=np.float32), labels) for output in (start, end))
        return second < first - TOLERANCE

    if not falls(1, 0.1, 0.9):
        return "unknown"
    if falls(1, 1.0, 2.0) and falls(0, -1.0, -2.0):
        return "logit"
    return "margin" if falls(0, 0.0, -1.0) and not falls(0, -1.0, -2.0) else "probability"


def _form_of_several(loss: Loss, n_outputs: int) -> Form:
    right: NDArray[np.int64] = np.arange(n_outputs)
    ones = np.eye(n_outputs, dtype=np.float32)
    outputs = np.float32(0.9) * ones + np.float32(0.05)
    if not loss(outputs, right) < loss(outputs, np.roll(right, 1)) - TOLERANCE:
        return "unknown"
    if loss(np.float32(2) * ones, right) < loss(ones, right) - TOLERANCE:
        return "logit"
    return "margin" if _takes_any_offset(loss, n_outputs) else "probability"


def _takes_any_offset(loss: Loss, n_outputs: int) -> bool:
    """Return whether the loss stays the same when a number is added to all outputs, as it does before a softmax."""
    right, outputs = np.arange(n_outputs), np.eye(n_outputs, dtype=np.float32) * np.float32(0.5)
    return abs(loss(outputs + np.float32(1), right) - loss(outputs, right)) < TOLERANCE
