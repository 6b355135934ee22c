"""An uploaded model, read as one function of float32 rows and converted to the LiteRT graph that is served.

Runs only in the learner process: a SavedModel is a program, and so is a Keras file.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from hepfaas.learner.learner import processor
from hepfaas.learner.user_errors import ModelError, export_message, summary

MAX_BATCH_VALUES = 2_000_000
"""Most numbers in one call of the model."""

MAX_NAMES = 12
MAX_SUMMARY = 300
SIGNATURE = "serving_default"
TAGS = ["serve"]


@dataclass(frozen=True)
class Source:
    """A model as read: a function of one tensor, the type of that tensor, and the number of parameters.

    owner: the object that must stay alive while the function is used.
    """

    call: Callable[[Any], Any]
    input: Any
    parameters: int
    owner: Any = None


class UploadedModel:
    """An uploaded model; the settings are those of `converter.ConverterSettings` without the files."""

    def __init__(self, code: Path, settings: Mapping[str, Any]) -> None:
        self._code, self._settings = code, settings
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def convert(self) -> tuple[dict[str, Any], bytes]:
        """Return facts about the model and its LiteRT graph. Raises: ModelError if it cannot be converted."""
        try:
            self._read()
            graph = self._graph()
        except ModelError as error:
            raise ModelError(f"{self._settings['module']}: {error}") from error
        except Exception as error:  # libraries that read such files raise exceptions of any class
            raise ModelError(f"{self._settings['module']} cannot be read: {_short(error, self._code)}") from error
        facts = {
            "shape": list(self._shape),
            "integers": self._dtype.is_integer,
            "outputs": self._outputs,
            "parameters": self._source.parameters,
            "processor": processor(),
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
        }
        return facts, graph

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the outputs of the model itself, (events, outputs), for features (events, …)."""
        rows = max(1, MAX_BATCH_VALUES // math.prod(self._shape))
        parts = [features[start : start + rows] for start in range(0, len(features), rows)]
        return np.concatenate([np.asarray(self._scores(tf.constant(part))) for part in parts])

    def _read(self) -> None:
        path = self._code / self._settings["file"]
        self._source = READERS[self._settings["format"]](path, self._settings["input"], self._settings["output"])
        self._shape, self._dtype = _row_of(self._source.input), self._source.input.dtype
        outputs = self._source.call(tf.zeros([2, *self._shape], self._dtype))
        if outputs.shape.rank not in (1, 2) or outputs.shape[0] != 2:
            raise ModelError(
                f"two rows give an array of shape {outputs.shape.as_list()}; it must return a row of scores for each"
            )
        if not _is_number(outputs.dtype):
            raise ModelError(f"its output is {outputs.dtype.name}; scores must be numbers")
        self._outputs = int(outputs.shape[1]) if outputs.shape.rank == 2 else 1

        def scores(rows: Any) -> Any:
            outputs = tf.cast(self._source.call(tf.cast(rows, self._dtype)), tf.float32)
            return tf.reshape(outputs, [-1, self._outputs])

        self._scores = tf.function(scores, input_signature=[tf.TensorSpec([None, *self._shape], tf.float32)])

    def _graph(self) -> bytes:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([self._scores.get_concrete_function()], self)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            graph: bytes = converter.convert()
        except Exception as error:  # converters raise exceptions of any class
            raise ModelError(export_message(error)) from error
        return graph


def _keras_file(path: Path, input_: str, output: str) -> Source:
    """Read a Keras file. The output's name matters only if there are several."""
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=False)  # this process confines any code
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ModelError(f"Keras {keras.__version__} cannot read it: {_short(error, path.parent)}") from error
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ModelError("its inputs are not known: it was saved before it was built; begin it with keras.Input")
    _selected([tensor.name for tensor in inputs], "", "input")
    names = list(getattr(model, "output_names", ())) or [tensor.name for tensor in outputs]
    index = names.index(_selected(names, output if len(names) > 1 else "", "output"))

    def call(rows: Any) -> Any:
        return tf.nest.flatten(model(rows, training=False))[index]

    spec = tf.TensorSpec(inputs[0].shape, inputs[0].dtype)
    return Source(call, spec, model.count_params(), model)


def _saved_model(path: Path, input_: str, output: str) -> Source:
    """Read the signature serving_default of a SavedModel, or its only one.

    Names may be those of the signature or, as in TFaaS, those of the tensors behind it.
    """
    loaded = tf.saved_model.load(str(path), tags=TAGS)
    signatures = dict(loaded.signatures)
    name = SIGNATURE if SIGNATURE in signatures else _selected(list(signatures), "", "signature")
    signature = signatures[name]
    definition = _signature(path, name)
    inputs, outputs = signature.structured_input_signature[1], list(signature.structured_outputs)
    input_key = _selected(list(inputs), _by_tensor(input_, definition.inputs), "input", _tensors(definition.inputs))
    output_key = _selected(outputs, _by_tensor(output, definition.outputs), "output", _tensors(definition.outputs))
    if len(inputs) > 1:
        raise ModelError(f"signature '{name}' takes {len(inputs)} inputs: {', '.join(inputs)}; it must take one")
    parameters = sum(math.prod(variable.shape) for variable in signature.variables)
    return Source(lambda rows: signature(**{input_key: rows})[output_key], inputs[input_key], parameters, loaded)


def _frozen_graph(path: Path, input_: str, output: str) -> Source:
    """Read a TensorFlow 1 graph whose variables are frozen into constants."""
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError("it is not a TensorFlow graph (a binary protobuf GraphDef)") from error
    names = [node.name for node in definition.node]
    variables = [node.name for node in definition.node if node.op in ("Variable", "VariableV2", "VarHandleOp")]
    if variables:
        raise ModelError(f"it is not frozen: '{variables[0]}' is a variable; convert its variables to constants")
    input_ = _node(names, input_, "input", [node.name for node in definition.node if node.op == "Placeholder"])
    output = _node(names, output, "output", _ends(definition))
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    pruned = wrapped.prune(f"{input_}:0", f"{output}:0")
    tensor = wrapped.graph.as_graph_element(f"{input_}:0")
    parameters = sum(_size(node) for node in definition.node if node.op == "Const")
    return Source(pruned, tf.TensorSpec(tensor.shape, tensor.dtype), parameters, wrapped)


READERS: Mapping[str, Callable[[Path, str, str], Source]] = {
    "keras": _keras_file,
    "saved_model": _saved_model,
    "frozen_graph": _frozen_graph,
}


def _short(error: Exception, folder: Path) -> str:
    """Return a library's message without the path of the scratch folder."""
    return summary(error).replace(f"{folder}/", "")[:MAX_SUMMARY]


def _row_of(spec: Any) -> tuple[int, ...]:
    """Return the shape of one row. Raises: ModelError if the input is not a batch of number arrays of one shape."""
    if not _is_number(spec.dtype):
        raise ModelError(f"its input is {spec.dtype.name}; it must be numbers")
    if spec.shape.rank is None:
        raise ModelError("its input has no known shape; give it one whose first size is open")
    first, *sizes = spec.shape.as_list() or [1]
    if first is not None or not sizes or None in sizes:
        shape = [size if size is not None else "open" for size in spec.shape.as_list()]
        raise ModelError(
            f"its input has shape [{', '.join(map(str, shape))}]; the first size must be open (rows are computed in "
            "batches) and all others fixed"
        )
    return tuple(sizes)


def _is_number(dtype: Any) -> bool:
    return bool(dtype.is_floating or dtype.is_integer or dtype.is_bool)


def _selected(names: list[str], wanted: str, role: str, aliases: Iterable[str] = ()) -> str:
    """Return the wanted name, or the only one if wanted is ''. Raises: ModelError listing all."""
    listed = ", ".join([*sorted(names), *sorted(aliases)][:MAX_NAMES]) or "none"
    if wanted:
        if wanted not in names:
            raise ModelError(f"it has no {role} '{wanted[:100]}'; it has: {listed}")
        return wanted
    if len(names) != 1:
        hint = f"; name one as {role}_name in params.json" if role == "output" and names else ""
        raise ModelError(f"it has {len(names)} {role}s: {listed}{hint}")
    return names[0]


def _node(names: list[str], wanted: str, role: str, candidates: list[str]) -> str:
    """Return the wanted node, or the only candidate if wanted is ''. Raises: ModelError listing the candidates."""
    wanted = wanted.removesuffix(":0")
    if wanted in names:
        return wanted
    listed = ", ".join(candidates[:MAX_NAMES]) or ", ".join(names[:MAX_NAMES]) or "none"
    if wanted:
        raise ModelError(f"it has no node '{wanted[:100]}' for its {role}; it could be: {listed}")
    if len(candidates) != 1:
        raise ModelError(f"params.json names no {role}_node; it could be: {listed}")
    return candidates[0]


def _ends(definition: Any) -> list[str]:
    """Return the nodes whose values no other node uses."""
    used = {name.lstrip("^").partition(":")[0] for node in definition.node for name in node.input}
    return [node.name for node in definition.node if node.name not in used and node.op not in ("NoOp", "Const")]


def _size(node: Any) -> int:
    return math.prod(size.size for size in node.attr["value"].tensor.tensor_shape.dim)


def _signature(path: Path, name: str) -> Any:
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return next(graph.signature_def[name] for graph in saved.meta_graphs if name in graph.signature_def)


def _by_tensor(wanted: str, tensors: Mapping[str, Any]) -> str:
    """Return the signature's name for a tensor; other names unchanged."""
    bare = wanted.removesuffix(":0")
    return next((key for key, tensor in tensors.items() if tensor.name.removesuffix(":0") == bare), wanted)


def _tensors(tensors: Mapping[str, Any]) -> list[str]:
    return [tensor.name.removesuffix(":0") for tensor in tensors.values()]
