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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepfaas.learner.user_errors import ModelError, told
from hepfaas.runs.epochs import BLOCK_ROWS
from hepfaas.sandbox import wire
from hepfaas.sandbox.confinement import why

AHEAD = 2
"""Blocks that may arrive before they are needed."""

USUAL_ROWS = BLOCK_ROWS + 64
"""Rows for which there is room: a block's, and the few by which shares of labels are rounded up."""

END_S = 5
"""Longest wait for the folder's removal once the function has gone."""

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
        from hepfaas.learner.foreign_model import ForeignModel

        return ForeignModel
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
