"""What the C library does with memory that is free again: glibc keeps much of it, in several arenas."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""Of `mallopt`, in glibc's malloc.h. Other C libraries have no arenas, and these calls change nothing there."""


def use_one_arena() -> None:
    """Threads that start later take memory from the first one's arena, and leave none that only they would use."""
    if change := getattr(ctypes.CDLL(None), "mallopt", None):
        change(M_ARENA_MAX, 1)


def release_free_memory() -> None:
    """What is free goes back to the system: some 0.15 s for a GB, in which threads that ask for memory wait."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
