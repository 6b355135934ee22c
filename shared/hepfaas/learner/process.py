"""The learner process: runs the user's code on arrays that come in by a socket. Started by learner.py, in confined.py.

It ends when its socket closes, and the kernel ends it with the function that started it, whatever the user's code is
doing then.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.learner.feed import Buffers, Feed, Kept
from hepfaas.learner.user_errors import ModelError, told
from hepfaas.sandbox import wire
from hepfaas.sandbox.confinement import why

END_S = 5
"""Longest wait for the folder's removal once the function has gone."""


class Session:
    """Answers the messages of one function."""

    def __init__(self, source: socket.socket) -> None:
        self._socket = source
        self._code = Path.cwd() / "code"
        self._learner: Any = None

    def run(self) -> None:
        """Answers until the function goes away."""
        while True:
            try:
                header, arrays = wire.receive(self._socket)
            except EOFError:
                return
            self._answer(header, arrays)

    def _answer(self, header: dict[str, Any], arrays: list[NDArray[Any]]) -> None:
        try:
            answer, results = getattr(self, f"_do_{header.pop('do')}")(arrays, **header)
        except ModelError as error:
            answer, results = {"error": str(error) + why(error)}, []
        except (Exception, SystemExit) as error:  # whatever the user's code raises is the answer
            answer, results = {"error": told(error, self._code) + why(error)}, []
        if "error" in answer:
            with contextlib.suppress(OSError):  # the user's code may have closed it
                os.write(1, b"\n" + wire.END_OF_LINES + b"\n")
        wire.send(self._socket, answer, results)

    def _do_begin(self, arrays: object, cache_bytes: int, **settings: Any) -> Any:
        with silent():
            made = _kind(settings)
        self._kept, self._buffers = Kept(cache_bytes), Buffers(settings.get("n_features", 0))
        self._learner = made(self._code, settings)
        return {}, []

    def _do_make(self, arrays: object) -> Any:
        return self._learner.make(), []

    def _do_state(self, arrays: object) -> Any:
        state: Mapping[str, NDArray[Any]] = self._learner.state()
        return {"names": list(state)}, list(state.values())

    def _do_load(self, arrays: list[NDArray[Any]], names: list[str]) -> Any:
        self._learner.load(dict(zip(names, arrays, strict=True)))
        return {}, []

    def _do_fit(self, arrays: object, blocks: Any, seed: int, first: bool) -> Any:
        return self._passed(blocks, seed, lambda feed: self._learner.fit(feed, seed, first, self._tell)), []

    def _do_validate(self, arrays: object, blocks: Any, seed: int) -> Any:
        return self._passed(blocks, seed, lambda feed: self._learner.validate(feed, self._tell)), []

    def _do_predict(self, arrays: list[NDArray[Any]]) -> Any:
        return {}, [self._learner.predict(arrays[0])]

    def _do_export(self, arrays: object) -> Any:
        with silent():
            exported = self._learner.export()
        return {}, [np.frombuffer(part, dtype=np.uint8) for part in exported]

    def _do_convert(self, arrays: object) -> Any:
        with silent():
            facts, graph = self._learner.convert()
        return facts, [np.frombuffer(graph, dtype=np.uint8)]

    def _passed(self, blocks: Any, seed: int, use: Callable[[Feed], dict[str, Any]]) -> dict[str, Any]:
        feed = Feed(self._kept, self._buffers, blocks, seed)
        wire.send(self._socket, {"need": feed.needed})
        receiver = threading.Thread(target=feed.receive, args=(self._socket,), daemon=True)
        receiver.start()
        result = use(feed)
        receiver.join()
        return result

    def _tell(self, rows: int) -> None:
        wire.send(self._socket, {"rows_done": rows})


def _kind(settings: Mapping[str, Any]) -> Callable[[Path, Mapping[str, Any]], Any]:
    """What learns: the network of the user's code, or a model that was made elsewhere."""
    if "format" in settings:
        from hepfaas.learner.uploaded_model import UploadedModel

        return UploadedModel
    from hepfaas.learner.keras_learner import KerasLearner

    return KerasLearner


class silent:
    """While it lasts, what C++ libraries write to standard error goes nowhere."""

    def __enter__(self) -> None:
        self._kept = os.dup(2)
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)

    def __exit__(self, *error: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)


def serve(descriptor: int) -> None:
    """Answers on the socket with this file descriptor until its other end closes."""
    with socket.socket(fileno=descriptor) as connection:
        end = threading.Thread(target=_end_with, args=(connection, Path.cwd()), daemon=True)
        end.start()
        try:
            Session(connection).run()
        finally:
            end.join(timeout=END_S)


def _end_with(connection: socket.socket, scratch: Path) -> None:
    """Ends this process and empties its folder when the function has closed its end of the socket. With a function that
    is killed, the kernel ends this process at once (confined.py), and the next learner removes the folder."""
    hung_up = select.poll()
    hung_up.register(connection, 0)
    hung_up.poll()
    shutil.rmtree(scratch, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)
