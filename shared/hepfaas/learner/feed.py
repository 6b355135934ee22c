"""Record batches on their way to the model: cached in memory and shuffled by block, ahead of the training."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepfaas.runs.epochs import BLOCK_ROWS
from hepfaas.sandbox import wire

AHEAD = 2
"""Blocks that may arrive before they are needed."""

USUAL_ROWS = BLOCK_ROWS + 64
"""Rows of a buffer: those of a block, and a few more because the share of each label is rounded up."""

ALIGNMENT = 64
"""Bytes. TensorFlow uses a NumPy array without a copy if its memory starts at a multiple of this."""


class ShuffledBlock(NamedTuple):
    """Rows of a block in the order of training, in a buffer: features (capacity, features), labels (capacity,) or
    targets (capacity, targets), event weights (capacity,). weights: None if the training has none.

    The block's rows are [spare, spare + rows), after room for `spare` rows left over from the block before. All
    buffers of a learner have the same capacity, so that one compiled function takes them all. There are two: one is
    filled while the other is trained on.
    """

    features: NDArray[np.float32]
    labels: NDArray[Any]
    weights: NDArray[np.float32] | None
    spare: int
    rows: int
    id_sum: int

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Features, labels, and the weights if there are any."""
        return (self.features, self.labels, *(() if self.weights is None else (self.weights,)))


class Buffers:
    """Two matrices used alternately and kept between passes: allocating memory takes as long as filling it."""

    def __init__(self, n_features: int) -> None:
        self._n_features = n_features
        self._matrices: list[NDArray[np.float32]] = []

    def __call__(self, turn: int, capacity: int) -> NDArray[np.float32]:
        """Return the matrix (capacity, features) of this turn; it overwrites the matrix of two turns ago."""
        if not self._matrices or len(self._matrices[0]) != capacity:
            self._matrices = [aligned((capacity, self._n_features)) for _ in range(2)]
        return self._matrices[turn % 2]


class Feed:
    """The record batches of one pass: those cached by earlier passes, and those that arrive during it.

    factors: of the event weights, by label; None if the training has no weights. n_targets: of a regression, 0: rows
    have labels.
    """

    def __init__(
        self,
        cache: BatchCache,
        buffers: Buffers,
        blocks: Sequence[Sequence[Sequence[Any]]],
        seed: int,
        factors: Mapping[int, float] | None = None,
        n_targets: int = 0,
    ) -> None:
        self._n_targets = n_targets
        self._cache, self._buffers, self._blocks, self._seed = cache, buffers, blocks, seed
        self._factors = factors
        self.max_rows = max([USUAL_ROWS, *map(_rows_of, blocks)])
        self._first_use: dict[str, int] = {}
        self._last_use: dict[str, int] = {}
        for number, block in enumerate(blocks):
            for batch, _, _ in block:
                self._first_use.setdefault(batch, number)
                self._last_use[batch] = number
        self.needed = [batch for batch in self._first_use if batch not in cache]
        self._arrived: dict[str, list[NDArray[Any]]] = {}
        self._block = 0
        self._error: BaseException | None = None
        self._change = threading.Condition()

    def receive(self, source: socket.socket) -> None:
        """Receive all needed record batches; wait while the next one is more than `AHEAD` blocks ahead."""
        try:
            for _ in self.needed:
                header, arrays = wire.receive(source)
                with self._change:
                    self._change.wait_for(partial(self._is_near, header["batch"]))
                    self._arrived[header["batch"]] = arrays
                    self._change.notify_all()
        except (EOFError, OSError) as error:
            with self._change:
                self._error = error
                self._change.notify_all()

    def _is_near(self, batch: str) -> bool:
        return self._first_use[batch] <= self._block + AHEAD

    def shuffled(self, spare: int) -> Iterator[ShuffledBlock]:
        """Yield the blocks with shuffled rows, each prepared while the one before is trained on."""
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(self._shuffle, 0, spare) if self._blocks else None
            for number in range(len(self._blocks)):
                assert future is not None
                block = future.result()
                future = executor.submit(self._shuffle, number + 1, spare) if number + 1 < len(self._blocks) else None
                yield block

    def _shuffle(self, number: int, spare: int) -> ShuffledBlock:
        block = self._blocks[number]
        rows = _rows_of(block)
        order = np.random.Generator(np.random.PCG64([self._seed, number])).permutation(rows)
        capacity = spare + self.max_rows
        features = self._buffers(number, capacity)
        labels = no_labels(capacity, self._n_targets)
        weights = None if self._factors is None else np.zeros(capacity, dtype=np.float32)
        id_sum, done = 0, 0
        for batch, start, stop in block:
            batch_features, batch_labels, batch_ids, *batch_weights = self._batch(batch)
            indices = order[done : done + stop - start] + spare
            features[indices] = batch_features[start:stop]
            labels[indices] = batch_labels[start:stop]
            if weights is not None:
                weights[indices] = batch_weights[0][start:stop] if batch_weights else 1
            id_sum += int(batch_ids[start:stop].sum(dtype=np.uint64))
            done += stop - start
        self._release(number)
        if weights is not None:
            self._multiply(weights, labels)
        return ShuffledBlock(features, labels, weights, spare=spare, rows=rows, id_sum=id_sum)

    def _multiply(self, weights: NDArray[np.float32], labels: NDArray[Any]) -> None:
        for label, factor in (self._factors or {}).items():
            weights[labels == label] *= np.float32(factor)

    def _batch(self, name: str) -> list[NDArray[Any]]:
        if name in self._cache:
            return self._cache[name]
        with self._change:
            self._change.wait_for(lambda: name in self._arrived or self._error is not None)
            if self._error is not None and name not in self._arrived:
                raise EOFError("the function has closed its socket") from self._error
            return self._arrived[name]

    def _release(self, number: int) -> None:
        """Move the batches that no block after `number` needs to the cache, which drops them if it is full."""
        with self._change:
            for name in [name for name in self._arrived if self._last_use[name] <= number]:
                self._cache.offer(name, self._arrived.pop(name))
            self._block = number + 1
            self._change.notify_all()


class BatchCache:
    """Record batches kept in memory for later epochs, as many as fit: each epoch needs all of them again."""

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._batches: dict[str, list[NDArray[Any]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._batches

    def __getitem__(self, name: str) -> list[NDArray[Any]]:
        return self._batches[name]

    def offer(self, name: str, arrays: list[NDArray[Any]]) -> None:
        """Keep the batch if it fits."""
        size = sum(array.nbytes for array in arrays)
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._batches[name] = arrays


def no_labels(rows: int, n_targets: int) -> NDArray[Any]:
    """Return zeros as the labels of rows, (rows,), or as their targets, (rows, targets), if there are any."""
    return np.zeros((rows, n_targets), dtype=np.float32) if n_targets else np.zeros(rows, dtype=np.int64)


def aligned(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an uninitialised array that TensorFlow uses without a copy."""
    size = shape[0] * shape[1] * 4
    memory = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def _rows_of(block: Sequence[Sequence[Any]]) -> int:
    return sum(stop - start for _, start, stop in block)
