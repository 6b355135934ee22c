"""Bodies of requests and responses: folders as tar.gz, lines of text, scores as Arrow streams."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import httpx

from hepfaas.errors import RequestError, UnavailableError

if TYPE_CHECKING:
    from hepfaas.scores.files import Columns

ARROW_STREAM = "application/vnd.apache.arrow.stream"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The last bytes of a complete Arrow stream (Arrow columnar format, IPC streaming format)."""


def write_folder(folder: Path, out: BinaryIO, more: Mapping[str, bytes] | None = None) -> None:
    """Write the files of a folder as tar.gz, without hidden ones. more: contents of further files, which replace those
    of the folder. Raises: RequestError if it is not a folder."""
    more = more or {}
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is not a folder; submit takes the folder with files.txt and model.py")
    with tarfile.open(fileobj=out, mode="w:gz", dereference=True, compresslevel=1) as tar:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
            if path.is_file() and not hidden and name.as_posix() not in more:
                tar.add(path, name.as_posix(), recursive=False)
        for added, data in more.items():
            member = tarfile.TarInfo(added)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def lines_of(response: httpx.Response) -> Iterator[str]:
    """Yield the lines of a text as they arrive. Line feeds and carriage returns end a line; other separators do not.

    Raises: UnavailableError if the text breaks off.
    """
    rest = ""
    try:
        for text in response.iter_text():
            *lines, rest = re.split("[\r\n]", rest + text)
            yield from lines
        if rest:
            yield rest
    except httpx.HTTPError as error:
        raise UnavailableError(f"the lines of {response.request.url} break off: {error}") from error


def columns_of(response: httpx.Response) -> Iterator[Columns]:
    """Yield the record batches of an Arrow stream as they arrive. Raises: UnavailableError if it is incomplete."""
    import pyarrow as pa  # slow, and only scores need it

    body = _Body(response.iter_bytes())
    try:
        for batch in pa.ipc.open_stream(pa.PythonFile(body, mode="r")):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
        body.read()
    except (httpx.HTTPError, pa.ArrowException, OSError) as error:
        raise UnavailableError(f"the scores of {response.request.url} break off: {error}") from error
    if body.tail != END_OF_STREAM:
        raise UnavailableError(f"the scores of {response.request.url} break off; try again")


class _Body(io.RawIOBase):
    """Chunks of bytes as a file. tail: the last bytes that arrived."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest, self.tail = chunks, b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, count = [self._rest], len(self._rest)
        while size < 0 or count < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self.tail = (self.tail + chunk)[-len(END_OF_STREAM) :]
            parts.append(chunk)
            count += len(chunk)
        data = b"".join(parts)
        size = len(data) if size < 0 else size
        self._rest = data[size:]
        return data[:size]
