"""`python -m hepfaas.training.confined DESCRIPTOR MEMORY_MB CPUS SCRATCH_MB` shuts itself in and becomes the learner
process. Limits of 0 are none.

Nothing that starts threads is imported before: NumPy does.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from hepfaas.training import confinement

MOST_OPEN = 1024
"""Descriptors."""


def main() -> None:
    """Ends when the function's end of the socket closes."""
    descriptor, memory_mb, cpus, scratch_mb = map(int, sys.argv[1:5])
    limit(memory_mb, cpus, scratch_mb)
    confinement.confine(Path.cwd())
    if not confinement.landlock_version():
        sys.stdout.write("note: the kernel has no Landlock: a model's code can read what this user can\n")
    from hepfaas.training.learner_process import serve

    serve(descriptor)


def limit(memory_mb: int, cpus: int, scratch_mb: int) -> None:
    """Limits this process, for good."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 0, resource.RLIMIT_NOFILE: MOST_OPEN}
    if memory_mb:
        limits[resource.RLIMIT_DATA] = memory_mb * 1_000_000
    if scratch_mb:
        limits[resource.RLIMIT_FSIZE] = scratch_mb * 1_000_000
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))
    if cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])


if __name__ == "__main__":
    main()
