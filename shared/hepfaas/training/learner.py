"""The function's side of the learner process. Imports no framework: arrays go out and come in.

A learner process runs the user's code and the framework. It gets arrays and gives arrays, has nothing of our
environment, is shut in (confinement.py), and is kept warm: `holds` says which checkpoint its network has.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.training import confinement, scratch, wire
from hepfaas.training.printed import lines_of, shortened
from hepfaas.training.segments import Block, Rows

PACKAGES = Path(__file__).parents[2]
LAST_LINES = 5
START_S = 120.0
LOOK_S = 1.0
LINES_S = 5.0
"""Longest wait for what was printed before an error."""

FETCHED_AHEAD = 2
"""Record batches that are fetched while an earlier one is sent."""

NOISE = re.compile(r"^([IWE]\d{4} .*\.cc:\d+\]|WARNING: All log messages before absl::InitializeLog)")
"""What TensorFlow's own C++ says at its start: nothing of it is the user's."""


WANT = re.compile(r"MemoryError|ResourceExhaustedError")
"""What Python and TensorFlow call it when memory is not to be had."""


NO_MESSAGE = (ValueError, TypeError, MemoryError, RecursionError)
"""What is raised where the user's code has put its own bytes between the messages."""


@dataclass(frozen=True)
class LearnerSettings:
    """What a network is made of and how it computes.

    code: the user's Python files by name; module: the one that defines model(idim). labels: the distinct ones,
    sorted. threads: for one operation, part of the result since sums depend on them.
    """

    code: Mapping[str, bytes]
    module: str
    n_features: int
    labels: tuple[int, ...]
    batch_size: int
    seed: int
    threads: int
    xla: bool


class Settings(Protocol):
    """What a learner process begins with, `code` in its folder and the rest as it is; messages name the `module`."""

    @property
    def code(self) -> Mapping[str, bytes]: ...

    @property
    def module(self) -> str: ...


@dataclass(frozen=True)
class Limits:
    """What a learner process may take.

    memory_mb: private memory, in units of 10^6 bytes. cpus: processors that it may run on. scratch_mb: of the disk, in
    units of 10^6 bytes. silence_s: longest time without a word.
    """

    memory_mb: int | None = None
    cpus: int | None = None
    scratch_mb: int | None = None
    silence_s: float = 3600


UNLIMITED = Limits()


@dataclass(frozen=True)
class ModelFacts:
    """What the user's code made. logits: whether the output is before the sigmoid or softmax."""

    parameters: int
    outputs: int
    loss: str
    logits: bool
    own_fit: bool
    summary: str
    processor: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Fitted:
    """One segment: rows trained, the sum of their event ids modulo 2**64, loss and metrics of the epoch so far."""

    rows: int
    id_sum: int
    metrics: Mapping[str, float]
    compile_s: float
    seconds: float


@dataclass(frozen=True)
class Exported:
    """A network as a LiteRT graph and as a Keras file."""

    graph: bytes
    keras: bytes


class Learner:
    """A learner process with one user's code in it.

    Every method raises RequestError if the user's code raises, does not fit the data, ends the process, or meets one of
    the limits. After the last two, and after any error of `fit` and `validate`, the learner is closed.
    """

    holds: str | None = None
    facts: ModelFacts

    def __init__(
        self,
        settings: Settings,
        on_log: Callable[[str], None],
        cache_bytes: int = 1 << 30,
        limits: Limits = UNLIMITED,
    ) -> None:
        for name in settings.code:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise RequestError(f"code file '{name}' lies outside its folder; give its path within the folder")
        self._settings, self._on_log, self._limits = settings, on_log, limits
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._lines_ended = threading.Event()
        confinement.hide()
        self._scratch = scratch.created()
        self._write_code(self._scratch / "code")
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._started(theirs.fileno())
        self._socket = ours
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._watch = _Watch(self._process, self._scratch, limits.scratch_mb)
        self._watch.start()
        values = {name: value for name, value in vars(settings).items() if name != "code"}
        try:
            self._ask({"do": "begin", "cache_bytes": cache_bytes, **values}, limit_s=START_S)
        except RequestError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the process has been ended."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends the process and removes its scratch folder."""
        self.holds = None
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)
        self._watch.stop()
        self._socket.close()
        if self._process.stdout:
            self._process.stdout.close()
        scratch.remove(self._scratch)

    def mute(self) -> None:
        """From now on nobody hears what it prints."""
        self._on_log = lambda line: None

    def make(self) -> ModelFacts:
        """Runs the user's model(idim) after seeding: a fresh network."""
        self.holds = None
        header, _ = self._ask({"do": "make"})
        self.facts = ModelFacts(**header)
        return self.facts

    def state(self) -> dict[str, NDArray[Any]]:
        """All variables: 'model/…', 'optimizer/…', 'metrics/…'; a checkpoint is these."""
        header, arrays = self._ask({"do": "state"})
        return dict(zip(header["names"], arrays, strict=True))

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Sets all variables."""
        self.holds = None
        self._ask({"do": "load", "names": list(arrays)}, list(arrays.values()))

    def fit(
        self,
        blocks: Sequence[Block],
        fetch: Callable[[str], Rows],
        seed: int,
        first: bool,
        on_rows: Callable[[int], None],
    ) -> Fitted:
        """Trains one segment. `fetch` gives a record batch by its name; `first`: metrics begin anew.

        Raises: also what `fetch` raises, after which the learner is closed.
        """
        self.holds = None
        header, _ = self._stream({"do": "fit", "seed": seed, "first": first}, blocks, fetch, on_rows)
        return Fitted(**header)

    def validate(
        self, blocks: Sequence[Block], fetch: Callable[[str], Rows], on_rows: Callable[[int], None]
    ) -> dict[str, float]:
        """Loss and metrics of the rows, which change nothing in the network."""
        header, _ = self._stream({"do": "validate", "seed": 0}, blocks, fetch, on_rows)
        metrics: dict[str, float] = header["metrics"]
        return metrics

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs of the network, (events, outputs), for features (events, features)."""
        _, (outputs,) = self._ask({"do": "predict"}, [features])
        return outputs

    def export(self) -> Exported:
        """The network as it is served, and as Keras keeps it."""
        _, (graph, keras) = self._ask({"do": "export"})
        return Exported(graph.tobytes(), keras.tobytes())

    def _stream(
        self,
        header: Mapping[str, Any],
        blocks: Sequence[Block],
        fetch: Callable[[str], Rows],
        on_rows: Callable[[int], None],
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Asks for a pass over the blocks, and sends the record batches that the process has not kept."""
        needed, _ = self._ask({**header, "blocks": blocks})
        sender = _Sender(self._socket, needed["need"], fetch)
        sender.start()
        try:
            while "rows_done" in (answer := self._answer(self._limits.silence_s))[0]:
                on_rows(answer[0]["rows_done"])
        except BaseException as error:
            self.close()  # what was under way in the socket belongs to a pass that is over
            sender.join(timeout=self._limits.silence_s)
            if sender.error and isinstance(error, RequestError):
                raise sender.error from None
            raise
        sender.join(timeout=self._limits.silence_s)
        return answer

    def _ask(
        self, header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = (), limit_s: float | None = None
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        try:
            wire.send(self._socket, header, arrays)
        except OSError as error:
            raise self._ended() from error
        return self._answer(limit_s or self._limits.silence_s)

    def _answer(self, limit_s: float) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        self._socket.settimeout(limit_s)
        try:
            header, arrays = wire.receive(self._socket)
        except TimeoutError as error:
            self.close()
            raise RequestError(
                f"{self._settings.module}: the learner process said nothing for {limit_s:.0f} s and was ended; "
                "does the model's code wait for something?"
            ) from error
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        except NO_MESSAGE as error:
            self.close()
            raise RequestError(
                f"{self._settings.module}: the learner process gave an answer that is none ({error}) and was "
                "ended; does the model's code write to a socket that it did not make?"
            ) from error
        if "error" in header:
            self._lines_ended.wait(timeout=LINES_S)
            self._lines_ended.clear()
            text = shortened(str(header["error"]))
            raise RequestError(text + (f"; {self._limit}" if WANT.search(text) and self._limit else ""))
        return header, arrays

    def _ended(self) -> RequestError:
        how = "without leave: it closed its connection"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            how = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"
        self.close()
        if self._watch.finding:
            return RequestError(f"{self._settings.module}: the learner process was ended: {self._watch.finding}")
        lines = "".join(f"\n  {line}" for line in self._last_lines)
        limit = f" ({self._limit})" if self._limit else ""
        return RequestError(
            f"{self._settings.module}: the learner process ended {how}, for want of memory{limit} or by the model's "
            f"own code.{' It said last:' if lines else ''}{lines}"
        )

    @property
    def _limit(self) -> str:
        return f"it may take {self._limits.memory_mb:,} MB" if self._limits.memory_mb else ""

    def _write_code(self, folder: Path) -> None:
        for name, content in self._settings.code.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _started(self, descriptor: int) -> subprocess.Popen[bytes]:
        limits = [str(limit or 0) for limit in astuple(self._limits)[:3]]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self._scratch),
            "TMPDIR": str(self._scratch),
            "PYTHONPATH": str(PACKAGES),
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",  # else the order of a set of names, and so a network, is another in each process
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hepfaas.training.confined", str(descriptor), *limits],
            cwd=self._scratch,
            env=environment,
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # no Ctrl-C, and no terminal
            umask=0o077,
        )

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in lines_of(self._process.stdout):
            text = line.decode(errors="replace").rstrip()
            if line.rstrip() == wire.END_OF_LINES:
                self._lines_ended.set()
            elif text and not NOISE.match(text):
                self._last_lines.append(text)
                self._on_log(text)


class _Watch(threading.Thread):
    """Looks each second how much of the disk a learner process has taken, and ends it when that is too much."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, most_mb: int | None) -> None:
        super().__init__(daemon=True)
        self._process, self._folder, self._most_mb = process, folder, most_mb
        self._over = threading.Event()
        self.finding = ""

    def run(self) -> None:
        while self._most_mb and not self.finding and not self._over.wait(LOOK_S):
            self.finding = scratch.excess(self._folder, self._process.pid, self._most_mb)
        if self.finding:
            self._process.kill()

    def stop(self) -> None:
        """Looks no more."""
        self._over.set()
        self.join()


class _Sender(threading.Thread):
    """Fetches record batches, one after the other, and sends them while the process already trains; the socket holds
    it back."""

    def __init__(self, to: socket.socket, needed: Sequence[str], fetch: Callable[[str], Rows]) -> None:
        super().__init__(daemon=True)
        self._to, self._needed, self._fetch = to, needed, fetch
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with ThreadPoolExecutor(1) as fetcher:
                self._send_all(fetcher)
        except Exception as error:  # handed to the caller of fit, which raises it
            self.error = error
            with contextlib.suppress(OSError):
                self._to.shutdown(socket.SHUT_RDWR)

    def _send_all(self, fetcher: ThreadPoolExecutor) -> None:
        coming: deque[Future[Rows]] = deque()
        for place, batch in enumerate(self._needed):
            while len(coming) <= FETCHED_AHEAD and place + len(coming) < len(self._needed):
                coming.append(fetcher.submit(self._fetch, self._needed[place + len(coming)]))
            wire.send(self._to, {"batch": batch}, coming.popleft().result())


def processor() -> str:
    """The kind of processor, since another one may add in another order."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
