"""Computes graphs in confined workers: the side of the process that sends features and receives scores.

A graph's bytes come from users, and LiteRT does not validate them. So graphs run in processes without secrets, network
and files, which are replaced when they crash, hang or take too much memory.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
import select
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.models.inference_messages import (
    ALIGNMENT,
    DROP,
    LOAD,
    MESSAGE,
    MOST_REASON_BYTES,
    OK,
    RUN,
    failure_in,
    outputs_start,
)
from hepfaas.sandbox.processes import USUAL_MEMORY, ForkServer, Memory, Worker, fork_server, sealed_memory

ROWS = 2_000
"""Most rows in one message."""

MESSAGE_BYTES = 4_000_000
"""Most bytes in one message, unless a single row takes more."""

SEGMENT_BYTES = 16_777_216
"""Memory shared with a worker, unless a row needs more. Unused pages take no memory."""

COMPUTE_S, LOAD_S = 10.0, 30.0
"""A worker that takes longer to compute one message, or to load a graph, is ended."""

ENDING_S = 2.0
"""Longest wait for the exit status of a worker that has closed its channel."""

AIM_S = 0.25
"""Target time for the rows of one message."""

WORKER = "hepfaas.models.inference_worker"

_NUMBERS = itertools.count(1)


class GraphError(RequestError):
    """A graph cannot be loaded, or fails on its rows."""


class RowError(GraphError):
    """A graph refuses one of its rows. row: counted from 0."""

    def __init__(self, about: str, row: int, reason: str) -> None:
        super().__init__(f"{about} row {row:,}, counted from 0: {reason}")
        self.about, self.row, self.reason = about, row, reason

    def after(self, rows: int) -> RowError:
        """Return the error for a request that has these rows before those that were computed together."""
        return RowError(self.about, rows + self.row, self.reason)


class WorkerLostError(GraphError):
    """A graph has ended its worker."""


class Graph:
    """A LiteRT graph in memory that workers map.

    shape: of the features of one row. outputs: scores of one row. name: of the model, for messages.
    """

    def __init__(self, data: bytes | memoryview, shape: Sequence[int], outputs: int, name: str = "the model") -> None:
        self.number = next(_NUMBERS)
        self.shape, self.outputs, self.name = tuple(shape), outputs, name
        self.size_bytes = len(data)
        self.row_values = math.prod(shape)
        self.descriptor = sealed_memory(len(data), data)
        weakref.finalize(self, os.close, self.descriptor)

    def content(self) -> memoryview:
        """Return its bytes, which take no more memory; for hashing only."""
        return memoryview(mmap.mmap(self.descriptor, 0, prot=mmap.PROT_READ) if self.size_bytes else b"")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, features and scores."""
        return 4 * (self.row_values + self.outputs)


class InferenceWorker:
    """A worker that runs graphs. One message is under way at a time: `load` or `run`, then `receive`."""

    def __init__(self, server: ForkServer, memory: Memory, row_bytes: int) -> None:
        self.segment_bytes = max(SEGMENT_BYTES, 1 << (row_bytes + 2 * ALIGNMENT).bit_length())
        self._worker = Worker(server, WORKER, memory, self.segment_bytes)
        self._worker.channel.setblocking(False)  # a worker that does not read its messages counts as ended
        self._floats = np.frombuffer(self._worker.memory, np.float32)
        self._send, self._receive = self._worker.channel.send, self._worker.channel.recv
        self._poll = select.poll()
        self._poll.register(self._worker.channel, select.POLLIN)
        self.loaded: dict[int, int] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable once the answer has arrived."""
        return self._worker.channel.fileno()

    def close(self) -> None:
        """End the process, even if it is busy."""
        self._worker.close()

    def load(self, graph: Graph) -> None:
        """Begin to load a graph. Raises: OSError if the worker has ended."""
        description = json.dumps([graph.shape, graph.outputs]).encode()
        self._send(MESSAGE.pack(LOAD, graph.number, 0))
        socket.send_fds(self._worker.channel, [description], [graph.descriptor])
        self.loaded[graph.number] = graph.size_bytes

    def drop(self, number: int) -> None:
        """Forget a graph. Raises: OSError if the worker has ended."""
        del self.loaded[number]
        self._send(MESSAGE.pack(DROP, number, 0))

    def run(self, graph: Graph, parts: Sequence[NDArray[np.float32]]) -> None:
        """Begin to compute the rows of all parts. Raises: OSError if the worker has ended."""
        floats, start, rows = self._floats, 0, 0
        for part in parts:
            floats[start : start + part.size] = part.reshape(-1)
            start, rows = start + part.size, rows + len(part)
        self._send(MESSAGE.pack(RUN, graph.number, rows))

    def holds(self, row_bytes: int) -> bool:
        """Return whether a row of this size fits into the shared memory."""
        return row_bytes + 2 * ALIGNMENT <= self.segment_bytes

    def receive(self, graph: Graph) -> bool:
        """Take the answer to the last message; return False if the worker has closed its channel instead.

        Raises: GraphError with the reason of a failure.
        """
        try:
            answer = self._receive(MOST_REASON_BYTES)
        except OSError:
            return False
        if answer == OK:
            return True
        if not answer:
            return False
        reason, row = failure_in(answer)
        raise (
            GraphError(f"{graph.name} cannot be computed: {reason}")
            if row is None
            else RowError(f"{graph.name} cannot compute", row, reason)
        )

    def has_answered(self) -> bool:
        """Return whether `receive` would find something, without a wait."""
        return bool(self._poll.poll(0))

    def ending(self, timeout_s: float) -> str:
        """Return how the process ended, once it has closed its channel."""
        return self._worker.ending(timeout_s)

    def outputs(self, graph: Graph, rows: int) -> NDArray[np.float32]:
        """Return a copy of the scores, (rows, outputs), of the rows that were computed last."""
        start, count = outputs_start(rows * graph.row_values), rows * graph.outputs
        return self._floats[start : start + count].reshape(rows, graph.outputs).copy()


class ConfinedModel:
    """A graph in a worker of its own; calls wait for the answer. For one thread."""

    def __init__(self, server: ForkServer, graph: Graph, memory: Memory) -> None:
        self._server, self._graph, self._memory = server, graph, memory
        self._worker: InferenceWorker | None = None
        self._row_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        if self._worker:
            self._worker.close()
        self._worker = None

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores, (events, outputs), for features (events, features).

        Raises: GraphError if the graph cannot be loaded or fails on some rows; UnavailableError.
        """
        scores = np.zeros((len(features), self._graph.outputs), dtype=np.float32)
        start = 0
        while start < len(features):
            rows = min(rows_at_once(self._graph, self._row_s), len(features) - start)
            began = time.monotonic()
            try:
                scores[start : start + rows] = self._computed(features[start : start + rows])
            except RowError as error:
                raise error.after(start) from error
            self._row_s = (time.monotonic() - began) / rows
            start += rows
        return scores

    def _computed(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        graph = self._graph
        try:
            if self._worker is None:
                self._worker = InferenceWorker(self._server, self._memory, graph.row_bytes)
                self._worker.load(graph)
                self._wait(self._worker, LOAD_S)
            self._worker.run(graph, [features])
            self._wait(self._worker, COMPUTE_S)
            return self._worker.outputs(graph, len(features))
        except WorkerLostError:
            self.close()
            raise
        except OSError as error:  # it has ended
            how = self._worker.ending(ENDING_S) if self._worker else "ended"
            self.close()
            raise worker_lost(graph, how) from error

    def _wait(self, worker: InferenceWorker, limit_s: float) -> None:
        waiting = select.poll()
        waiting.register(worker, select.POLLIN)
        if not waiting.poll(1000 * limit_s):
            raise worker_lost(self._graph, f"did not answer for {limit_s:.0f} s and was ended")
        if not worker.receive(self._graph):
            raise worker_lost(self._graph, worker.ending(ENDING_S))


@dataclass(frozen=True)
class Inference:
    """Limits and fork server of the workers of a process."""

    memory: Memory = USUAL_MEMORY
    server: Callable[[], ForkServer] = fork_server

    def model(self, graph: Graph) -> ConfinedModel:
        """Return a model that computes the graph; its worker starts with the first rows."""
        return ConfinedModel(self.server(), graph, self.memory)


INFERENCE = Inference()
"""Workers with the usual limits."""


def worker_lost(graph: Graph, ending: str) -> WorkerLostError:
    """Return the error that says how a graph's worker ended."""
    return WorkerLostError(
        f"{graph.name}: the process that ran its graph {ending}; the graph crashes, does not end or takes too much "
        "memory with these rows"
    )


def rows_at_once(graph: Graph, row_s: float) -> int:
    """Return how many rows one message may have. row_s: seconds for one row, 0 if unknown."""
    by_size = MESSAGE_BYTES // graph.row_bytes
    by_time = int(AIM_S / row_s) if row_s else ROWS
    return max(1, min(ROWS, by_size, by_time))
