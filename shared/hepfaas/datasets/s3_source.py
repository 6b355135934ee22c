"""ROOT files in buckets: what uproot reads, fetched by ranges, neighbours in one request."""

from __future__ import annotations

import queue
from typing import Any

from uproot.source.chunk import Chunk, Source
from uproot.source.futures import TrivialFuture

from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.s3 import S3Store

GAP_BYTES = 64_000
"""Ranges that are so near to each other are fetched together: a request costs as much as reading these."""

MOST_BYTES = 32_000_000

Range = tuple[int, int]


class S3Source(Source):  # type: ignore[misc]  # uproot has no types
    """One object, s3://bucket/key. Raises: RequestError if it is not there; UnavailableError."""

    def __init__(self, file_path: str, **options: Any) -> None:
        super().__init__()
        self._file_path = file_path
        bucket, _, self._key = file_path.removeprefix("s3://").partition("/")
        self._store, self._closed = S3Store(bucket, ""), False
        size_bytes = self._store.size_bytes(self._key) if self._key else None
        if size_bytes is None:
            raise RequestError(f"'{file_path}' does not exist")
        self._num_bytes = size_bytes

    def __repr__(self) -> str:
        return f"<S3Source '{self._file_path}'>"

    def __enter__(self) -> S3Source:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def chunk(self, start: int, stop: int) -> Chunk:
        """One range."""
        return self.chunks([(start, stop)], queue.Queue())[0]

    def chunks(self, ranges: list[Range], notifications: queue.Queue[Any]) -> list[Chunk]:
        """Many ranges, those near each other in one request."""
        self._num_requested_chunks += len(ranges)
        self._num_requested_bytes += sum(stop - start for start, stop in ranges)
        found: dict[Range, Chunk] = {}
        for group in together(ranges):
            start, stop = group[0][0], max(stop for _, stop in group)
            data = self._fetched(start, stop)
            for one in group:
                part = data[one[0] - start : one[1] - start]
                found[one] = Chunk(self, *one, TrivialFuture(part))
        chunks = [found[one] for one in ranges]
        for chunk in chunks:
            notifications.put(chunk)
        return chunks

    def _fetched(self, start: int, stop: int) -> bytes:
        self._num_requests += 1
        try:
            return self._store.get_range(self._key, start, min(stop, self._num_bytes))
        except MissingError as error:
            raise RequestError(f"'{self._file_path}' was removed while it was read") from error


def together(ranges: list[Range]) -> list[list[Range]]:
    """The ranges, sorted, in groups to be fetched in one request each."""
    groups: list[list[Range]] = []
    end = 0
    for start, stop in sorted(set(ranges)):
        if groups and start <= end + GAP_BYTES and max(stop, end) - groups[-1][0][0] <= MOST_BYTES:
            groups[-1].append((start, stop))
        else:
            groups.append([(start, stop)])
            end = 0
        end = max(end, stop)
    return groups
