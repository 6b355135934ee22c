"""Messages between a function and its learner process: a JSON header and raw arrays, one after the other. No pickle."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

END_OF_LINES = b"\0"
"""The line behind what was printed before an error was told, so that the log of a step has what led to it."""

MOST_HEADER_BYTES = 64_000_000
"""Names of all variables and the places of all blocks fit many times over."""

NUMBERS = "biufcV"
"""Kinds of arrays; V: numbers that NumPy has not, as bfloat16. Objects are addresses: the sender could put in its own,
which would be taken for ours."""

_LENGTH = struct.Struct("<I")


def send(to: socket.socket, header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Sends a header of JSON values and some arrays. Raises: TimeoutError, ConnectionError."""
    whole = [np.asarray(array, order="C") for array in arrays]
    shapes = [[array.dtype.str, array.shape] for array in whole]
    text = json.dumps([header, shapes]).encode()
    to.sendall(_LENGTH.pack(len(text)) + text)
    for array in whole:
        if array.size:
            to.sendall(_memory(array))


def receive(source: socket.socket) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The next message. Raises: EOFError if the other side has gone, TimeoutError; ValueError and its like for what is
    no message."""
    (length,) = _LENGTH.unpack(_exactly(source, bytearray(_LENGTH.size)))
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length:,} bytes; at most {MOST_HEADER_BYTES:,}")
    header, shapes = json.loads(bytes(_exactly(source, bytearray(length))))
    arrays = []
    for dtype, shape in shapes:
        if (type_ := np.dtype(dtype)).kind not in NUMBERS or type_.hasobject:
            raise ValueError(f"an array of {type_}; numbers alone are sent")
        array = np.empty(shape, dtype=type_)
        if array.size:
            _exactly(source, _memory(array))
        arrays.append(array)
    return header, arrays


def _memory(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    flat: Any = array.reshape(-1)
    return memoryview(flat).cast("B")


def _exactly(source: socket.socket, into: bytearray | memoryview) -> bytearray | memoryview:
    view, done = memoryview(into), 0
    while done < len(view):
        count = source.recv_into(view[done:])
        if not count:
            raise EOFError("the other side has gone")
        done += count
    return into
