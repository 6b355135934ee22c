"""Memory and threads of a confined process, as the kernel counts them.

The resource limits (sandbox/limits.py) apply at once but do not count page tables, memory that was written and then
made read-only, or threads.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

MOST_THREADS = 2_000
"""TensorFlow starts several for each processor."""

SLACK_MB = 200
"""Tolerance beyond the limit, in units of 10^6 bytes, so that code that reaches the limit gets a MemoryError first."""

COUNTED = re.compile(r"^(?:RssAnon|RssShmem|VmSwap|VmPTE):\s+(\d+) kB$", re.MULTILINE)
"""Lines of /proc/PID/status, see proc_pid_status(5): memory without a file, and page tables."""

THREADS = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)


def excess(process: int, memory_mb: int | None) -> str:
    """Return a message if the process exceeds its limits, else ''. memory_mb: in units of 10^6 bytes."""
    status = _status(process)
    threads = max([0, *map(int, THREADS.findall(status))])
    if threads > MOST_THREADS:
        return f"it started {threads:,} threads; at most {MOST_THREADS:,} are allowed"
    taken_mb = _memory_mb(status)
    if memory_mb and taken_mb > memory_mb + SLACK_MB:
        return f"it took {taken_mb:,} MB with page tables; at most {memory_mb:,} MB are allowed"
    return ""


def memory_mb(process: int) -> int:
    """Return the memory without a file, including page tables, in units of 10^6 bytes."""
    return _memory_mb(_status(process))


def _memory_mb(status: str) -> int:
    return sum(map(int, COUNTED.findall(status))) * 1024 // 1_000_000


def _status(process: int) -> str:
    """Return the status of a process, or of another thread if the first one has ended; '' if all have."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{process}/status").read_text(errors="replace")
        if COUNTED.search(status):
            return status
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if COUNTED.search(status := (thread / "status").read_text(errors="replace")):
                    return status
    return ""
