"""Calls of functions in a confined worker: values and arrays in, values and arrays out.

A worker may call back for bytes that only its parent can fetch, or to announce what it will take. A worker that has
read hostile bytes is hostile: its messages are limited before they are received, and its callbacks are checked.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from hepfaas.errors import NotThereError, RequestError, TooLargeError, UnavailableError
from hepfaas.sandbox import wire
from hepfaas.sandbox.processes import ForkServer, Memory, ending_of

Answer = tuple[Mapping[str, Any], Sequence[NDArray[Any]]]
Back = Callable[[Mapping[str, Any]], Sequence[NDArray[Any]]]
"""A callback: values in, arrays out. Raises: ValueError if the values are wrong."""

CALL_S = 240.0
ENDING_S = 2.0
"""Longest wait for the exit status of a worker that has closed its channel."""

MOST_TEXT = 2_000
"""Characters of an error message."""

ROOM = wire.Room(header_bytes=4_000_000, arrays=20_000, array_bytes=600_000_000)
KINDS = {kind.__name__: kind for kind in (RequestError, NotThereError, TooLargeError)}


class WorkerLostError(RequestError):
    """The worker crashed, did not answer in time, or sent an invalid answer."""


class TaskWorker:
    """A confined process that answers calls, one at a time. After an error of the process itself it is closed."""

    closed = True

    def __init__(self, server: ForkServer, module: str, memory: Memory, descriptors: Sequence[int] = ()) -> None:
        self._memory = memory
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._exit_pipe = server.fork(module, memory, [theirs.fileno(), *descriptors])
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # a worker without references ends

    def close(self) -> None:
        """End the process."""
        if not self.closed:
            self.closed = True
            self._channel.close()
            os.close(self._exit_pipe)

    def call(
        self,
        function: str,
        values: Mapping[str, Any],
        arrays: Sequence[NDArray[Any]] = (),
        *,
        back: Mapping[str, Back] | None = None,
        room: wire.Room = ROOM,
        limit_s: float = CALL_S,
    ) -> Answer:
        """Return the result of a function of the worker. back: callbacks by name.

        Raises: errors of the function, if they are in `KINDS`; errors of a callback; WorkerLostError.
        """
        deadline = time.monotonic() + limit_s
        try:
            header, results = self._answer(function, values, arrays, back=back or {}, room=room, deadline=deadline)
        except _LostError as error:
            ending = str(error) or ending_of(self._exit_pipe, ENDING_S)
            self.close()
            raise WorkerLostError(
                f"the process that reads it {ending}; the data is damaged, or takes more than "
                f"{self._memory.worker_mb:,} MB to read"
            ) from error
        except BaseException:
            self.close()
            raise
        if "error" in header:
            raise KINDS.get(str(header.get("kind")), RequestError)(str(header["error"])[:MOST_TEXT])
        return header, results

    def _answer(
        self,
        function: str,
        values: Mapping[str, Any],
        arrays: Sequence[NDArray[Any]],
        *,
        back: Mapping[str, Back],
        room: wire.Room,
        deadline: float,
    ) -> Answer:
        self._channel.settimeout(max(0.001, deadline - time.monotonic()))
        self._send({"function": function, **values}, arrays)
        while True:
            try:
                header, results = wire.receive(self._channel, room, deadline)
                callback = back[str(header["call"])] if "call" in header else None
            except TimeoutError as error:
                raise _LostError("did not answer in time and was ended") from error
            except wire.TooLargeError as error:
                raise _LostError(f"sent {error}, and was ended") from error
            except (EOFError, OSError) as error:
                raise _LostError from error
            except (LookupError, ValueError, TypeError, MemoryError, RecursionError) as error:
                raise _LostError("sent an invalid answer, and was ended") from error
            if callback is None:
                return header, results
            try:
                arrays = callback(header)
            except ValueError as error:
                raise _LostError(f"made an invalid request ({error}), and was ended") from error
            self._send({}, arrays)

    def _send(self, header: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
        try:
            wire.send(self._channel, header, arrays)
        except OSError as error:
            raise _LostError from error


class _LostError(Exception):
    """The worker was lost; the message says how, '' if it ended by itself."""


class Callbacks:
    """The callbacks of the parent process, for the functions of a worker."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def __call__(self, name: str, **values: Any) -> Sequence[NDArray[Any]]:
        """Return the arrays of a callback. If it fails, this process ends."""
        wire.send(self._channel, {"call": name, **values})
        return wire.receive(self._channel)[1]


def serve_calls(channel_number: int, functions_of: Callable[[Callbacks], Mapping[str, Callable[..., Answer]]]) -> None:
    """Answer calls in a worker until the channel closes. Each function takes the values by name, and `arrays`."""
    with socket.socket(fileno=channel_number) as channel:
        functions = functions_of(Callbacks(channel))
        while True:
            try:
                header, arrays = wire.receive(channel)
            except EOFError:
                return
            try:
                answer, results = functions[header.pop("function")](arrays=arrays, **header)
            except (RequestError, UnavailableError) as error:
                answer, results = {"error": str(error)[:MOST_TEXT], "kind": type(error).__name__}, []
            except MemoryError:
                text = "it takes more memory to read than is available"
                answer, results = {"error": text, "kind": "RequestError"}, []
            wire.send(channel, answer, results)
