"""Client of a learner process, which runs the user's code and the framework. This module imports no framework.

The learner process receives and returns arrays. It inherits no environment, is confined (sandbox/confinement.py), and
stays warm between steps: `holds` names the checkpoint that its network has.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.learner import scratch
from hepfaas.learner.step_log import lines_of, shortened
from hepfaas.runs.targets import Row
from hepfaas.sandbox import confinement, usage, wire
from hepfaas.training.segments import Block, Rows, rows_in

PACKAGES = Path(__file__).parents[2]
LAST_LINES = 5
START_S = 120.0
DISK_CHECK_S = 1.0
"""Time between two checks of disk usage."""

CHECKS_PER_DISK_CHECK = 10
"""Checks of memory and threads for each check of disk usage. They cost microseconds, and a process can allocate
gigabytes in a second."""

SENDER_END_S = 5.0
"""Longest wait for the sender to finish after a pass."""

LINES_S = 5.0
"""Longest wait for the lines printed before an error."""

FETCHED_AHEAD = 2
"""Record batches that are fetched while an earlier one is sent."""

NOISE = re.compile(r"^([IWE]\d{4} .*\.cc:\d+\]|WARNING: All log messages before absl::InitializeLog)")
"""Start-up messages of TensorFlow's C++ code; they do not concern the user."""

OUT_OF_MEMORY = re.compile(r"MemoryError|ResourceExhaustedError")
"""Errors of Python and TensorFlow when an allocation fails."""

INVALID_MESSAGE = (ValueError, TypeError, MemoryError, RecursionError)
"""Errors of `wire.receive` when the user's code has written its own bytes to the socket."""

MAX_HEADER_BYTES = 2_000_000
"""Largest header of an answer: names and shapes of some ten thousand variables."""

MEMORY_SHARE = 8
"""An answer takes at most 1/8 of the memory limit, since the function holds several copies while it stores one."""

NO_ARRAYS = wire.Room(MAX_HEADER_BYTES, arrays=0, array_bytes=0)

CHECKPOINT_KINDS = "biuf"
"""NumPy kinds of the arrays in a checkpoint."""

SURROGATES = re.compile("[\ud800-\udfff]")
"""Characters that JSON strings may contain and UTF-8 cannot encode."""

MAX_TEXT = 1_000
LONG_TEXTS = {"summary": MAX_HEADER_BYTES, "notes": 10_000}
"""Most characters of the texts that may be longer."""

MAX_METRICS = 1_000

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """A network and how it is computed.

    code: the user's Python files by name. module: the file that defines model(idim). labels: distinct, sorted.
    threads: of one operation; they are part of the recipe because sums depend on them. xla: whether the training loop
    is compiled with XLA; None: if the network draws no random numbers. weighted: whether events have weights.
    class_weight: factor of the event weights of each label, none if all are 1. targets: of a regression,
    which has no labels. branches: the features, as JSON values of `FeatureBranch`.
    """

    code: Mapping[str, bytes]
    module: str
    n_features: int
    labels: tuple[int, ...]
    batch_size: int
    seed: int
    threads: int
    xla: bool | None
    weighted: bool = False
    class_weight: tuple[float, ...] = ()
    targets: tuple[Row, ...] = ()
    branches: tuple[Mapping[str, Any], ...] = ()


class ProcessSettings(Protocol):
    """Settings of any learner process: `code` is written to its folder, the rest is sent; messages name `module`."""

    @property
    def code(self) -> Mapping[str, bytes]: ...

    @property
    def module(self) -> str: ...


@dataclass(frozen=True)
class LearnerLimits:
    """Limits of a learner process; None means no limit.

    memory_mb: private memory, in units of 10^6 bytes. cpus: number of processors. scratch_mb: disk space, in units of
    10^6 bytes. silence_s: longest time for one answer, and for one block of a pass.
    """

    memory_mb: int | None = None
    cpus: int | None = None
    scratch_mb: int | None = None
    silence_s: float = 3600


UNLIMITED = LearnerLimits()


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the network that the user's code returned. score: how its outputs become scores, '' if they are
    scores; optimizer, callbacks: names, '' for none; notes: for the user, one a line."""

    parameters: int
    outputs: int
    loss: str
    score: str
    own_fit: bool
    optimizer: str
    callbacks: str
    summary: str
    notes: str
    processor: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Fitted:
    """Result of a segment: rows trained, sum of their event ids modulo 2**64, loss and metrics of the epoch so far, the
    learning rate after it (0 without an optimizer)."""

    rows: int
    id_sum: int
    metrics: Mapping[str, float]
    learning_rate: float
    compile_s: float
    seconds: float


@dataclass(frozen=True)
class _Stop:
    stop: bool


@dataclass(frozen=True)
class _Metrics:
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Exported:
    """A network as a LiteRT graph and as a Keras file. each: the graph with the outputs of several networks."""

    graph: bytes
    keras: bytes
    each: bytes = b""


class LearnerProcess:
    """A learner process that has no settings and no user's code yet. It imports the framework meanwhile."""

    def __init__(self, limits: LearnerLimits = UNLIMITED) -> None:
        confinement.hide()
        self.limits, self.scratch = limits, scratch.create()
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(limits.silence_s)
        with theirs:
            self.watchdog = _Watchdog(partial(self._started, theirs.fileno()), self.scratch, limits)
            self.process = self.watchdog.started()

    @property
    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self.process.poll() is not None

    def close(self) -> None:
        """End the process and remove its scratch folder."""
        self.process.kill()
        self.process.wait()
        self.watchdog.stop()
        self.socket.close()
        if self.process.stdout:
            self.process.stdout.close()
        scratch.remove(self.scratch)

    def _started(self, descriptor: int) -> subprocess.Popen[bytes]:
        limits = [str(limit or 0) for limit in astuple(self.limits)[:3]]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": str(PACKAGES),
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",  # else the order of a set of names, and so the network, differs between processes
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hepfaas.learner", str(descriptor), *limits],
            cwd=self.scratch,
            env=environment,
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # no Ctrl-C, and no terminal
            umask=0o077,
        )


class Learner:
    """A learner process with one user's code.

    Every method raises RequestError if the user's code raises, does not fit the data, ends the process, or exceeds a
    limit. The learner is then closed in the last two cases, and after any error of `fit` and `validate`.
    """

    holds: str | None = None
    is_checked = False
    """Whether the graph of its network has been checked."""
    facts: ModelFacts
    _outputs: int

    def __init__(
        self,
        settings: ProcessSettings,
        on_log: Callable[[str], None],
        cache_bytes: int = 1 << 30,
        limits: LearnerLimits = UNLIMITED,
        started: LearnerProcess | None = None,
    ) -> None:
        """started: a process with the same limits, which this learner takes over; None starts one."""
        self._settings, self._on_log, self._limits = settings, on_log, limits
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._lines_ended = threading.Event()
        self._running = started or LearnerProcess(limits)
        self._socket, self._process = self._running.socket, self._running.process
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        values = {name: value for name, value in vars(settings).items() if name != "code"}
        try:
            self._write_code(self._running.scratch / "code")
            self._request({"do": "begin", "cache_bytes": cache_bytes, **values}, limit_s=START_S)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Return whether the process has ended."""
        return self._running.ended

    def close(self) -> None:
        """End the process and remove its scratch folder."""
        self.holds = None
        self._process.kill()  # ends the reader
        self._reader.join(timeout=5)
        self._running.close()

    def mute(self) -> None:
        """Discard everything that the process prints from now on."""
        self._on_log = lambda line: None

    def make(self) -> ModelFacts:
        """Seed all random generators, run the user's model(idim), and return facts about the new network."""
        self.holds = None
        header, _ = self._request({"do": "make"})
        self.facts = self._parsed(ModelFacts, header)
        self._outputs = self.facts.outputs
        return self.facts

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all variables, 'model/…', 'optimizer/…' and 'metrics/…', which make up a checkpoint."""
        header, arrays = self._request({"do": "state"}, room=self._room(wire.MOST_ARRAYS))
        names = header.get("names")
        if not isinstance(names, list) or not all(_fits(name, str, MAX_TEXT) for name in names):
            raise self._invalid_answer("a state without names")
        if not len(set(names)) == len(names) == len(arrays):
            raise self._invalid_answer("a state whose names do not fit its arrays")
        state = dict(zip(names, arrays, strict=True))
        for name, array in state.items():
            if array.dtype.kind not in CHECKPOINT_KINDS or array.itemsize > 8:
                raise RequestError(
                    f"{self._settings.module}: variable {name!r} has type {array.dtype}; a checkpoint takes only "
                    "NumPy's numbers of at most 64 bits"
                )
        return state

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set all variables."""
        self.holds = None
        self._request({"do": "load", "names": list(arrays)}, list(arrays.values()))

    def begin_epoch(self, epoch: int, learning_rate: float | None = None, rate_factor: float | None = None) -> None:
        """Set the learning rate and call the callbacks of the user's code, before the first segment of an epoch.

        rate_factor: of the rate that the model was compiled with. Both rates None: the model keeps its own.
        """
        self.holds = None
        self._request({"do": "begin_epoch", "epoch": epoch, "learning_rate": learning_rate, "rate_factor": rate_factor})

    def end_epoch(self, metrics: Mapping[str, float]) -> bool:
        """Call the callbacks of the user's code with the metrics of an epoch; return whether they stop the training."""
        self.holds = None
        header, _ = self._request({"do": "end_epoch", "metrics": dict(metrics)})
        return self._parsed(_Stop, header).stop

    def fit(
        self,
        blocks: Sequence[Block],
        fetch: Callable[[str], Rows],
        *,
        seed: int,
        first: bool,
        by_block: bool = False,
        on_rows: Callable[[int], None],
    ) -> Fitted:
        """Train one segment.

        fetch: returns a record batch by its name. first: reset the metrics, as at the start of an epoch. by_block: call
        a `fit` of the user's own for each block, and not for all rows together. on_rows: called with the number of rows
        done since its last call.

        Raises: also any error of `fetch`, after which the learner is closed.
        """
        self.holds = None
        request = {"do": "fit", "seed": seed, "first": first, "by_block": by_block}
        header, _ = self._stream(request, blocks, fetch, on_rows)
        fitted = self._parsed(Fitted, header)
        if fitted.rows != rows_in(blocks):
            raise self._invalid_answer(f"{fitted.rows:,} rows trained of {rows_in(blocks):,}")
        return fitted

    def validate(
        self, blocks: Sequence[Block], fetch: Callable[[str], Rows], on_rows: Callable[[int], None]
    ) -> dict[str, float]:
        """Return loss and metrics of the rows; the network does not change."""
        header, _ = self._stream({"do": "validate", "seed": 0}, blocks, fetch, on_rows)
        return dict(self._parsed(_Metrics, header).metrics)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's scores, or the outputs of a regression, for features (events, features): (events,
        outputs)."""
        shape = (len(features), self._outputs)
        _, arrays = self._request({"do": "predict"}, [features], self._room(1, 4 * math.prod(shape)))
        if [(array.dtype, array.shape) for array in arrays] != [(np.dtype(np.float32), shape)]:
            raise self._invalid_answer(f"outputs that are not float32 of shape {shape}")
        return arrays[0]

    def graph(self) -> bytes:
        """Return the network as a LiteRT graph."""
        _, arrays = self._request({"do": "graph"}, room=self._room(1))
        if len(arrays) != 1:
            raise self._invalid_answer(f"{len(arrays)} arrays, not a graph")
        return arrays[0].tobytes()

    def export(self, states: Sequence[Mapping[str, NDArray[Any]]] = ()) -> Exported:
        """Return the network as a LiteRT graph and as a Keras file.

        states: of several networks of this kind, as checkpoints have them: the mean of their outputs is exported, and a
        graph with the outputs of each.
        """
        names = list(states[0]) if states else []
        weights = [state[name] for state in states for name in names]
        n_files = 3 if states else 2
        _, arrays = self._request({"do": "export", "names": names}, weights, self._room(n_files))
        if len(arrays) != n_files:
            raise self._invalid_answer(f"{len(arrays)} arrays, not {n_files}")
        return Exported(*(array.tobytes() for array in arrays))

    def _stream(
        self,
        header: Mapping[str, Any],
        blocks: Sequence[Block],
        fetch: Callable[[str], Rows],
        on_rows: Callable[[int], None],
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Request a pass over the blocks and send the record batches that the process has not cached.

        The process reports rows done, at most once for each block and once for the remainder. Only rows count as
        progress: a message without rows does not extend the deadline.
        """
        answer, _ = self._request({**header, "blocks": blocks})
        sender = _Sender(self._socket, self._needed(answer, blocks), fetch)
        sender.start()
        rows_left, messages_left = rows_in(blocks), len(blocks) + 1
        since = time.monotonic()
        try:
            while "rows_done" in (answer := self._answer(NO_ARRAYS, since)[0]):
                rows, messages_left = answer["rows_done"], messages_left - 1
                if type(rows) is not int or not 0 <= rows <= rows_left or messages_left < 0:
                    raise self._invalid_answer(f"more progress than {rows_in(blocks):,} rows in {len(blocks):,} blocks")
                rows_left -= rows
                since = time.monotonic() if rows else since
                on_rows(rows)
        except BaseException as error:
            self.close()  # the socket may still hold messages of this pass
            sender.join(timeout=self._limits.silence_s)
            if sender.error and isinstance(error, RequestError):
                raise sender.error from None
            raise
        sender.join(timeout=SENDER_END_S)
        if sender.is_alive():
            raise self._invalid_answer("the result of a pass before it took the rows")
        return answer, []

    def _needed(self, answer: Mapping[str, Any], blocks: Sequence[Block]) -> list[str]:
        """Return the names of the record batches that the process requests. They must belong to the pass, since
        `fetch` would read others too."""
        batches = {piece.batch for block in blocks for piece in block}
        needed = answer.get("need")
        if not isinstance(needed, list) or not all(isinstance(name, str) and name in batches for name in needed):
            raise self._invalid_answer("names of record batches that do not belong to the pass")
        if len(set(needed)) < len(needed):
            raise self._invalid_answer("the name of a record batch twice")
        return needed

    def _room(self, arrays: int, array_bytes: float = math.inf) -> wire.Room:
        """Return the largest answer to accept, at most a share of the memory limit."""
        max_mb = self._limits.memory_mb / MEMORY_SHARE if self._limits.memory_mb else math.inf
        return wire.Room(MAX_HEADER_BYTES, arrays, min(array_bytes, max_mb * 1e6))

    def _request(
        self,
        header: Mapping[str, Any],
        arrays: Sequence[NDArray[Any]] = (),
        room: wire.Room = NO_ARRAYS,
        limit_s: float | None = None,
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        try:
            wire.send(self._socket, header, arrays)
        except TimeoutError as error:
            raise self._silent(self._limits.silence_s) from error
        except OSError as error:
            raise self._ended() from error
        return self._answer(room, time.monotonic(), limit_s)

    def _answer(
        self, room: wire.Room, since: float, limit_s: float | None = None
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return the next message. Raises: RequestError if it is not complete `limit_s` after `since`."""
        limit_s = limit_s or self._limits.silence_s
        try:
            header, arrays = wire.receive(self._socket, room, since + limit_s)
        except TimeoutError as error:
            raise self._silent(limit_s) from error
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        except wire.TooLargeError as error:
            self.close()
            raise RequestError(
                f"{self._settings.module}: the learner process answered with {error} are accepted, and arrays of at "
                f"most 1/{MEMORY_SHARE} of the memory limit; make the network smaller"
            ) from error
        except INVALID_MESSAGE as error:
            raise self._invalid_answer(str(error)) from error
        if "error" in header:
            self._lines_ended.wait(timeout=LINES_S)
            self._lines_ended.clear()
            text = shortened(str(header["error"])).encode(errors="replace").decode()
            raise RequestError(text + (f"; {self._limit}" if OUT_OF_MEMORY.search(text) and self._limit else ""))
        return header, arrays

    def _parsed(self, kind: type[Answer], header: Mapping[str, Any]) -> Answer:
        """Return the answer as a dataclass. Raises: RequestError if its fields or their types differ."""
        types = get_type_hints(kind)
        if header.keys() != types.keys():
            raise self._invalid_answer(f"other values than {', '.join(types)}")
        for name, type_ in types.items():
            if not _fits(header[name], type_, LONG_TEXTS.get(name, MAX_TEXT)):
                raise self._invalid_answer(f"{name} {shortened(str(header[name]))[:MAX_TEXT]!r}")
        return kind(**header)

    def _silent(self, limit_s: float) -> RequestError:
        self.close()
        return RequestError(
            f"{self._settings.module}: the learner process did not answer for {limit_s:.0f} s and was stopped; "
            "does the model's code wait for something?"
        )

    def _invalid_answer(self, finding: str) -> RequestError:
        self.close()
        return RequestError(
            f"{self._settings.module}: the learner process sent an invalid answer ({finding}) and was "
            "stopped; does the model's code write to a socket that it did not open?"
        )

    def _ended(self) -> RequestError:
        how = "early: it closed its connection"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            how = f"by signal {-code} ({_signal_name(-code)})" if code < 0 else f"with exit code {code}"
        self.close()
        if finding := self._running.watchdog.finding:
            return RequestError(f"{self._settings.module}: the learner process was stopped: {finding}")
        lines = "".join(f"\n  {line}" for line in self._last_lines)
        limit = f" ({self._limit})" if self._limit else ""
        return RequestError(
            f"{self._settings.module}: the learner process ended {how}. It ran out of memory{limit}, or the model's "
            f"code ended it.{' Its last output:' if lines else ''}{lines}"
        )

    @property
    def _limit(self) -> str:
        return f"its limit is {self._limits.memory_mb:,} MB" if self._limits.memory_mb else ""

    def _write_code(self, folder: Path) -> None:
        for name, content in self._settings.code.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise RequestError(f"code file '{name}' lies outside its folder; give its path within the folder")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in lines_of(self._process.stdout):
            text = line.decode(errors="replace").rstrip()
            if line.rstrip() == wire.END_OF_LINES:
                self._lines_ended.set()
            elif text and not NOISE.match(text):
                self._last_lines.append(text)
                self._on_log(text)


class _Watchdog(threading.Thread):
    """Starts a learner process and kills it when it exceeds a limit. Checks memory and threads ten times a second, disk
    usage every second.

    The kernel ends the process together with the thread that started it (`confinement.end_with_parent`), so this thread
    lives as long as the process.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], folder: Path, limits: LearnerLimits) -> None:
        super().__init__(daemon=True)
        self._start, self._folder, self._limits = start, folder, limits
        self._process: Future[subprocess.Popen[bytes]] = Future()
        self._stop_requested = threading.Event()
        self.finding = ""

    def started(self) -> subprocess.Popen[bytes]:
        """Start the thread and return the process. Raises: OSError if it cannot be started."""
        self.start()
        return self._process.result()

    def run(self) -> None:
        try:
            process = self._start()
        except BaseException as error:  # raised by `started`
            self._process.set_exception(error)
            return
        self._process.set_result(process)
        for number in itertools.count(1):
            self.finding = self._check(process.pid, disk=number % CHECKS_PER_DISK_CHECK == 0)
            if self.finding:
                process.kill()
                break
            if self._stop_requested.wait(DISK_CHECK_S / CHECKS_PER_DISK_CHECK):
                return
        self._stop_requested.wait()

    def stop(self) -> None:
        """End the checks."""
        self._stop_requested.set()
        self.join()

    def _check(self, process: int, *, disk: bool) -> str:
        finding = usage.excess(process, self._limits.memory_mb)
        if not finding and disk and self._limits.scratch_mb:
            finding = scratch.excess(self._folder, process, self._limits.scratch_mb)
        return finding


class _Sender(threading.Thread):
    """Fetches record batches one after the other and sends them while the process trains; a full socket makes it
    wait."""

    def __init__(self, to: socket.socket, needed: Sequence[str], fetch: Callable[[str], Rows]) -> None:
        super().__init__(daemon=True)
        self._to, self._needed, self._fetch = to, needed, fetch
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with ThreadPoolExecutor(1) as fetcher:
                self._send_all(fetcher)
        except Exception as error:  # raised by the caller of fit
            self.error = error
            with contextlib.suppress(OSError):
                self._to.shutdown(socket.SHUT_RDWR)

    def _send_all(self, fetcher: ThreadPoolExecutor) -> None:
        fetched: deque[Future[Rows]] = deque()
        for index, batch in enumerate(self._needed):
            while len(fetched) <= FETCHED_AHEAD and index + len(fetched) < len(self._needed):
                fetched.append(fetcher.submit(self._fetch, self._needed[index + len(fetched)]))
            arrays = [array for array in fetched.popleft().result() if array is not None]
            try:
                wire.send(self._to, {"batch": batch}, arrays)
            except OSError:  # the process has ended, or its code failed: its answer says why
                return


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):  # most real-time signals have no name
        return signal.Signals(number).name
    return "a real-time signal"


def _fits(value: Any, type_: Any, max_text: int) -> bool:
    """Return whether a JSON value is of this type; texts and mappings are bounded."""
    if type_ is int:
        return type(value) is int and 0 <= value < 2**64
    if type_ is float:
        return type(value) is float or (type(value) is int and abs(value) < 2**64)
    if type_ is str:
        return isinstance(value, str) and len(value) <= max_text and not SURROGATES.search(value)
    if type_ is bool:
        return isinstance(value, bool)
    _, item_type = get_args(type_)
    return (
        isinstance(value, dict)
        and len(value) <= MAX_METRICS
        and all(_fits(name, str, MAX_TEXT) and _fits(item, item_type, MAX_TEXT) for name, item in value.items())
    )


def processor() -> str:
    """Return the processor's model name; another processor may add in another order."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
