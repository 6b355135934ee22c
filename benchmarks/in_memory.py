"""Alternatives to the learner on a matrix in memory: plain `fit`, and hand-written compiled loops.

Runs in a separate process, so that no other imports TensorFlow. Prints the seconds of each epoch as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

BATCH, BLOCK, EPOCHS = 100, 32_000, 4


def network(features: int, kind: str = "plain") -> Any:
    """Return the measured network, 128-64-1; kind: what follows a hidden layer, 'dropout', 'norm' or nothing."""
    layers = keras.layers
    further = {
        "plain": lambda: [],
        "dropout": lambda: [layers.Dropout(0.5)],
        "norm": lambda: [layers.BatchNormalization()],
    }
    model = keras.Sequential(
        [
            keras.Input((features,)),
            layers.Dense(128, activation="relu"),
            *further[kind](),
            layers.Dense(64, activation="relu"),
            *further[kind](),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(loss="binary_crossentropy", optimizer="adam")
    return model


def by_fit(x: Any, y: Any, kind: str) -> list[float]:
    """Time plain `fit`."""
    model = network(x.shape[1], kind)
    return [_seconds(lambda: model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)) for _ in range(EPOCHS)]


def by_slices(x: Any, y: Any, xla: bool) -> list[float]:
    """Time one compiled loop over the batches of a shuffled block, which calls the model's train_step on slices."""
    model = _built(x, y)

    @tf.function(jit_compile=xla)
    def loop(rows: Any, labels: Any) -> None:
        def body(start: Any) -> Any:
            features = tf.slice(rows, [start, 0], [BATCH, x.shape[1]])
            model.train_step((features, tf.slice(labels, [start], [BATCH])))
            return start + BATCH

        tf.while_loop(lambda start: start < BLOCK, body, [tf.constant(0)], parallel_iterations=1)

    def epoch() -> None:
        order = np.random.default_rng(1).permutation(len(x))
        for start in range(0, len(x), BLOCK):
            rows = order[start : start + BLOCK]
            loop(tf.constant(x[rows]), tf.constant(y[rows]))

    return [_seconds(epoch) for _ in range(EPOCHS)]


def by_gather(x: Any, y: Any, xla: bool) -> list[float]:
    """Time one compiled loop over an epoch, which gathers the rows of each batch from the whole matrix."""
    model = _built(x, y)
    features, labels = tf.constant(x), tf.constant(y)

    @tf.function(jit_compile=xla)
    def loop(rows: Any, truth: Any, order: Any) -> None:
        def body(start: Any) -> Any:
            chosen = tf.slice(order, [start], [BATCH])
            model.train_step((tf.gather(rows, chosen), tf.gather(truth, chosen)))
            return start + BATCH

        tf.while_loop(lambda start: start < len(x), body, [tf.constant(0)], parallel_iterations=1)

    def epoch() -> None:
        loop(features, labels, tf.constant(np.random.default_rng(1).permutation(len(x)).astype(np.int32)))

    return [_seconds(epoch) for _ in range(EPOCHS)]


def _built(x: Any, y: Any) -> Any:
    model = network(x.shape[1])
    model.optimizer.build(model.trainable_variables)
    model.test_step((x[:1], y[:1]))
    return model


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    rows, width, threads = map(int, sys.argv[1:4])
    network_kind = sys.argv[4]
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    features = rng.random((rows, width), dtype=np.float32)
    labels = (features[:, 0] > 0.5).astype(np.int64)
    times = {"fit": by_fit(features, labels, network_kind)}
    for name, xla in (("loop", False), ("xla loop", True)) if network_kind == "plain" else ():
        loops = by_slices(features, labels, xla), by_gather(features, labels, xla)
        times[name] = min(loops, key=lambda seconds: min(seconds[1:]))
    sys.stdout.write(json.dumps(times))
