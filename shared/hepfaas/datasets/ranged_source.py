"""A file on a server, fetched by ranges: neighbours in one request, several requests at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from hepfaas.datasets.byte_source import ByteSource, Range

GAP_BYTES = 64_000
"""Ranges with a smaller gap are fetched together: a request costs as much as reading so much."""

MOST_REQUEST_BYTES = 32_000_000
AT_ONCE = 8


class RangedSource(ByteSource):
    """A file of `size_bytes`."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    @abstractmethod
    def fetched(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop). Called by several threads at once."""

    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes of each range, those near each other in one request."""
        parts = {key: part for group in self._all(together(ranges)) for key, part in group.items()}
        return [parts[key] for key in ranges]

    def _all(self, groups: list[list[Range]]) -> list[dict[Range, bytes]]:
        if len(groups) < 2:
            return list(map(self._parts, groups))
        with ThreadPoolExecutor(min(AT_ONCE, len(groups))) as pool:
            contexts = [copy_context() for _ in groups]  # with the limit of platform/time_limit.py
            return list(pool.map(lambda context, group: context.run(self._parts, group), contexts, groups))

    def _parts(self, group: list[Range]) -> dict[Range, bytes]:
        """Return the ranges of one request."""
        first, last = group[0][0], max(stop for _, stop in group)
        data = self.fetched(first, min(last, self.size_bytes))
        return {(start, stop): data[start - first : stop - first] for start, stop in group}


def together(ranges: Sequence[Range]) -> list[list[Range]]:
    """Return the sorted ranges in groups, one for each request."""
    groups: list[list[Range]] = []
    end = 0
    for start, stop in sorted(set(ranges)):
        if groups and start <= end + GAP_BYTES and max(stop, end) - groups[-1][0][0] <= MOST_REQUEST_BYTES:
            groups[-1].append((start, stop))
        else:
            groups.append([(start, stop)])
            end = 0
        end = max(end, stop)
    return groups
