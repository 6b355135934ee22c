"""Child processes that end with their parent, even if it is killed: `python -m hepfaas.local.child PID COMMAND...`."""

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
    """Start a command in a session of its own, which Ctrl-C does not reach.

    folder: working directory; the files of such a command are readable by this user alone.
    """
    wrapped = [sys.executable, "-m", "hepfaas.local.child", str(os.getpid()), *command]
    umask = -1 if folder is None else 0o077
    return subprocess.Popen(
        wrapped, env=dict(environ), stdout=out, stderr=out, start_new_session=True, cwd=folder, umask=umask
    )


def stop(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float = STOP_S) -> None:
    """Terminate processes; kill those, and their children, that still run after `timeout_s`."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + timeout_s
    for process in processes:
        try:
            process.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=STOP_S)


def main() -> None:
    """Tie this process to its parent and replace it by the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.execv(shutil.which(command[0]) or command[0], command)


if __name__ == "__main__":
    main()
