"""A store of objects as files in a folder: whole or not there, whoever is killed when."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from stat import S_ISREG

from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.storage import Data, counted_bytes, is_name

LEFT_OVER_S = 86_400
"""Age after which a temporary file is somebody's who was killed."""

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FULL = "free some space, or give a store elsewhere with --store"
_WAYS_OUT = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EPERM: "its file system may have no hard links; give another folder with --store",
}


class FolderStore:
    """Objects are files under `path`, which is made with the first. A new one is written aside, made durable, and
    linked to its name if that is free: the link either happens or does not."""

    def __init__(self, path: Path) -> None:
        self._root = path.absolute()
        self._aside = self._root / ".tmp"
        with self._explained():
            self._sweep()

    def below(self, folder: str) -> FolderStore:
        """The store of a folder."""
        return FolderStore(self._root / folder)

    @cached_property
    def url(self) -> str:
        """The folder's path."""
        return str(self._root)

    def get(self, key: str) -> bytes:
        """The whole object."""
        try:
            return self._path(key).read_bytes()
        except _ABSENT as error:
            raise MissingError(key, self.url) from error

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the object."""
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(max(0, stop - start))
        except _ABSENT as error:
            raise MissingError(key, self.url) from error

    def size_bytes(self, key: str) -> int | None:
        """Size of the object, None if it is not there."""
        try:
            found = self._path(key).stat()
        except _ABSENT:
            return None
        return found.st_size if S_ISREG(found.st_mode) else None

    def create(self, key: str, data: Data) -> bool:
        """Stores the object whole if there is none under this key."""
        path = self._path(key)
        if path.exists():
            return False
        aside = self._aside / uuid.uuid4().hex
        with self._explained():
            self._aside.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(aside, path)
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with the prefix, sorted; only those behind the key `after`."""
        top = self._root / prefix.rpartition("/")[0]
        found = (Path(folder, name) for folder, _, names in os.walk(top) for name in names)
        keys = (path.relative_to(self._root).as_posix() for path in found)
        return iter(
            sorted(key for key in keys if key.startswith(prefix) and key > after and not key.startswith(".tmp/"))
        )

    def used_bytes(self) -> int:
        """Size of all objects, as they count."""
        return sum(counted_bytes(self.size_bytes(key) or 0) for key in self.keys(""))

    def delete(self, key: str) -> None:
        """Removes the object."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not all(map(is_name, key.split("/"))):
            raise ValueError(f"'{key}' cannot be the key of an object")
        return self._root / key

    def _sweep(self) -> None:
        old = time.time() - LEFT_OVER_S
        with suppress(FileNotFoundError):  # nothing was stored yet
            for entry in os.scandir(self._aside):
                with suppress(FileNotFoundError):  # it was somebody's who has just finished
                    if entry.stat().st_mtime < old:
                        Path(entry).unlink()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            way_out = _WAYS_OUT.get(error.errno or 0, "give another folder with --store")
            raise RequestError(
                f"store '{self.url}' cannot be written: {error.strerror}; {way_out}",
                outside=f"the store of this service cannot be written: {error.strerror}",
            ) from error
