"""A store of objects as files in a folder: an object exists whole or not at all, even if a process is killed."""

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
"""Age after which a temporary file belongs to a killed process."""

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FULL = "free some space, or give another store with --store"
_WAYS_OUT = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EPERM: "its file system may have no hard links; give another folder with --store",
}


class FolderStore:
    """Objects are files under `path`, which is created with the first one. A new object is written to a temporary file,
    synced, and linked to its name if that is free, which is atomic."""

    def __init__(self, path: Path) -> None:
        self._root = path.absolute()
        self._temporary = self._root / ".tmp"
        with self._translated_errors():
            self._sweep()

    def below(self, folder: str) -> FolderStore:
        """Return the store of a folder."""
        return FolderStore(self._root / folder)

    @cached_property
    def url(self) -> str:
        """Return the folder's path."""
        return str(self._root)

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        try:
            return self._path(key).read_bytes()
        except _ABSENT as error:
            raise MissingError(key, self.url) from error

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the object."""
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(max(0, stop - start))
        except _ABSENT as error:
            raise MissingError(key, self.url) from error

    def size_bytes(self, key: str) -> int | None:
        """Return the size of the object, None if it does not exist."""
        try:
            stat = self._path(key).stat()
        except _ABSENT:
            return None
        return stat.st_size if S_ISREG(stat.st_mode) else None

    def create(self, key: str, data: Data) -> bool:
        """Store the whole object unless the key exists. Return whether it was stored."""
        path = self._path(key)
        if path.exists():
            return False
        written = self._temporary / uuid.uuid4().hex
        with self._translated_errors():
            self._temporary.mkdir(parents=True, exist_ok=True)
            try:
                with written.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(written, path)
            except FileExistsError:
                return False
            finally:
                written.unlink(missing_ok=True)
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Return the keys that start with the prefix, sorted; only those after the key `after`."""
        top = self._root / prefix.rpartition("/")[0]
        paths = (Path(folder, name) for folder, _, names in os.walk(top) for name in names)
        keys = (path.relative_to(self._root).as_posix() for path in paths)
        return iter(
            sorted(key for key in keys if key.startswith(prefix) and key > after and not key.startswith(".tmp/"))
        )

    def used_bytes(self) -> int:
        """Return the total size of all objects, each by `counted_bytes`."""
        return sum(counted_bytes(self.size_bytes(key) or 0) for key in self.keys(""))

    def delete(self, key: str) -> None:
        """Remove the object."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not all(map(is_name, key.split("/"))):
            raise ValueError(f"'{key}' cannot be the key of an object")
        return self._root / key

    def _sweep(self) -> None:
        old = time.time() - LEFT_OVER_S
        with suppress(FileNotFoundError):  # nothing has been stored yet
            for entry in os.scandir(self._temporary):
                with suppress(FileNotFoundError):  # its process has just finished
                    if entry.stat().st_mtime < old:
                        Path(entry).unlink()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            way_out = _WAYS_OUT.get(error.errno or 0, "give another folder with --store")
            raise RequestError(
                f"store '{self.url}' cannot be written: {error.strerror}; {way_out}",
                outside=f"the store of this service cannot be written: {error.strerror}",
            ) from error
