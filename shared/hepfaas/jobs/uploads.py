"""Uploads: a folder as tar or as files, checked and unpacked to disk within limits; files that go to the store."""

from __future__ import annotations

import hashlib
import mmap
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from werkzeug.utils import secure_filename

from hepfaas.datasets.files import checked_name
from hepfaas.errors import RequestError
from hepfaas.jobs.tars import Readable, members
from hepfaas.platform.storage import Data, Store

MOST_FILES = 10_000
"""Files and folders of one upload."""
MOST_DEPTH = 32
"""Parts of a path."""
ENTRY_BYTES = 4_096
"""Disk space of a file or folder besides its content."""
BLOCK = 1 << 20
HEADERS = 4_096
"""Bytes that a tar may use for each member besides its content."""

ROOT_FILES = "put ROOT files on a server and list their root://, s3:// or https:// addresses in files.txt"


def _nothing(size: int) -> None:
    pass


class Unpacked:
    """Writes an upload of at most `most_bytes` below a folder.

    instead: what the user can do if the upload is larger. take: count bytes that will be written; it raises if there
    is no disk space for them (Share.take).
    """

    def __init__(
        self, folder: Path, most_bytes: int, instead: str = ROOT_FILES, take: Callable[[int], None] = _nothing
    ) -> None:
        self._folder, self._left, self._most_bytes, self._instead = folder, most_bytes, most_bytes, instead
        self._entries, self._take = 0, take

    def add(self, name: str, data: Readable) -> None:
        """Write one file. Raises: RequestError if its name leads out of the folder or the upload is too large."""
        path = self._folder / checked_path(name)
        self._count(1 + sum(not above.exists() for above in path.parents))
        _make_room(path, name)
        with path.open("wb") as out:
            while chunk := data.read(min(BLOCK, self._left + 1)):
                self._left -= len(chunk)
                if self._left < 0:
                    raise self._too_large()
                self._take(len(chunk))
                out.write(chunk)

    def add_tar(self, data: Readable) -> None:
        """Write all files of a tar, gzipped or not. Raises: RequestError as `add` does, or if a member is a link."""
        try:
            for member in members(data, self._most_bytes + MOST_FILES * HEADERS, self._too_large):
                if not member.is_folder:
                    self.add(member.name, member)
                    continue
                self._count(1)
                if PurePosixPath(member.name) != PurePosixPath("."):  # the first member of `tar c .`
                    checked_path(member.name)
        except (tarfile.TarError, zlib.error, OSError, ValueError, IndexError) as error:
            raise RequestError(f"the upload is not a complete tar.gz archive: {error}") from error

    def _too_large(self) -> RequestError:
        return RequestError(f"the upload is larger than {self._most_bytes / 1e6:,.0f} MB; {self._instead}")

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > MOST_FILES:
            raise RequestError(f"the upload has more than {MOST_FILES} files and folders")
        self._take(entries * ENTRY_BYTES)

    def job(self) -> Path:
        """Return the folder of the job: the only folder that was sent, or the one above all that was sent."""
        paths = list(self._folder.iterdir())
        return paths[0] if len(paths) == 1 and paths[0].is_dir() else self._folder


def checked_path(name: str) -> PurePosixPath:
    """Return the path of a file below a folder. Raises: RequestError if it leads out of it or is too deep."""
    path = checked_name(name)
    if len(path.parts) > MOST_DEPTH:
        raise RequestError(f"the upload's '{name}' lies in more than {MOST_DEPTH} folders")
    return path


def _make_room(path: Path, name: str) -> None:
    """Make the folders above a new file. Raises: RequestError if another file of the upload is in its place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(f"the upload's '{name}' lies below another file") from error
    if path.exists():
        raise RequestError(f"the upload has '{name}' twice")


def stored_file(path: Path, store: Store) -> str:
    """Store a file under its hash and name; return the key."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise RequestError(f"file '{path.name}' is empty")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"uploads/{digest}/{secure_filename(path.name) or 'file'}"
    store.create(key, mapped(path))
    return key


def mapped(path: Path) -> Data:
    """Return the bytes of a file, mapped: the store sends them without a copy in memory."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
