"""The scratch folder of a learner process: created, measured and removed by the function, whatever its content."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "hepfaas-learner-"
ABANDONED_S = 60
"""An unlocked folder of this age is abandoned; a younger one may be about to be locked."""

MAX_FILES = 20_000
MAX_DEPTH = 50


_LOCKED: dict[Path, int] = {}
"""Descriptors of this process's folders. Each holds a lock that ends with the process."""


def create() -> Path:
    """Return a new folder that only this user may read, its path without symbolic links.

    Removes the folders of functions that were killed.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            if old.lstat().st_mtime < time.time() - ABANDONED_S and old not in _LOCKED and _lock(old):
                remove(old)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    with contextlib.suppress(OSError):  # a file system without locks
        _lock(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove the folder, even with subfolders that cannot be entered or that are nested too deeply for Python."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL, check=False)
    if (descriptor := _LOCKED.pop(folder, None)) is not None:
        os.close(descriptor)


def _lock(folder: Path) -> bool:
    """Lock a folder of this user; return True. Raises: OSError if it is another user's or is locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another user's")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    _LOCKED[folder] = descriptor
    return True


def excess(folder: Path, process: int, max_mb: int) -> str:
    """Return how the process exceeds its disk limit, or '' if it does not.

    Removed files that are still open count. What cannot be counted is not allowed: folders that cannot be read or are
    nested too deeply, and removed files that are mapped into memory.
    """
    size_bytes = files = 0
    try:
        removed, mapped = _held(process)
        for status in itertools.islice(itertools.chain(removed, _below(folder, MAX_DEPTH)), MAX_FILES + 1):
            size_bytes, files = size_bytes + 512 * status.st_blocks, files + 1
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return ""
    except OSError as error:
        return f"its folder cannot be read: {error.strerror}"
    if re.search(rf" {re.escape(str(folder.resolve()))}/.* \(deleted\)$", mapped, re.MULTILINE):
        return "it maps a file that it removed"
    if size_bytes > max_mb * 1_000_000 or files > MAX_FILES:
        return (
            f"{files:,} files with {size_bytes / 1e6:,.0f} MB in its folder; at most {MAX_FILES:,} files and "
            f"{max_mb:,} MB are allowed"
        )
    return ""


def _below(folder: Path, depth: int) -> Iterator[os.stat_result]:
    """Yield the status of each file and folder below this one, of a folder at most MAX_FILES + 1."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # removed meanwhile
        for entry in itertools.islice(entries, MAX_FILES + 1):
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                if not depth:
                    raise OSError(errno.ELOOP, "folders are nested too deeply")
                yield from _below(Path(entry.path), depth - 1)


def _held(process: int) -> tuple[list[os.stat_result], str]:
    """Return the removed files that a process holds open, and its memory map.

    All threads share descriptors (sandbox/confinement.py), so the first thread that is alive answers for all. Raises:
    ProcessLookupError or FileNotFoundError if all threads have ended.
    """
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            removed = list(_removed(thread))
            mapped = (thread / "maps").read_text(errors="replace")
            if mapped:
                return removed, mapped
    raise ProcessLookupError(process)


def _removed(thread: Path) -> Iterator[os.stat_result]:
    """Yield the status of each open file that has no name any more."""
    for descriptor in (thread / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = descriptor.stat()
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                yield status
