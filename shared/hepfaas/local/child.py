"""`python -m hepfaas.local.child COMMAND...` runs a command that ends when whoever started it ends, even by a kill."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_S = 40


def started(
    command: Sequence[str], environ: Mapping[str, str], out: BinaryIO, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """The command in a session of its own, so that Ctrl-C does not reach it. folder: where it runs; what it creates is
    this user's alone then."""
    wrapped = [sys.executable, "-m", "hepfaas.local.child", str(os.getpid()), *command]
    umask = -1 if folder is None else 0o077
    return subprocess.Popen(
        wrapped, env=dict(environ), stdout=out, stderr=out, start_new_session=True, cwd=folder, umask=umask
    )


def stop(processes: Sequence[subprocess.Popen[bytes]], most_s: float = STOP_S) -> None:
    """Ends processes: asks, waits at most so long, kills them with all that they have started."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + most_s
    for process in processes:
        try:
            process.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=STOP_S)


def main() -> None:
    """Ties itself to the parent and becomes the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.execv(shutil.which(command[0]) or command[0], command)


if __name__ == "__main__":
    main()
