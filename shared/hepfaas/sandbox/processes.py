"""Confined worker processes, seen from the process that uses them.

A `ForkServer` starts them; a `Worker` is one of them: its channel, shared memory and exit status.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hepfaas.errors import UnavailableError
from hepfaas.sandbox import confinement
from hepfaas.sandbox.fork_server import STATUS, ForkRequest

PACKAGES = Path(__file__).parents[2]
STOP_S = 5.0
F_ADD_SEALS = 1033
SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_WRITE = 1, 2, 4, 8
"""linux/fcntl.h"""

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": str(PACKAGES),
    "OPENBLAS_NUM_THREADS": "1",  # a process with threads cannot fork safely
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


@dataclass(frozen=True)
class Memory:
    """Limits of the private memory of one worker, and of all workers of a process, in units of 10^6 bytes."""

    worker_mb: int = 1_000
    total_mb: int = 2_000


USUAL_MEMORY = Memory()


class ForkServer:
    """A process that forks confined workers. It starts with the first worker, or by `start`.

    Any thread may use it and, after a fork of this process, both processes.
    """

    def __init__(self) -> None:
        self._modules: Sequence[str] = ()
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *modules: str) -> None:
        """Start the process without waiting until it is ready. modules: it imports them before it forks."""
        with self._lock:
            if self._control is None:
                self._modules = modules
                self._start()

    def fork(self, module: str, memory: Memory, descriptors: Sequence[int]) -> int:
        """Fork a worker that runs `serve` of a module with the descriptors; return the read end of its exit pipe.

        Closing that end kills the worker. Raises: UnavailableError if no process can be started.
        """
        message = ForkRequest(module, memory.worker_mb, memory.total_mb).to_bytes()
        ours, theirs = os.pipe()
        try:
            self._send(message, [*descriptors, theirs])
        except OSError as error:
            os.close(ours)
            raise UnavailableError(f"no worker process can be started: {error.strerror}") from error
        finally:
            os.close(theirs)
        return ours

    def close(self) -> None:
        """End the process and all its workers."""
        with self._lock:
            self._stop()

    def _send(self, message: bytes, descriptors: Sequence[int]) -> None:
        with self._lock:
            for last in (False, True):
                control = self._control or self._start()
                try:
                    socket.send_fds(control, [message], descriptors)
                    return
                except OSError:  # it was killed
                    self._stop()
                    if last:
                        raise

    def _stop(self) -> None:
        if self._control:
            self._control.close()
        if self._process:
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None

    def _start(self) -> socket.socket:
        confinement.hide()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "hepfaas.sandbox.fork_server", str(theirs.fileno()), *self._modules]
            try:
                self._process = subprocess.Popen(
                    command,
                    env=ENVIRONMENT,
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # no terminal, no Ctrl-C
                )
            except OSError:
                ours.close()
                raise
        self._control = ours
        return ours


@functools.cache
def fork_server() -> ForkServer:
    """Return the fork server of this process."""
    import atexit

    server = ForkServer()
    atexit.register(server.close)
    return server


class Worker:
    """A confined process with a message channel (SOCK_SEQPACKET) and shared memory.

    The contents of that memory are hostile: copy them before use, and trust no size from it.
    """

    closed = True

    def __init__(self, server: ForkServer, module: str, memory: Memory, shared_bytes: int) -> None:
        descriptor = sealed_memory(shared_bytes)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.memory = mmap.mmap(descriptor, shared_bytes)
            self.exit_pipe = server.fork(module, memory, [theirs.fileno(), descriptor])
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
            os.close(descriptor)
        self.closed = False

    def close(self) -> None:
        """Kill the process."""
        if not self.closed:
            self.closed = True
            self.channel.close()
            os.close(self.exit_pipe)

    def __del__(self) -> None:
        self.close()  # a worker without references ends

    def ending(self, timeout_s: float) -> str:
        """Return how the process ended, after its channel has closed."""
        return "ended" if self.closed else ending_of(self.exit_pipe, timeout_s)


def ending_of(exit_pipe: int, timeout_s: float) -> str:
    """Return how the process of an exit pipe ended, after its channel has closed."""
    waiting = select.poll()
    waiting.register(exit_pipe, select.POLLIN)
    status = os.read(exit_pipe, STATUS.size) if waiting.poll(1000 * timeout_s) else b""
    if len(status) < STATUS.size:
        return "ended"
    code = os.waitstatus_to_exitcode(STATUS.unpack(status)[0])
    return f"was ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"


def sealed_memory(size: int, content: bytes | memoryview | None = None) -> int:
    """Return a descriptor of memory with a fixed size; if `content` is given, with fixed contents too."""
    descriptor = os.memfd_create("hepfaas", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        seals = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW
        if content is None:
            os.ftruncate(descriptor, size)
        else:
            seals |= SEAL_WRITE
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
