"""`python -m hepfaas.sandbox.fork_server DESCRIPTOR MODULE…` imports modules, then forks workers on request.

It starts with an empty environment, and reads only the requests of the process that started it, so a worker inherits no
token, key or row. A fork of a process that has imported its modules takes milliseconds, and workers share their memory.

The protocol: a request is one message on a SOCK_SEQPACKET socket, `ForkRequest` as JSON, with the worker's descriptors
and the write end of its exit pipe attached. The server writes the wait status of a worker that ended to that pipe, and
kills a worker whose pipe has lost its reader. It kills all workers and ends when its socket closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hepfaas.sandbox import usage

STATUS = struct.Struct("<i")
"""The wait status of a worker, as os.waitpid gives it."""

MOST_REQUEST_BYTES, MOST_DESCRIPTORS = 4_096, 8
FIRST_DESCRIPTOR = 3
CHECK_MS = 1_000
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


@dataclass(frozen=True)
class ForkRequest:
    """A request for a worker. module: its `serve` gets the descriptors. memory_mb: limit of the worker. total_mb: limit
    of all workers together; beyond it the largest is killed. Both in units of 10^6 bytes."""

    module: str
    memory_mb: int
    total_mb: int

    def to_bytes(self) -> bytes:
        """Return the message."""
        return json.dumps(asdict(self)).encode()


class Server:
    """Forks workers and reaps them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._exit_pipes: dict[int, int] = {}
        self._memory_mb: dict[int, int] = {}
        self._total_mb = 0
        self._checked = 0.0
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Serve requests until the other end of the control socket closes."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll(CHECK_MS if self._exit_pipes else None)}
                # Descriptor numbers are reused: handle the pipes before any is closed or opened.
                for pipe in ready & set(self._exit_pipes.values()):  # its reader has closed
                    self._kill(pipe)
                    poll.unregister(pipe)
                if self._wake in ready:
                    os.read(self._wake, 4_096)
                    for pipe in self._reap():
                        with contextlib.suppress(KeyError):  # its reader closed before
                            poll.unregister(pipe)
                        os.close(pipe)
                if self._control.fileno() in ready:
                    data, descriptors, _, _ = socket.recv_fds(self._control, MOST_REQUEST_BYTES, MOST_DESCRIPTORS)
                    if not data:
                        return
                    poll.register(self._fork(ForkRequest(**json.loads(data)), descriptors), 0)
                self._kill_if_too_large()
        finally:
            for process in self._exit_pipes:
                os.kill(process, signal.SIGKILL)

    def _fork(self, request: ForkRequest, descriptors: Sequence[int]) -> int:
        """Start a worker and return its exit pipe."""
        *passed, exit_pipe = descriptors
        self._total_mb = request.total_mb
        importlib.import_module(request.module)  # here, for all later workers
        server = os.getpid()
        process = os.fork()
        if not process:
            try:
                _become_worker(request, passed, server)
            finally:
                os._exit(1)
        for descriptor in passed:
            os.close(descriptor)
        self._exit_pipes[process], self._memory_mb[process] = exit_pipe, request.memory_mb
        return exit_pipe

    def _reap(self) -> list[int]:
        """Report the status of workers that ended; return their exit pipes, to be closed."""
        pipes = []
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                del self._memory_mb[ended[0]]
                pipe = self._exit_pipes.pop(ended[0])
                with contextlib.suppress(BrokenPipeError):
                    os.write(pipe, STATUS.pack(ended[1]))
                pipes.append(pipe)
        return pipes

    def _kill(self, exit_pipe: int) -> None:
        for process, pipe in self._exit_pipes.items():
            if pipe == exit_pipe:
                os.kill(process, signal.SIGKILL)

    def _kill_if_too_large(self) -> None:
        """Kill workers that exceed their limit, and the largest one if all together exceed theirs. Memory that a worker
        shares with this process does not count."""
        if time.monotonic() - self._checked < CHECK_MS / 1000:
            return
        self._checked = time.monotonic()
        own = usage.memory_mb(os.getpid())
        sizes = {process: usage.memory_mb(process) - own for process in self._exit_pipes}
        for process in sizes:
            if usage.excess(process, self._memory_mb[process] + own):
                os.kill(process, signal.SIGKILL)
        if sum(sizes.values()) > self._total_mb:
            os.kill(max(sizes, key=lambda process: sizes[process]), signal.SIGKILL)


def _become_worker(request: ForkRequest, descriptors: Sequence[int], server: int) -> None:
    """Keep only these descriptors, give up all rights, and serve."""
    from hepfaas.sandbox.confinement import confine, hide
    from hepfaas.sandbox.limits import limit

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, it is killed before its function
    kept = _keep_only(descriptors)
    hide()
    limit(request.memory_mb, cpus=0, scratch_mb=0)
    confine(None)
    importlib.import_module(request.module).serve(*kept)
    os._exit(0)


def _keep_only(descriptors: Sequence[int]) -> list[int]:
    """Close all other descriptors; return the new numbers of these, from 3 on. 0, 1 and 2 become /dev/null."""
    above = 100 + max(descriptors, default=0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, above + number)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(FIRST_DESCRIPTOR):
        os.dup2(null, number)
    os.closerange(FIRST_DESCRIPTOR, above)
    kept = [os.dup2(above + number, FIRST_DESCRIPTOR + number) for number in range(len(descriptors))]
    os.closerange(FIRST_DESCRIPTOR + len(descriptors), above + len(descriptors) + 1)
    return kept


def main() -> None:
    """Run the server until the other end of the control socket closes."""
    descriptor, *modules = sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    with socket.socket(fileno=int(descriptor)) as control:
        Server(control).run()


if __name__ == "__main__":
    main()
