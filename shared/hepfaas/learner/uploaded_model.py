"""A model that was made elsewhere, as one function of float32 rows, and as the LiteRT graph that is served for it.

Runs in the learner process alone: a SavedModel is a program, and so is a Keras file.
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
from hepfaas.learner.user_errors import ModelError, not_exported, what

LOOK_VALUES = 2_000_000
"""Most numbers that the model is given at once."""

MOST_NAMES = 12
MOST_SAID = 300
SIGNATURE = "serving_default"
TAGS = ["serve"]


@dataclass(frozen=True)
class Source:
    """What was read: a function of one tensor, what that must be, and how many numbers it has learned.

    holds: what must not be forgotten while the function is used.
    """

    call: Callable[[Any], Any]
    input: Any
    parameters: int
    holds: Any = None


class UploadedModel:
    """Somebody's model. settings: 'module', what it is called in messages; 'file' in the folder of its files; 'format';
    'input' and 'output', names of its nodes, '': those that it has."""

    def __init__(self, code: Path, settings: Mapping[str, Any]) -> None:
        self._code, self._settings = code, settings
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def convert(self) -> tuple[dict[str, Any], bytes]:
        """What the model takes and gives, and its LiteRT graph. Raises: ModelError saying why there can be none."""
        try:
            self._read()
            graph = self._graph()
        except ModelError as error:
            raise ModelError(f"{self._settings['module']}: {error}") from error
        except Exception as error:  # libraries that read such files raise what they like
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
        """What the model itself gives, (events, outputs), for features (events, …)."""
        rows = max(1, LOOK_VALUES // math.prod(self._shape))
        parts = [features[start : start + rows] for start in range(0, len(features), rows)]
        return np.concatenate([np.asarray(self._scores(tf.constant(part))) for part in parts])

    def _read(self) -> None:
        path = self._code / self._settings["file"]
        self._source = READERS[self._settings["format"]](path, self._settings["input"], self._settings["output"])
        self._shape, self._dtype = _row_of(self._source.input), self._source.input.dtype
        outputs = self._source.call(tf.zeros([2, *self._shape], self._dtype))
        if outputs.shape.rank not in (1, 2) or outputs.shape[0] != 2:
            raise ModelError(
                f"two rows give an array of shape {outputs.shape.as_list()}; a row of scores for each is served"
            )
        if not _is_number(outputs.dtype):
            raise ModelError(f"it gives {outputs.dtype.name}; scores are numbers")
        self._outputs = int(outputs.shape[1]) if outputs.shape.rank == 2 else 1

        def scores(rows: Any) -> Any:
            found = tf.cast(self._source.call(tf.cast(rows, self._dtype)), tf.float32)
            return tf.reshape(found, [-1, self._outputs])

        self._scores = tf.function(scores, input_signature=[tf.TensorSpec([None, *self._shape], tf.float32)])

    def _graph(self) -> bytes:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([self._scores.get_concrete_function()], self)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            graph: bytes = converter.convert()
        except Exception as error:  # converters raise what they like
            raise ModelError(not_exported(error)) from error
        return graph


def _keras_file(path: Path, input_: str, output: str) -> Source:
    """A file of Keras; names of its nodes say nothing unless it has several."""
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=False)  # it is as safe as any code here
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ModelError(f"Keras {keras.__version__} cannot read it: {_short(error, path.parent)}") from error
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ModelError("its inputs are not known: it was saved before it was built; begin it with keras.Input")
    _the_only([one.name for one in inputs], "", "input")
    names = list(getattr(model, "output_names", ())) or [one.name for one in outputs]
    chosen = names.index(_the_only(names, output if len(names) > 1 else "", "output"))

    def call(rows: Any) -> Any:
        found = model(rows, training=False)
        return tf.nest.flatten(found)[chosen]

    spec = tf.TensorSpec(inputs[0].shape, inputs[0].dtype)
    return Source(call, spec, model.count_params(), model)


def _saved_model(path: Path, input_: str, output: str) -> Source:
    """The signature serving_default of a SavedModel, or its only one. Names may be the signature's own or those of the
    tensors behind it, as TFaaS takes them."""
    loaded = tf.saved_model.load(str(path), tags=TAGS)
    signatures = dict(loaded.signatures)
    name = SIGNATURE if SIGNATURE in signatures else _the_only(list(signatures), "", "signature")
    signature = signatures[name]
    described = _signature(path, name)
    takes = signature.structured_input_signature[1]
    key = _the_only(list(takes), _by_tensor(input_, described.inputs), "input", _tensors(described.inputs))
    gives = list(signature.structured_outputs)
    chosen = _the_only(gives, _by_tensor(output, described.outputs), "output", _tensors(described.outputs))
    if len(takes) > 1:
        raise ModelError(
            f"signature '{name}' takes {len(takes)} inputs: {', '.join(takes)}; a model with one is served"
        )
    parameters = sum(math.prod(variable.shape) for variable in signature.variables)
    return Source(lambda rows: signature(**{key: rows})[chosen], takes[key], parameters, loaded)


def _frozen_graph(path: Path, input_: str, output: str) -> Source:
    """A graph of TensorFlow 1 whose variables are constants."""
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError("it is no graph of TensorFlow (a GraphDef in protobuf's binary form)") from error
    names = [node.name for node in definition.node]
    variables = [node.name for node in definition.node if node.op in ("Variable", "VariableV2", "VarHandleOp")]
    if variables:
        raise ModelError(f"it is not frozen: '{variables[0]}' is a variable; make constants of its variables")
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
    """What a library says, without the name of our scratch folder."""
    return what(error).replace(f"{folder}/", "")[:MOST_SAID]


def _row_of(spec: Any) -> tuple[int, ...]:
    """The shape of one row. Raises: ModelError if rows of different shapes, or none of numbers, are taken."""
    if not _is_number(spec.dtype):
        raise ModelError(f"its input is {spec.dtype.name}; numbers are served")
    if spec.shape.rank is None:
        raise ModelError("its input has no known shape; give it one, the first size open")
    first, *sizes = spec.shape.as_list() or [1]
    if first is not None or not sizes or None in sizes:
        said = [size if size is not None else "open" for size in spec.shape.as_list()]
        raise ModelError(
            f"its input has shape [{', '.join(map(str, said))}]; the first size must be open (rows are computed "
            "together) and all others known"
        )
    return tuple(sizes)


def _is_number(dtype: Any) -> bool:
    return bool(dtype.is_floating or dtype.is_integer or dtype.is_bool)


def _the_only(names: list[str], wanted: str, what_: str, also: Iterable[str] = ()) -> str:
    """The wanted one of some names, or the only one. Raises: ModelError naming all."""
    there = ", ".join([*sorted(names), *sorted(also)][:MOST_NAMES]) or "none"
    if wanted:
        if wanted not in names:
            raise ModelError(f"it has no {what_} '{wanted[:100]}'; it has: {there}")
        return wanted
    if len(names) != 1:
        way = f"; name one as {what_}_name in params.json" if what_ == "output" and names else ""
        raise ModelError(f"it has {len(names)} {what_}s: {there}{way}")
    return names[0]


def _node(names: list[str], wanted: str, what_: str, usual: list[str]) -> str:
    """The node of that name, or the only one that it can be."""
    wanted = wanted.removesuffix(":0")
    if wanted in names:
        return wanted
    there = ", ".join(usual[:MOST_NAMES]) or ", ".join(names[:MOST_NAMES]) or "none"
    if wanted:
        raise ModelError(f"it has no node '{wanted[:100]}' for its {what_}; it could be: {there}")
    if len(usual) != 1:
        raise ModelError(f"params.json names no {what_}_node; it could be: {there}")
    return usual[0]


def _ends(definition: Any) -> list[str]:
    """Nodes whose values nobody uses."""
    used = {name.lstrip("^").partition(":")[0] for node in definition.node for name in node.input}
    return [node.name for node in definition.node if node.name not in used and node.op not in ("NoOp", "Const")]


def _size(node: Any) -> int:
    return math.prod(size.size for size in node.attr["value"].tensor.tensor_shape.dim)


def _signature(path: Path, name: str) -> Any:
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return next(graph.signature_def[name] for graph in saved.meta_graphs if name in graph.signature_def)


def _by_tensor(wanted: str, described: Mapping[str, Any]) -> str:
    """The signature's own name of a tensor."""
    bare = wanted.removesuffix(":0")
    return next((key for key, tensor in described.items() if tensor.name.removesuffix(":0") == bare), wanted)


def _tensors(described: Mapping[str, Any]) -> list[str]:
    return [tensor.name.removesuffix(":0") for tensor in described.values()]
