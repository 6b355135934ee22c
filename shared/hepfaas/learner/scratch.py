"""The folder of a learner process as the function sees it: made, measured, removed, whatever is done in it."""

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
LEFT_S = 60
"""So old is a folder that no function holds when nobody is about to take hold of it."""

MOST_FILES = 20_000
MOST_DEPTH = 50


_HELD: dict[Path, int] = {}
"""Descriptors of the folders of this process. Each has a lock, which ends with the process."""


def created() -> Path:
    """Return a new folder for this user alone, no symbolic link in its path. Removes those of killed functions."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            if left.lstat().st_mtime < time.time() - LEFT_S and left not in _HELD and _locked(left):
                remove(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    with contextlib.suppress(OSError):  # a file system without locks
        _locked(folder)
    return folder


def remove(folder: Path) -> None:
    """Removes it, also folders that nobody may enter, or nested deeper than Python goes."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL, check=False)
    if (descriptor := _HELD.pop(folder, None)) is not None:
        os.close(descriptor)


def _locked(folder: Path) -> bool:
    """Return whether this process now holds the folder, of which it is the owner. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another user's")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    _HELD[folder] = descriptor
    return True


def excess(folder: Path, process: int, most_mb: int) -> str:
    """What of the disk the process has taken that it may not; nothing if all is well.

    Files count that are removed and still open. What cannot be counted may not be: folders that cannot be read or are
    nested very deep, removed files that are mapped into memory.
    """
    size_bytes = files = 0
    try:
        removed, mapped = _held(process)
        for found in itertools.islice(itertools.chain(removed, _below(folder, MOST_DEPTH)), MOST_FILES + 1):
            size_bytes, files = size_bytes + 512 * found.st_blocks, files + 1
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return ""
    except OSError as error:
        return f"its folder cannot be looked through: {error.strerror}"
    if re.search(rf" {re.escape(str(folder.resolve()))}/.* \(deleted\)$", mapped, re.MULTILINE):
        return "it maps a file that it removed"
    if size_bytes > most_mb * 1_000_000 or files > MOST_FILES:
        return (
            f"{files:,} files with {size_bytes / 1e6:,.0f} MB in its folder; at most {MOST_FILES:,} files and "
            f"{most_mb:,} MB are allowed"
        )
    return ""


def _below(folder: Path, depth: int) -> Iterator[os.stat_result]:
    """All files and folders below one, as many as matter."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # removed meanwhile
        for entry in itertools.islice(entries, MOST_FILES + 1):
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                if not depth:
                    raise OSError(errno.ELOOP, "folders are nested too deep")
                yield from _below(Path(entry.path), depth - 1)


def _held(process: int) -> tuple[list[os.stat_result], str]:
    """Removed files that a process holds open, and what it maps into memory.

    All its threads hold the same (confinement.py), and what has ended holds nothing: the first thread may have ended
    while others go on. Raises: ProcessLookupError, FileNotFoundError if all have.
    """
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            removed = list(_removed(thread))
            mapped = (thread / "maps").read_text(errors="replace")
            if mapped:
                return removed, mapped
    raise ProcessLookupError(process)


def _removed(thread: Path) -> Iterator[os.stat_result]:
    """Files that have no name any more and are held open."""
    for descriptor in (thread / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found = descriptor.stat()
            if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                yield found
