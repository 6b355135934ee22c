"""The folder of a learner process as the function sees it: made, measured, removed, whatever is done in it."""

from __future__ import annotations

import contextlib
import errno
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
LEFT_S = 3600
"""So old is an empty folder when nobody is about to fill it."""

MOST_FILES = 20_000
MOST_DEPTH = 50


def created() -> Path:
    """A new folder for this user alone. Removes empty ones that learners whose function was killed have left."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, or not empty
            if left.stat().st_mtime < time.time() - LEFT_S:
                left.rmdir()
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def remove(folder: Path) -> None:
    """Removes it, also folders that nobody may enter, or nested deeper than Python goes."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL, check=False)


def excess(folder: Path, process: int, most_mb: int) -> str:
    """What of the disk the process has taken that it may not; nothing if all is well.

    Files count that are removed and still open. What cannot be counted may not be: folders that cannot be read or are
    nested very deep, removed files that are mapped into memory.
    """
    size_bytes = files = 0
    try:
        removed, mapped = _held(process)
        for found in [*_below(folder, MOST_DEPTH), *removed]:
            size_bytes, files = size_bytes + 512 * found.st_blocks, files + 1
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return ""
    except OSError as error:
        return f"its folder cannot be looked through: {error.strerror}"
    if re.search(rf" {re.escape(str(folder))}/.* \(deleted\)$", mapped, re.MULTILINE):
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
