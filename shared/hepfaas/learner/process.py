"""The learner process: runs the user's code on arrays that it receives on a socket. Started by learner.py.

It ends when its socket closes, and the kernel ends it with the function that started it, whatever the user's code is
doing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.learner.feed import BatchCache, Buffers, Feed
from hepfaas.learner.user_errors import ModelError, message_of
from hepfaas.sandbox import wire
from hepfaas.sandbox.confinement import why

OPTIONAL = ("IPython", "matplotlib", "pandas", "scipy", "sklearn")
"""Packages that Keras or TensorFlow import if they are there. The image of `train` has none of them."""

END_S = 5
"""Longest wait for the folder's removal after the function has closed the socket."""


class Session:
    """Answers the requests of one function."""

    def __init__(self, source: socket.socket) -> None:
        self._socket = source
        self._code = Path.cwd() / "code"
        self._learner: Any = None

    def run(self) -> None:
        """Answer until the function closes the socket."""
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
        except (Exception, SystemExit) as error:  # any error of the user's code is the answer
            answer, results = {"error": message_of(error, self._code) + why(error)}, []
        if "error" in answer:
            with contextlib.suppress(OSError):  # the user's code may have closed it
                os.write(1, b"\n" + wire.END_OF_LINES + b"\n")
        wire.send(self._socket, answer, results)

    def _do_begin(self, arrays: object, cache_bytes: int, **settings: Any) -> Any:
        with silent(), without_optional_packages():
            kind = _kind(settings)
        self._cache, self._buffers = BatchCache(cache_bytes), Buffers(settings.get("n_features", 0))
        self._learner = kind(self._code, settings)
        return {}, []

    def _do_make(self, arrays: object) -> Any:
        return self._learner.make(), []

    def _do_state(self, arrays: object) -> Any:
        state: Mapping[str, NDArray[Any]] = self._learner.state()
        return {"names": list(state)}, list(state.values())

    def _do_load(self, arrays: list[NDArray[Any]], names: list[str]) -> Any:
        self._learner.load(dict(zip(names, arrays, strict=True)))
        return {}, []

    def _do_begin_epoch(self, arrays: object, **values: Any) -> Any:
        self._learner.begin_epoch(**values)
        return {}, []

    def _do_end_epoch(self, arrays: object, metrics: Mapping[str, float]) -> Any:
        return {"stop": self._learner.end_epoch(metrics)}, []

    def _do_fit(self, arrays: object, blocks: Any, seed: int, first: bool, by_block: bool) -> Any:
        return self._pass(blocks, seed, lambda feed: self._learner.fit(feed, seed, first, by_block, self._report)), []

    def _do_validate(self, arrays: object, blocks: Any, seed: int) -> Any:
        return self._pass(blocks, seed, lambda feed: self._learner.validate(feed, self._report)), []

    def _do_predict(self, arrays: list[NDArray[Any]]) -> Any:
        return {}, [self._learner.predict(arrays[0])]

    def _do_graph(self, arrays: object) -> Any:
        with silent():
            graph = self._learner.graph()
        return {}, [np.frombuffer(graph, dtype=np.uint8)]

    def _do_export(self, arrays: list[NDArray[Any]], names: list[str]) -> Any:
        states = [dict(zip(names, some, strict=True)) for some in _groups(arrays, len(names))]
        with silent():
            exported = self._learner.export(states)
        return {}, [np.frombuffer(part, dtype=np.uint8) for part in exported]

    def _do_convert(self, arrays: object) -> Any:
        with silent():
            facts, graph = self._learner.convert()
        return facts, [np.frombuffer(graph, dtype=np.uint8)]

    def _pass(self, blocks: Any, seed: int, use: Callable[[Feed], dict[str, Any]]) -> dict[str, Any]:
        feed = Feed(self._cache, self._buffers, blocks, seed, self._learner.factors, self._learner.n_targets)
        wire.send(self._socket, {"need": feed.needed})
        receiver = threading.Thread(target=feed.receive, args=(self._socket,), daemon=True)
        receiver.start()
        result = use(feed)
        receiver.join()
        return result

    def _report(self, rows: int) -> None:
        wire.send(self._socket, {"rows_done": rows})


def _groups(arrays: list[NDArray[Any]], size: int) -> list[list[NDArray[Any]]]:
    return [arrays[start : start + size] for start in range(0, len(arrays), size or 1)]


def preload() -> None:
    """Import the framework before the first request. An error is left to the request that needs it."""
    with contextlib.suppress(Exception), silent(), without_optional_packages():
        importlib.import_module("keras")


def _kind(settings: Mapping[str, Any]) -> Callable[[Path, Mapping[str, Any]], Any]:
    """Return the class for the user's network or for an uploaded model."""
    if "format" in settings:
        from hepfaas.learner.uploaded_model import UploadedModel

        return UploadedModel
    from hepfaas.learner.keras_learner import KerasLearner

    return KerasLearner


@contextlib.contextmanager
def without_optional_packages() -> Iterator[None]:
    """Context in which the framework finds none of the large packages that it imports only because they are installed.

    Their import takes longer than the framework's own. The user's code can import them afterwards. Meanwhile garbage
    is not collected, since the objects of an import stay.
    """
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's mark of a module to refuse
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


class silent:
    """Context in which the standard error of C++ libraries is discarded."""

    def __enter__(self) -> None:
        self._saved = os.dup(2)
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 2)

    def __exit__(self, *error: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)


def serve(descriptor: int) -> None:
    """Answer requests on the socket with this file descriptor until its other end closes."""
    with socket.socket(fileno=descriptor) as connection:
        end = threading.Thread(target=_end_with, args=(connection, Path.cwd()), daemon=True)
        end.start()
        try:
            preload()
            Session(connection).run()
        finally:
            end.join(timeout=END_S)


def _end_with(connection: socket.socket, scratch: Path) -> None:
    """Remove this process's folder and end it when the function has closed its end of the socket.

    If the function is killed, the kernel ends this process at once (__main__.py), and the next learner removes the
    folder.
    """
    hung_up = select.poll()
    hung_up.register(connection, 0)
    hung_up.poll()
    shutil.rmtree(scratch, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)
