"""The LiteRT graph of a Keras network. Runs only in the learner process.

Networks are served in float32, and recurrent layers unrolled, whatever they were trained in: LiteRT has neither
float16 nor loops over the steps of a sequence. Neither changes a weight.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


@contextlib.contextmanager
def as_served(model: Any, *, unrolled: bool = False) -> Iterator[None]:
    """Context in which all layers of a network compute in float32; unrolled: and recurrent ones without a loop."""
    layers = list(model._flatten_layers())  # Keras has no public name for the layers in layers
    policies = [(layer, layer.dtype_policy) for layer in layers if layer.compute_dtype not in (None, "float32")]
    loops = [layer for layer in layers if unrolled and isinstance(layer, keras.layers.RNN) and not layer.unroll]
    for layer, _ in policies:
        layer.dtype_policy = _float32(layer.variable_dtype)
    for layer in loops:
        layer.unroll = True
    try:
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy
        for layer in loops:
            layer.unroll = False


def _float32(variable_dtype: str) -> Any:
    """Return the policy of a layer that computes in float32, whatever its variables are."""
    policy = keras.DTypePolicy("float32")
    policy._variable_dtype = variable_dtype  # Keras has no name for this pair
    return policy


def traced(model: Any, n_features: int, *, unrolled: bool = False) -> Any:
    """Return the function of a network as served, from rows (events, features) to its outputs, both float32."""

    def outputs(rows: Any) -> Any:
        return tf.cast(model(rows, training=False), tf.float32)

    with as_served(model, unrolled=unrolled):
        function = tf.function(outputs, input_signature=[tf.TensorSpec([None, n_features], tf.float32)])
        return function.get_concrete_function()


def graph_of(model: Any, n_features: int) -> bytes:
    """Return the LiteRT graph. Raises: any exception of TensorFlow's converter."""
    function = traced(model, n_features, unrolled=True)
    # The second argument owns the variables: with a Keras model, the converter leaves them out of the graph.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], object())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    with contextlib.redirect_stdout(io.StringIO()):
        graph: bytes = converter.convert()
    return graph
