"""Wildcards in names of files: `*`, `?`, `[…]` and `**` (any number of folders). Finds the matches in folders on disk;
listings.py finds those on servers. A name that begins with '.' is only matched by a pattern that does so too. Light."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hepfaas.errors import RequestError
from hepfaas.platform.address import WEB, XROOTD

MOST_MATCHES, MOST_ENTRIES, MOST_FOLDERS, MOST_DEPTH = 20_000, 500_000, 5_000, 32
"""Files of one pattern; names that are looked at, folders that are listed, folders below each other for it."""

LONGEST_S = 240.0
"""Time in which new folders are listed for one pattern."""

MOST_SHOWN, MOST_NAME = 5, 200

DISK = "*?["
SIGNS = {**dict.fromkeys(XROOTD, "*["), **dict.fromkeys(("s3", *WEB), "*")}
"""Characters that make a pattern of an address, by its scheme. The others of `DISK` are ordinary characters there: '?'
begins a query of XRootD and the web, and the keys of S3 may have any."""

ANY_FOLDERS = "**"


class Entry(NamedTuple):
    """A name in a folder. is_link: to a folder, which `**` does not enter."""

    name: str
    is_folder: bool
    is_link: bool = False


Folder = Callable[[str, str], Sequence[Entry]]
"""Return the entries of a folder, at least those whose names start with a text; none if there is no such folder. The
path of the folder is '' or ends with '/'."""


def is_pattern(name: str) -> bool:
    """Return whether the path or address of a file has wildcards."""
    scheme, mark, rest = name.partition("://")
    signs = SIGNS.get(scheme.lower(), "") if mark else DISK
    path = rest.partition("/")[2] if mark else name
    return any(sign in path for sign in signs)


def found(pattern: str, folder: Folder, signs: str = DISK, shown: str = "") -> tuple[str, ...]:
    """Return the paths of the files that a pattern matches, sorted.

    signs: the characters that are wildcards. shown: the pattern in messages.
    Raises: RequestError if there are none, naming what is there, or too many.
    """
    search = _Search(folder, signs, shown or pattern)
    paths: set[str] = set()
    for path in search.walk("", _parts(pattern), 0):
        paths.add(path)
        if len(paths) > MOST_MATCHES:
            raise RequestError(f"'{search.shown}' matches more than {MOST_MATCHES:,} files; use several patterns")
    if not paths:
        raise RequestError(f"no file matches '{search.shown}': {search.place()}")
    return tuple(sorted(paths))


def on_disk(folder: Path, inside: bool) -> Folder:
    """Return the entries of folders on this machine, given by their paths relative to a folder. inside: without links,
    which may lead out of it."""

    def entries(path: str, start: str) -> Sequence[Entry]:
        place = folder / path
        if inside and not place.resolve().is_relative_to(folder.resolve()):
            return ()
        try:
            with os.scandir(place) as listing:
                return [_entry(entry) for entry in listing if not (inside and entry.is_symlink())]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise RequestError(f"folder '{path}' cannot be listed: {error.strerror}") from error

    return entries


def _entry(entry: os.DirEntry[str]) -> Entry:
    return Entry(entry.name, entry.is_dir(), entry.is_symlink())


def _parts(pattern: str) -> list[str]:
    """Return the parts of a path between slashes. A part of an absolute path or of a key of S3 may be empty."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part != ANY_FOLDERS or parts[-1:] != [ANY_FOLDERS]:
            parts.append(part)
    return parts


class _Search:
    """The search for the matches of one pattern. Counts what it looks at, and remembers it for the message."""

    def __init__(self, folder: Folder, signs: str, shown: str) -> None:
        self._folder, self._signs, self.shown = folder, signs, shown
        self._end = time.monotonic() + LONGEST_S
        self._listed: dict[tuple[str, str], Sequence[Entry]] = {}
        self._walked: set[tuple[str, ...]] = set()
        self._n_entries = 0
        self._nearest: tuple[int, str] = (0, "")

    def walk(self, path: str, parts: Sequence[str], depth: int) -> Iterator[str]:
        """Yield the files below a folder that match the parts of a pattern."""
        if depth > MOST_DEPTH:
            raise RequestError(f"'{self.shown}' has more than {MOST_DEPTH} folders below each other; name some of them")
        if (path, *parts) in self._walked:  # several `**` lead to a folder in many ways
            return
        self._walked.add((path, *parts))
        part, rest = parts[0], parts[1:]
        self._nearest = max(self._nearest, (depth, path))
        if part == ANY_FOLDERS:
            yield from self.walk(path, rest or ["*"], depth)
            for entry in self._entries(path, ""):
                if entry.is_folder and not entry.is_link and not entry.name.startswith("."):
                    yield from self.walk(f"{path}{entry.name}/", parts, depth + 1)
        elif rest and not self._is_wild(part):
            yield from self.walk(f"{path}{part}/", rest, depth + 1)
        else:
            matches, start = self._regex(part).match, self._start(part)
            for entry in self._entries(path, start):
                if entry.is_folder != bool(rest) or not matches(entry.name):
                    continue
                if entry.name.startswith(".") and not part.startswith("."):
                    continue
                if rest:
                    yield from self.walk(f"{path}{entry.name}/", rest, depth + 1)
                else:
                    yield path + entry.name

    def place(self) -> str:
        """Return what is in the last folder that was looked at, or in the nearest one above it."""
        _, path = self._nearest
        while not (entries := self._entries_above(path)) and path.strip("/"):
            path = "".join(path.rstrip("/").rpartition("/")[:2])
        names = sorted(f"{entry.name}/" if entry.is_folder else entry.name for entry in entries)
        listed = ", ".join(name[:MOST_NAME] for name in names[:MOST_SHOWN])
        more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
        return f"'{path or '.'}' has {listed or 'no file'}{more}"

    def _entries_above(self, path: str) -> Sequence[Entry]:
        """Return the entries of a folder for a message; none if its server refuses to list it."""
        try:
            return self._entries(path, "")
        except RequestError:
            return ()

    def _entries(self, path: str, start: str) -> Sequence[Entry]:
        key = (path, start)
        if key not in self._listed:
            if len(self._listed) >= MOST_FOLDERS or time.monotonic() > self._end:
                raise RequestError(
                    f"'{self.shown}' leads to too many folders: {len(self._listed):,} were listed; name some of them"
                )
            self._listed[key] = self._folder(path, start)
            self._n_entries += len(self._listed[key])
            if self._n_entries > MOST_ENTRIES:
                raise RequestError(f"'{self.shown}' leads to more than {MOST_ENTRIES:,} names; name some folders")
        return self._listed[key]

    def _is_wild(self, part: str) -> bool:
        return any(sign in part for sign in self._signs)

    def _start(self, part: str) -> str:
        """Return the text with which all matches of a part start."""
        wild = [part.index(sign) for sign in self._signs if sign in part]
        return part[: min(wild, default=len(part))]

    def _regex(self, part: str) -> re.Pattern[str]:
        ordinary = "".join(sign for sign in DISK if sign not in self._signs)
        escaped = re.sub(f"[{re.escape(ordinary)}]", lambda sign: f"[{sign[0]}]", part) if ordinary else part
        return re.compile(fnmatch.translate(escaped))
