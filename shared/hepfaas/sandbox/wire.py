"""Messages between a function and a confined process: a JSON header, then raw arrays. No pickle."""

from __future__ import annotations

import json
import math
import re
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

END_OF_LINES = b"\0"
"""Line after the output that was printed before an error, so that the log of a step has it."""

MOST_HEADER_BYTES = 64_000_000
"""Much more than the names of all variables and the places of all blocks take."""

MOST_ARRAYS = 1_000_000

MOST_AXES = 32

NUMBER = re.compile(r"[<>=|]?[biufcV](?:1|2|4|8|16)")
"""Types of arrays; V: numbers that NumPy does not have, such as bfloat16. Arrays of objects hold addresses, which the
sender could forge."""

_LENGTH = struct.Struct("<I")


class TooLargeError(ValueError):
    """A message is larger than its receiver accepts."""


@dataclass(frozen=True)
class Room:
    """The largest message that a receiver accepts: bytes of the header, which need up to 30 times as much memory as
    Python objects; number of arrays; bytes of all arrays together."""

    header_bytes: int = MOST_HEADER_BYTES
    arrays: int = MOST_ARRAYS
    array_bytes: float = math.inf


ANY = Room()
"""For messages of a trusted sender."""


def send(to: socket.socket, header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Send a header of JSON values and arrays. Raises: TimeoutError, ConnectionError."""
    contiguous = [np.asarray(array, order="C") for array in arrays]
    shapes = [[array.dtype.str, array.shape] for array in contiguous]
    text = json.dumps([header, shapes]).encode()
    to.sendall(_LENGTH.pack(len(text)) + text)
    for array in contiguous:
        if array.size:
            to.sendall(_memory(array))


def receive(
    source: socket.socket, room: Room = ANY, deadline: float | None = None
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return the next message. Nothing is allocated before its size is checked.

    deadline: of time.monotonic(), for the whole message.

    Raises: EOFError if the other side has closed; TimeoutError; TooLargeError; ValueError, TypeError, MemoryError or
    RecursionError if the bytes are not a message.
    """
    (length,) = _LENGTH.unpack(_exactly(source, bytearray(_LENGTH.size), deadline))
    if length > room.header_bytes:
        raise TooLargeError(f"a header of {length:,} bytes; at most {room.header_bytes:,}")
    header, shapes = json.loads(bytes(_exactly(source, bytearray(length), deadline)))
    if not isinstance(header, dict) or not isinstance(shapes, list):
        raise ValueError("a header that is not an object with a list of arrays")
    arrays = []
    for dtype, shape in _checked(shapes, room):
        array = np.empty(shape, dtype=dtype)
        if array.size:
            _exactly(source, _memory(array), deadline)
        arrays.append(array)
    return header, arrays


def _checked(shapes: list[Any], room: Room) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the types and shapes of the arrays of a message. Raises: TooLargeError; ValueError."""
    if len(shapes) > room.arrays:
        raise TooLargeError(f"{len(shapes):,} arrays; at most {room.arrays:,}")
    checked, size_bytes = [], 0
    for name, shape in shapes:
        if not isinstance(name, str) or not NUMBER.fullmatch(name):
            raise ValueError(f"an array of {str(name)[:40]!r}; only numbers are sent")
        if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(map(_is_size, shape)):
            raise ValueError(f"an array of shape {str(shape)[:40]}; a shape is at most {MOST_AXES} whole numbers")
        dtype = np.dtype(name)
        size_bytes += math.prod(shape) * dtype.itemsize
        if size_bytes > room.array_bytes:
            raise TooLargeError(f"{size_bytes // 10**6:,} MB of arrays; at most {room.array_bytes / 1e6:,.0f} MB")
        checked.append((dtype, tuple(shape)))
    return checked


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _memory(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    flat: Any = array.reshape(-1)
    return memoryview(flat).cast("B")


def _exactly(source: socket.socket, into: bytearray | memoryview, deadline: float | None) -> bytearray | memoryview:
    view, done = memoryview(into), 0
    while done < len(view):
        if deadline is not None:
            _await(source, deadline)
        count = source.recv_into(view[done:])
        if not count:
            raise EOFError("the other side has gone")
        done += count
    return into


def _await(source: socket.socket, deadline: float) -> None:
    """Wait until there are bytes to receive. Raises: TimeoutError."""
    readable = select.poll()
    readable.register(source, select.POLLIN)
    if not readable.poll(max(0, (deadline - time.monotonic()) * 1000)):
        raise TimeoutError("timed out")
