"""Text files as blocks of whole lines, plain or compressed (gzip, bzip2, Zstandard)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from hepfaas.datasets.tables.table import Data
from hepfaas.errors import RequestError

BLOCK_BYTES = 4_000_000
"""Size of a block, uncompressed: its numbers and the table that they are parsed to fit into the cache and the memory of
any machine."""

MOST_LINE_BYTES = 16_000_000
SKIPPED_BYTES = 1_000_000

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}


class Lines:
    """A text file. compression: '' for none. notes: on what `blocks` met."""

    def __init__(self, data: Data, name: str) -> None:
        self._data, self._name = data, name
        head = bytes(data.read(0, 4))
        self.compression = next((kind for magic, kind in _COMPRESSIONS.items() if head.startswith(magic)), "")
        self.notes: list[str] = []
        self._stream: Any = None
        self._at = 0

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop) of the text, fewer at its end. Going back in a compressed file begins anew."""
        if not self.compression:
            return bytes(self._data.read(start, stop))
        if self._stream is None or start < self._at:
            self._stream, self._at = pa.CompressedInputStream(self._data.arrow(), self.compression), 0
        while self._at < start:
            skipped = len(self._stream.read(min(SKIPPED_BYTES, start - self._at)))
            if not skipped:
                return b""
            self._at += skipped
        part = bytes(self._stream.read(stop - start))
        self._at += len(part)
        return part

    def blocks(self, offset: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield blocks of whole lines, from a line that begins at `offset`, each with its own offset.

        Raises: RequestError if a line is too long.
        """
        rest = b""
        while part := self.read(offset + len(rest), offset + len(rest) + BLOCK_BYTES):
            text = rest + part
            end = text.rfind(b"\n") + 1
            if not end and len(text) > MOST_LINE_BYTES:
                raise RequestError(
                    f"'{self._name}' has a line of more than {MOST_LINE_BYTES / 1e6:g} MB from byte {offset:,} on; "
                    "write one event a line"
                )
            if end:
                yield offset, text[:end]
            offset, rest = offset + end, text[end:]
        if rest:
            self.notes = ["the last line has no end; if the file was cut short, its last event is wrong"]
            yield offset, rest
