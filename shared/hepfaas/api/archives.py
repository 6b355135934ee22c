"""Files of a model version, one by one or all as tar.gz, streamed from the store."""

from __future__ import annotations

import itertools
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from flask import Response
from werkzeug.exceptions import NotFound

from hepfaas.errors import MissingError
from hepfaas.models import versions
from hepfaas.platform.storage import Store

PIECE_BYTES = 4_000_000
TYPES = {".png": "image/png", ".pdf": "application/pdf", ".json": "application/json"}


def published(store: Store, name: str, number: int) -> versions.Version:
    """Return a published version. Raises: NotFound, also when it was deleted."""
    version = versions.Version(name, number)
    if not versions.is_there(store, version):
        raise NotFound(f"there is no model version '{name}/{number}', or it was deleted; GET /v1/models lists them")
    return version


def archive(store: Store, version: versions.Version, more: Mapping[str, bytes] | None = None) -> Iterator[bytes]:
    """Yield all files of a version as tar.gz, under its name. Raises: MissingError before the first piece."""
    keys = [f"{version.prefix}{name}" for name in versions.files_of(store, version)]
    sizes = {key: _size(store, key) for key in keys}
    files = {key.removeprefix(version.prefix): (size, _pieces(store, key, size)) for key, size in sizes.items()}
    files |= {name: (len(data), iter((data,))) for name, data in (more or {}).items()}
    return _packed({f"{version.name}/{name}": file for name, file in files.items()})


def file_answer(store: Store, version: versions.Version, name: str) -> Response:
    """Return the response with one file of a version. Raises: NotFound."""
    try:
        size = _size(store, key := f"{version.prefix}{name}")
    except MissingError as error:
        raise NotFound(f"model version '{version}' has no file '{name}'") from error
    kind = TYPES.get(Path(name).suffix, "application/octet-stream")
    return Response(_pieces(store, key, size), mimetype=kind, headers={"Content-Length": str(size)})


def _packed(files: Mapping[str, tuple[int, Iterator[bytes]]]) -> Iterator[bytes]:
    """Yield a tar.gz of files, each given by its size and its pieces."""
    gzip = zlib.compressobj(wbits=31)
    for name, (size, pieces) in files.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        for piece in itertools.chain((info.tobuf(),), pieces, (bytes(-size % tarfile.BLOCKSIZE),)):
            yield gzip.compress(piece)
    yield gzip.compress(bytes(2 * tarfile.BLOCKSIZE)) + gzip.flush()


def _pieces(store: Store, key: str, size: int) -> Iterator[bytes]:
    return (store.get_range(key, start, min(start + PIECE_BYTES, size)) for start in range(0, size, PIECE_BYTES))


def _size(store: Store, key: str) -> int:
    size = store.size_bytes(key)
    if size is None:
        raise MissingError(key, store.url)
    return size
