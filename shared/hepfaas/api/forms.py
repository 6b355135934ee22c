"""A multipart form, read as a stream: files go to one temporary file, other fields to memory, up to a limit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from hepfaas.errors import RequestError, TooLargeError

PIECE = 1 << 16
MOST_PARTS = 1_000
MOST_HEAD = 16_000
"""Bytes of the headers of one part."""
MOST_FIELD_BYTES = 100_000
"""Total size of the fields that are not files."""

FORM = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
"""JSON Schema of a form with one file."""


@dataclass
class Part:
    """A file of a form: a part of the temporary file."""

    name: str
    filename: str
    _spool: IO[bytes]
    _at: int
    _end: int

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size` of them."""
        self._spool.seek(self._at)
        data = self._spool.read(min(size, self._end - self._at))
        self._at += len(data)
        return data


@dataclass
class Form:
    """Fields of a form by name, and its files in the order of the body."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Part] = field(default_factory=list)

    def file(self, name: str) -> Part | None:
        """Return the first file with a name."""
        return next((part for part in self.files if part.name == name), None)


@contextmanager
def form_in(request: Request, take: Callable[[int], None]) -> Iterator[Form]:
    """Parse the multipart form in a request; its files can be read inside the block.

    take: counts bytes before they are written to disk (Share.take).
    Raises: RequestError if the form is malformed; TooLargeError; errors of `take`.
    """
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype != "multipart/form-data" or not boundary.isascii() or not 0 < len(boundary) <= 200:
        yield Form()
        return
    with tempfile.TemporaryFile() as spool:
        try:
            form = _read(request, boundary.encode(), spool, take)
        except ValueError as error:
            raise RequestError(f"the body is not a valid form: {str(error)[:200]}") from error
        spool.flush()
        yield form


def _read(request: Request, boundary: bytes, spool: IO[bytes], take: Callable[[int], None]) -> Form:
    form, left, is_file, name, text = Form(), MOST_FIELD_BYTES, False, "", bytearray()
    for event in _events(request.stream, boundary):
        if isinstance(event, Field | File):
            name, is_file, text = event.name or "", isinstance(event, File), bytearray()
            left -= len(name)
            if isinstance(event, File):
                left -= len(event.filename)
                at = spool.tell()
                form.files.append(Part(name, event.filename, spool, at, at))
        elif isinstance(event, Data) and is_file:
            take(len(event.data))
            spool.write(event.data)
            form.files[-1]._end = spool.tell()
        elif isinstance(event, Data):
            left -= len(event.data)
            text += event.data
            if not event.more_data:
                form.fields.setdefault(name, text.decode("utf-8", "replace"))
        if left < 0:
            raise TooLargeError(
                f"the names and texts of the form have more than {MOST_FIELD_BYTES:,} bytes; send many files as one "
                "tar.gz, and long texts as files"
            )
    return form


def _events(stream: IO[bytes], boundary: bytes) -> Iterator[Event]:
    """Yield the parts of a form, piece by piece. Raises: ValueError if it is malformed; TooLargeError."""
    decoder = MultipartDecoder(boundary, max_form_memory_size=PIECE + MOST_HEAD, max_parts=MOST_PARTS)
    is_over = False
    while not is_over:
        data = stream.read(PIECE)
        is_over = not data
        try:
            decoder.receive_data(data or None)
            while not isinstance(event := decoder.next_event(), Epilogue | NeedData):
                yield event
        except RequestEntityTooLarge as error:
            raise TooLargeError(
                f"the form has more than {MOST_PARTS:,} parts, or one whose headers have more than {MOST_HEAD:,} "
                "bytes; send many files as one tar.gz"
            ) from error
