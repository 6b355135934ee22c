"""What uproot reads of a file on a server, fetched by ranges: neighbours in one request, several at a time."""

from __future__ import annotations

import queue
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Self

from uproot.source.chunk import Chunk, Source
from uproot.source.futures import TrivialFuture

GAP_BYTES = 64_000
"""Ranges that are so near to each other are fetched together: a request costs as much as reading these."""

MOST_BYTES = 32_000_000
AT_ONCE = 8

Range = tuple[int, int]


class RangedSource(Source):  # type: ignore[misc]  # uproot has no types
    """One file of `size_bytes`."""

    def __init__(self, file_path: str, size_bytes: int) -> None:
        super().__init__()
        self._file_path, self._num_bytes, self._closed = file_path, size_bytes, False

    @abstractmethod
    def fetched(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop). Called by several threads at once."""
        ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__} '{self._file_path}'>"

    def __enter__(self) -> Self:
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
        groups = together(ranges)
        self._num_requests += len(groups)
        self._num_requested_chunks += len(ranges)
        self._num_requested_bytes += sum(stop - start for start, stop in ranges)
        found = {one: part for parts in self._all(groups) for one, part in parts.items()}
        chunks = [found[one] for one in ranges]
        for chunk in chunks:
            notifications.put(chunk)
        return chunks

    def _all(self, groups: list[list[Range]]) -> list[dict[Range, Chunk]]:
        if len(groups) < 2:
            return list(map(self._parts, groups))
        with ThreadPoolExecutor(min(AT_ONCE, len(groups))) as pool:
            within = [copy_context() for _ in groups]  # the time that all of them have: platform/time_limit.py
            return list(pool.map(lambda context, group: context.run(self._parts, group), within, groups))

    def _parts(self, group: list[Range]) -> dict[Range, Chunk]:
        """The chunks of one request."""
        first, last = group[0][0], max(stop for _, stop in group)
        data = self.fetched(first, min(last, self._num_bytes))
        return {
            (start, stop): Chunk(self, start, stop, TrivialFuture(data[start - first : stop - first]))
            for start, stop in group
        }


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
