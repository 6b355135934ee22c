"""The program of a confined worker that runs graphs: rows in and scores out by shared memory."""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import socket
import time

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.models.graph_check import check_graph
from hepfaas.models.inference_messages import (
    DROP,
    LOAD,
    MESSAGE,
    MOST_DESCRIPTION_BYTES,
    OK,
    RUN,
    failure,
    outputs_start,
)
from hepfaas.models.litert import LiteRtModel

AWAKE_S = 200e-6
"""Time after an answer in which this process does not sleep: a wake-up takes as long as ten rows on a virtual machine.
It yields the processor to others meanwhile."""


FAILURES = (RequestError, ValueError, RuntimeError, MemoryError, OverflowError)
"""Errors of a graph that is not valid or refuses its rows, also those of LiteRT."""

FAILED_NODE = re.compile(r"(?P<reason>.*?)Node number \d+ \((?P<operation>\w+)\) failed to (?P<what>\w+)", re.DOTALL)

LOOKUPS = dict.fromkeys(
    ("GATHER", "GATHER_ND", "EMBEDDING_LOOKUP"),
    "; a feature lies outside of the range that an Embedding, or another lookup of the network, has entries for",
)


def serve(channel_number: int, memory_number: int) -> None:
    """Answer messages until the other end closes."""
    memory = mmap.mmap(memory_number, os.fstat(memory_number).st_size)
    os.close(memory_number)
    with socket.socket(fileno=channel_number) as channel:
        worker = _Worker(channel, memory)
        while message := _next(channel):
            worker.answer(*MESSAGE.unpack(message))


def _next(channel: socket.socket) -> bytes:
    """Return the next message, b"" at the end. The process stays awake for a client that sends again at once."""
    end = time.perf_counter() + AWAKE_S
    while time.perf_counter() < end:
        try:
            return channel.recv(MESSAGE.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            os.sched_yield()
    return channel.recv(MESSAGE.size)


class _Worker:
    def __init__(self, channel: socket.socket, memory: mmap.mmap) -> None:
        self._channel = channel
        self._floats = np.frombuffer(memory, np.float32)
        self._models: dict[int, tuple[LiteRtModel, tuple[int, ...], int]] = {}

    def answer(self, operation: int, model: int, rows: int) -> None:
        if operation == DROP:
            self._models.pop(model, None)
            return
        try:
            self._load(model) if operation == LOAD else self._run(model, rows)
            reason = OK
        except FAILURES as error:
            row = self._failing_row(model, rows) if operation == RUN else None
            reason = failure(_said(error), row)
        self._channel.send(reason)

    def _failing_row(self, number: int, rows: int) -> int | None:
        """Return the first row that the graph refuses, None if it is none alone."""
        model, shape, _ = self._models[number]
        features = self._floats[: rows * math.prod(shape)].reshape(rows, *shape)
        first, stop = 0, rows
        while stop - first > 1:
            middle = (first + stop) // 2
            first, stop = (first, middle) if _fails(model, features[first:middle]) else (middle, stop)
        return first if stop > first and _fails(model, features[first:stop]) else None

    def _load(self, number: int) -> None:
        data, (descriptor,), _, _ = socket.recv_fds(self._channel, MOST_DESCRIPTION_BYTES, 1)
        shape, outputs = json.loads(data)
        try:
            check_graph(_content(descriptor), shape, outputs)
            model = LiteRtModel(f"/proc/self/fd/{descriptor}")  # mapped: all workers share the pages
        finally:
            os.close(descriptor)
        scores = model.predict(np.zeros((1, *shape), dtype=np.float32))
        _check_outputs(scores, 1, outputs)
        self._models[number] = model, tuple(shape), outputs

    def _run(self, number: int, rows: int) -> None:
        model, shape, outputs = self._models[number]
        size = rows * math.prod(shape)
        scores = model.predict(self._floats[:size].reshape(rows, *shape))
        _check_outputs(scores, rows, outputs)
        start = outputs_start(size)
        self._floats[start : start + scores.size] = scores.reshape(-1)


def _fails(model: LiteRtModel, features: NDArray[np.float32]) -> bool:
    try:
        model.predict(features)
    except FAILURES:
        return True
    return False


def _said(error: Exception) -> str:
    """Return an error's text; of LiteRT's, which repeats all errors before it, the first reason and its operation."""
    text = str(error).strip() or type(error).__name__
    found = FAILED_NODE.match(text)
    if not found:
        return text
    reason, operation = found["reason"].strip() or f"it failed to {found['what']}", found["operation"]
    return f"operation {operation}: {reason}{LOOKUPS.get(operation, '')}"


def _content(descriptor: int) -> memoryview:
    if not os.fstat(descriptor).st_size:  # nothing to map
        return memoryview(b"")
    return memoryview(mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))


def _check_outputs(scores: NDArray[np.float32], rows: int, outputs: int) -> None:
    if scores.dtype != np.float32 or scores.shape != (rows, outputs):
        raise ValueError(
            f"the graph gives {scores.dtype} of shape {list(scores.shape)} for {rows} rows; it must give float32 of "
            f"shape {[rows, outputs]}"
        )
