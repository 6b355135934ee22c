"""What people send: a job's folder as tar.gz, as files, or as values. Checked, size-limited, unpacked to scratch."""

from __future__ import annotations

import hashlib
import json
import mmap
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from werkzeug.utils import secure_filename

from hepfaas.datasets.files import checked_name
from hepfaas.errors import RequestError
from hepfaas.jobs.tars import Readable, members
from hepfaas.platform.storage import Data, Store

MOST_FILES = 10_000
"""Files and folders of one upload."""
MOST_DEPTH = 32
MOST_CODE_FILES = 1_000
"""Of a job that comes as values."""
ENTRY_BYTES = 4_096
"""Of the disk, for a file or folder beside its content."""
BLOCK = 1 << 20
HEADERS = 4_096
"""Bytes that a tar may spend on each member beside its content."""

ROOT_FILES = "put ROOT files on a server and list their root://, s3:// or https:// addresses in files.txt"
_TEXT = {"files": "files.txt", "labels": "labels.txt"}
_KEYS = ("name", "files", "labels", "code", "model", "params", "webhook")


def _nothing(size: int) -> None:
    pass


class Unpacked:
    """Puts what was sent under a folder, no more than `most_bytes` of it. instead: what to do if it is more.

    take: counts bytes that are about to be written, and raises if the disk has no room for them (Share.take).
    """

    def __init__(
        self, folder: Path, most_bytes: int, instead: str = ROOT_FILES, take: Callable[[int], None] = _nothing
    ) -> None:
        self._folder, self._left, self._most_bytes, self._instead = folder, most_bytes, most_bytes, instead
        self._entries, self._take = 0, take

    def add(self, name: str, data: Readable) -> None:
        """One file. Raises: RequestError if its name leads elsewhere, or it is too much."""
        path = self._folder / _checked(name)
        self._count(1 + sum(not above.exists() for above in path.parents))
        make_room(path, name)
        with path.open("wb") as out:
            while chunk := data.read(min(BLOCK, self._left + 1)):
                self._left -= len(chunk)
                if self._left < 0:
                    raise self._too_large()
                self._take(len(chunk))
                out.write(chunk)

    def add_tar(self, data: Readable) -> None:
        """All files of a tar, gzipped or not. Raises: RequestError if a member is a link or leads elsewhere."""
        try:
            for member in members(data, self._most_bytes + MOST_FILES * HEADERS, self._too_large):
                if not member.is_folder:
                    self.add(member.name, member)
                    continue
                self._count(1)
                if PurePosixPath(member.name) != PurePosixPath("."):  # `tar c .` begins with its own folder
                    _checked(member.name)
        except (tarfile.TarError, zlib.error, OSError, ValueError, IndexError) as error:
            raise RequestError(f"the upload is no whole tar.gz archive: {error}") from error

    def _too_large(self) -> RequestError:
        return RequestError(f"the upload is larger than {self._most_bytes / 1e6:,.0f} MB; {self._instead}")

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > MOST_FILES:
            raise RequestError(f"the upload has more than {MOST_FILES} files and folders")
        self._take(entries * ENTRY_BYTES)

    def job(self) -> Path:
        """The folder of the job: what was sent, or the only folder in it."""
        inside = list(self._folder.iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else self._folder


def _checked(name: str) -> PurePosixPath:
    path = checked_name(name)
    if len(path.parts) > MOST_DEPTH:
        raise RequestError(f"the upload's '{name}' lies in more than {MOST_DEPTH} folders")
    return path


def make_room(path: Path, name: str) -> None:
    """Makes the folders above a new file. Raises: RequestError if something else of the upload is in its place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(f"the upload's '{name}' lies in what is a file of the upload too") from error
    if path.exists():
        raise RequestError(f"the upload has '{name}' twice")


def stored_file(path: Path, store: Store) -> str:
    """Stores a file under its hash and name, and gives the key."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise RequestError(f"file '{path.name}' is empty")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"uploads/{digest}/{secure_filename(path.name) or 'file'}"
    store.create(key, mapped(path))
    return key


def mapped(path: Path) -> Data:
    """The bytes of a file, which the store sends without a copy in memory."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def write_job(values: Mapping[str, Any], folder: Path) -> None:
    """A job that came as values, written as its folder. Raises: RequestError naming what is wrong with it."""
    for key in values:
        if key not in _KEYS:
            raise RequestError(f"the job has the unknown key '{key}'; it takes {', '.join(_KEYS)}")
    code = values.get("code")
    if not isinstance(code, dict) or not code or not all(isinstance(text, str) for text in code.values()):
        raise RequestError("the job needs 'code': an object from file name to Python text, 'model.py' among them")
    if len(code) > MOST_CODE_FILES:
        raise RequestError(f"the job's 'code' has {len(code):,} files; it takes {MOST_CODE_FILES:,}, or send a tar.gz")
    for name, text in code.items():
        path = folder / _checked(name)
        make_room(path, name)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    for key, name in _TEXT.items():
        lines = values.get(key)
        if not isinstance(lines, list) or not all(isinstance(line, str | int) for line in lines):
            raise RequestError(f"the job needs '{key}': a list, one for each file")
        (folder / name).write_text("\n".join(map(str, lines)), encoding="utf-8", errors="surrogatepass")
    params = values.get("params", {})
    if not isinstance(params, dict):
        raise RequestError("the job's 'params' takes an object with the keys of params.json (docs/reference/params.md)")
    (folder / "params.json").write_text(json.dumps(params))


def given_names(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Those names that are given. Raises: RequestError if one is no text."""
    given = {name: values[name] for name in names if values.get(name) is not None}
    for name, value in given.items():
        if not isinstance(value, str) or not value:
            raise RequestError(f"'{name}' is {json.dumps(value)}; it takes a name")
        if name != "name":
            checked_name(value)
    return given
