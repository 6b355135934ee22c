"""Cuts a file into entry ranges, so that each is small and no basket is decompressed twice. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

AIM_BYTES = 32_000_000
"""Target for the uncompressed bytes of a range."""

MOST_RANGE_BYTES = 256_000_000
"""Largest uncompressed size of a range, even if a basket must then be read twice."""


class EntryRange(NamedTuple):
    """Entries [start, stop) of a TTree."""

    start: int
    stop: int


class Baskets(NamedTuple):
    """Branches whose baskets end at the same entries: the edges [0, ..., entries], and the bytes of all baskets."""

    edges: Sequence[int]
    size_bytes: int


def planned(baskets: Sequence[Baskets], entries: int, most_events: int) -> tuple[EntryRange, ...]:
    """Return ranges that tile [0, entries): whole clusters (edges that all branches share), joined up to `most_events`
    and some 32 MB. A cluster of more than 256 MB is cut at the baskets of its largest branches.
    """
    if not entries:
        return ()
    per_event = sum(group.size_bytes for group in baskets) / entries
    aim = max(1, min(most_events, int(AIM_BYTES / max(per_event, 1e-9))))
    edges = _thinned(_clusters(baskets, entries), aim)
    most = max(1, int(MOST_RANGE_BYTES / max(per_event, 1e-9)))
    edges = [edge for start, stop in pairwise(edges) for edge in _cut(start, stop, most, baskets)]
    return tuple(EntryRange(start, stop) for start, stop in pairwise([0, *edges]))


def baskets_read_twice(baskets: Sequence[Baskets], ranges: Sequence[EntryRange]) -> int:
    """Return the number of baskets, counted once for each group, that more than one range reads."""
    inner = [entries.stop for entries in ranges[:-1]]
    return sum(1 for group in baskets for edge in inner if edge not in set(group.edges))


def _clusters(baskets: Sequence[Baskets], entries: int) -> list[int]:
    counts = Counter(edge for group in baskets for edge in set(group.edges))
    return sorted({0, entries, *(edge for edge, count in counts.items() if count == len(baskets) and edge < entries)})


def _thinned(edges: Sequence[int], aim: int) -> list[int]:
    """Return as few edges as possible with at most `aim` between neighbours, where the edges permit."""
    kept = [edges[0]]
    while kept[-1] < edges[-1]:
        at = bisect_left(edges, kept[-1])
        reach = bisect_right(edges, kept[-1] + aim) - 1
        kept.append(edges[max(reach, at + 1)])
    return kept


def _cut(start: int, stop: int, most: int, baskets: Sequence[Baskets]) -> list[int]:
    """Return the end of a range, after cuts at the edges of its largest branches if it is too long."""
    if stop - start <= most:
        return [stop]
    largest = max(baskets, key=lambda group: group.size_bytes).edges
    inner = [edge for edge in largest if start < edge < stop]
    edges = _thinned([start, *inner, stop], most)
    return [end for first, last in pairwise(edges) for end in [*range(first + most, last, most), last]]
