"""Control of the C library's free memory: glibc keeps much of it, in several arenas."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""Option of `mallopt`, in glibc's malloc.h. With other C libraries, which have no arenas, these functions do
nothing."""


def use_one_arena() -> None:
    """Make threads that start later allocate from the first arena, so that no arena is left with their free memory."""
    if change := getattr(ctypes.CDLL(None), "mallopt", None):
        change(M_ARENA_MAX, 1)


def release_free_memory() -> None:
    """Return free memory to the system. It takes 0.15 s for a GB; threads that allocate memory wait meanwhile."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
