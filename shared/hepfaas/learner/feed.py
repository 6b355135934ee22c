"""Record batches on their way to the model: kept in memory, shuffled by block, ahead of the training."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
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
"""Rows of a buffer: those of a block, and the few by which shares of labels are rounded up."""

ALIGNMENT = 64
"""Bytes; TensorFlow takes a NumPy array as it is, without a copy, if it starts at a multiple of this."""


class Mixed(NamedTuple):
    """Rows of a block in the order of training, in a buffer: features (capacity, features), labels (capacity,).

    The block's are rows [spare, spare + rows); before them is room for `spare` rows left of the block before. All
    buffers of a learner have one capacity, so that what is compiled for one serves all. Two buffers take turns: a
    block's is written anew while the one after it is trained.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    spare: int
    rows: int
    id_sum: int


class Buffers:
    """Two matrices that take turns, kept from pass to pass: fresh memory costs as much time as filling it."""

    def __init__(self, n_features: int) -> None:
        self._n_features = n_features
        self._matrices: list[NDArray[np.float32]] = []

    def __call__(self, turn: int, capacity: int) -> NDArray[np.float32]:
        """The matrix (capacity, features) of this turn; what it held two turns ago is lost."""
        if not self._matrices or len(self._matrices[0]) != capacity:
            self._matrices = [aligned((capacity, self._n_features)) for _ in range(2)]
        return self._matrices[turn % 2]


class Feed:
    """The record batches of one pass: those kept from earlier passes, and those that arrive meanwhile."""

    def __init__(self, kept: Kept, buffers: Buffers, blocks: Sequence[Sequence[Sequence[Any]]], seed: int) -> None:
        self._kept, self._buffers, self._blocks, self._seed = kept, buffers, blocks, seed
        self.most_rows = max([USUAL_ROWS, *map(_rows_of, blocks)])
        self._first_use: dict[str, int] = {}
        self._last_use: dict[str, int] = {}
        for number, block in enumerate(blocks):
            for batch, _, _ in block:
                self._first_use.setdefault(batch, number)
                self._last_use[batch] = number
        self.needed = [batch for batch in self._first_use if batch not in kept]
        self._arrived: dict[str, list[NDArray[Any]]] = {}
        self._block = 0
        self._gone: BaseException | None = None
        self._change = threading.Condition()

    def receive(self, source: socket.socket) -> None:
        """Takes what arrives, until all that is needed is there; waits where it would run too far ahead."""
        try:
            for _ in self.needed:
                header, arrays = wire.receive(source)
                with self._change:
                    self._change.wait_for(partial(self._near, header["batch"]))
                    self._arrived[header["batch"]] = arrays
                    self._change.notify_all()
        except (EOFError, OSError) as error:
            with self._change:
                self._gone = error
                self._change.notify_all()

    def _near(self, batch: str) -> bool:
        """Whether a batch is of a block that comes soon."""
        return self._first_use[batch] <= self._block + AHEAD

    def mixed(self, spare: int) -> Iterator[Mixed]:
        """The blocks, rows shuffled, each prepared while the one before is trained."""
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._mix, 0, spare) if self._blocks else None
            for number in range(len(self._blocks)):
                assert coming is not None
                block = coming.result()
                coming = ahead.submit(self._mix, number + 1, spare) if number + 1 < len(self._blocks) else None
                yield block

    def _mix(self, number: int, spare: int) -> Mixed:
        block = self._blocks[number]
        rows = _rows_of(block)
        order = np.random.Generator(np.random.PCG64([self._seed, number])).permutation(rows)
        capacity = spare + self.most_rows
        features = self._buffers(number, capacity)
        labels = np.zeros(capacity, dtype=np.int64)
        ids, done = 0, 0
        for batch, start, stop in block:
            some_features, some_labels, some_ids = self._batch(batch)
            places = order[done : done + stop - start] + spare
            features[places] = some_features[start:stop]
            labels[places] = some_labels[start:stop]
            ids += int(some_ids[start:stop].sum(dtype=np.uint64))
            done += stop - start
        self._used(number)
        return Mixed(features, labels, spare, rows, ids)

    def _batch(self, name: str) -> list[NDArray[Any]]:
        if name in self._kept:
            return self._kept[name]
        with self._change:
            self._change.wait_for(lambda: name in self._arrived or self._gone is not None)
            if self._gone is not None and name not in self._arrived:
                raise EOFError("the function has gone") from self._gone
            return self._arrived[name]

    def _used(self, number: int) -> None:
        """Block `number` is mixed: what no later one needs is kept if there is room, else forgotten."""
        with self._change:
            for name in [name for name in self._arrived if self._last_use[name] <= number]:
                self._kept.offer(name, self._arrived.pop(name))
            self._block = number + 1
            self._change.notify_all()


class Kept:
    """Record batches kept in memory for later epochs, as many as fit: each epoch needs all of them again."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._batches: dict[str, list[NDArray[Any]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._batches

    def __getitem__(self, name: str) -> list[NDArray[Any]]:
        return self._batches[name]

    def offer(self, name: str, arrays: list[NDArray[Any]]) -> None:
        """Keeps the batch if there is room for it."""
        size = sum(array.nbytes for array in arrays)
        if size <= self._left:
            self._left -= size
            self._batches[name] = arrays


def aligned(shape: tuple[int, int]) -> NDArray[np.float32]:
    """An empty array that TensorFlow takes without a copy."""
    size = shape[0] * shape[1] * 4
    memory = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def _rows_of(block: Sequence[Sequence[Any]]) -> int:
    return sum(stop - start for _, start, stop in block)
