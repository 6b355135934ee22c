"""Rows and small networks for tests of the learner process."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hepfaas.learner.learner import Learner, LearnerSettings
from hepfaas.training.segments import Block, Rows, SplitPart, blocks_of
from numpy.typing import NDArray

FEATURES, ROWS = 6, 5_300
RNG = np.random.default_rng(5)
X = RNG.random((ROWS, FEATURES), dtype=np.float32)
Y = (X[:, 0] + 0.3 * X[:, 1] > 0.7).astype(np.int64)
IDS = RNG.integers(0, 2**64, ROWS, dtype=np.uint64)
PARTS = [SplitPart("p", 0, [(0, 2_000), (1, 800)]), SplitPart("q", 1, [(0, 2_000), (1, 500)])]

MODEL = """
import keras
def model(idim):
    layers = keras.layers
    net = keras.Sequential([
        keras.Input((idim,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.4),
        layers.Dense(1, activation="sigmoid")])
    net.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    print("made a network of", idim)
    return net
"""


def fetch(batch: str) -> Rows:
    part, number = batch.split("/")
    start, stop = (0, 2_800) if part == "p" else (2_800, ROWS)
    start += int(number) * 2_000
    rows = slice(start, min(start + 2_000, stop))
    return Rows(X[rows], Y[rows], IDS[rows])


def ignore(rows: int) -> None:
    """Ignore the progress."""


def ignore_line(line: str) -> None:
    """Ignore the log."""


def learner(code: str = MODEL, *, xla: bool | None = False, labels: tuple[int, ...] = (0, 1), **more: Any) -> Learner:
    settings = LearnerSettings(
        code={"model.py": code.encode()},
        module="model.py",
        n_features=FEATURES,
        labels=labels,
        batch_size=more.pop("batch_size", 100),
        seed=3,
        threads=2,
        xla=xla,
        weighted=more.pop("weighted", False),
        class_weight=more.pop("class_weight", ()),
    )
    return Learner(settings, on_log=more.pop("on_log", lambda line: None), **more)


def epoch(number: int) -> list[list[Block]]:
    """Return an epoch in two segments."""
    blocks = blocks_of(PARTS, number)
    half = [[piece for piece in block if piece.batch.startswith(part)] for part in "pq" for block in blocks]
    return [[half[0]], [half[1]]]


def train(worker: Learner, epochs: range, source: Callable[[str], Rows] = fetch) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for number in epochs:
        for place, segment in enumerate(epoch(number)):
            fitted = worker.fit(segment, source, seed=10 * number + place, first=place == 0, on_rows=ignore)
            metrics = dict(fitted.metrics)
    return metrics


def same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return list(one) == list(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)


HEAD = "import keras\nL = keras.layers\n"


def network(output: str, compiled: str) -> str:
    return (
        f"{HEAD}def model(idim):\n    net = keras.Sequential([keras.Input((idim,)), {output}])\n"
        f"    net.compile({compiled})\n    return net\n"
    )
