"""Limits of a confined process, that the kernel holds it to. Imports nothing that starts threads."""

from __future__ import annotations

import os
import resource

MOST_OPEN = 256
"""Descriptors. Each pipe and socket holds up to 0.2 MB of kernel memory that no limit counts."""

MOST_PENDING = 256
"""Signals that wait."""

STACK_BYTES = 8 << 20
"""Of the first thread. RLIMIT_DATA does not count it."""

ADDRESS_MB, ADDRESS_MB_PER_CPU = 8_000, 1_000
"""Address space beyond the memory limit, in units of 10^6 bytes. TensorFlow and Keras take 2,200 of code and files, the
C library reserves 64 for each of at most eight heaps a processor, XLA takes 200. Page tables take up to 1/512 of the
address space, and memory that is written and then made read-only counts nowhere else."""


def limit(memory_mb: int, cpus: int, scratch_mb: int) -> None:
    """Limits this process, for good."""
    if cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NOFILE: MOST_OPEN,
        resource.RLIMIT_SIGPENDING: MOST_PENDING,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if memory_mb:
        address_mb = memory_mb + ADDRESS_MB + ADDRESS_MB_PER_CPU * len(os.sched_getaffinity(0))
        limits |= {resource.RLIMIT_DATA: memory_mb * 1_000_000, resource.RLIMIT_AS: address_mb * 1_000_000}
    if scratch_mb:
        limits[resource.RLIMIT_FSIZE] = scratch_mb * 1_000_000
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
