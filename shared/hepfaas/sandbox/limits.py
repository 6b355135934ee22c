"""Resource limits of a confined process. Imports nothing that starts threads."""

from __future__ import annotations

import os
import resource

MOST_OPEN_FILES = 256
"""Descriptors. Each pipe and socket takes up to 0.2 MB of kernel memory that no limit counts."""

MOST_PENDING = 256
"""Queued signals."""

STACK_BYTES = 8 << 20
"""Of the first thread. RLIMIT_DATA does not count it."""

ADDRESS_MB, ADDRESS_MB_PER_CPU = 8_000, 1_000
"""Address space beyond the memory limit, in units of 10^6 bytes. TensorFlow and Keras take 2,200 of code and files, the
C library reserves 64 for each of up to eight heaps a processor, XLA takes 200. Page tables take up to 1/512 of the
address space, and memory that is written and then made read-only counts nowhere else."""


def limit(memory_mb: int, cpus: int, scratch_mb: int) -> None:
    """Limit this process, for good. memory_mb, scratch_mb: in units of 10^6 bytes. 0: no limit."""
    if cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NOFILE: MOST_OPEN_FILES,
        resource.RLIMIT_SIGPENDING: MOST_PENDING,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if memory_mb:
        address_mb = memory_mb + ADDRESS_MB + ADDRESS_MB_PER_CPU * len(os.sched_getaffinity(0))
        limits |= {resource.RLIMIT_DATA: memory_mb * 1_000_000, resource.RLIMIT_AS: address_mb * 1_000_000}
    if scratch_mb:
        limits[resource.RLIMIT_FSIZE] = scratch_mb * 1_000_000
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
