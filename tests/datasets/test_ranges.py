"""The ranges of any file tile it, are small, and cut no basket without need."""

from itertools import pairwise

from hepfaas.datasets.ranges import AIM_BYTES, MOST_RANGE_BYTES, Baskets, EntryRange, baskets_read_twice, planned
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def files(draw: st.DrawFn) -> tuple[int, list[Baskets]]:
    entries = draw(st.integers(1, 50_000))
    shared = draw(st.sets(st.integers(1, entries), max_size=20))
    groups = []
    for _ in range(draw(st.integers(1, 4))):
        own = draw(st.sets(st.integers(1, entries), max_size=5))
        edges = sorted({0, entries} | shared | own)
        groups.append(Baskets(edges, draw(st.integers(0, 10**9))))
    return entries, groups


@given(files(), st.integers(1, 60_000))
def test_ranges_tile_the_file(file: tuple[int, list[Baskets]], most_events: int) -> None:
    entries, baskets = file
    ranges = planned(baskets, entries, most_events)
    assert ranges[0].start == 0
    assert ranges[-1].stop == entries
    assert all(one.stop == other.start for one, other in pairwise(ranges))
    assert all(one.start < one.stop for one in ranges)
    assert planned(baskets, entries, most_events) == ranges


@given(files(), st.integers(1, 60_000))
def test_no_range_is_too_large(file: tuple[int, list[Baskets]], most_events: int) -> None:
    entries, baskets = file
    per_event = sum(group.size_bytes for group in baskets) / entries
    most = max(1.0, MOST_RANGE_BYTES / max(per_event, 1e-9))
    assert all(one.stop - one.start <= most for one in planned(baskets, entries, most_events))


@given(files(), st.integers(1, 60_000))
def test_a_basket_is_cut_only_where_a_cluster_is_too_large(file: tuple[int, list[Baskets]], most_events: int) -> None:
    entries, baskets = file
    per_event = sum(group.size_bytes for group in baskets) / entries
    shared = sorted(set.intersection(*(set(group.edges) for group in baskets)))
    longest = max(stop - start for start, stop in pairwise(shared))
    if longest * per_event < MOST_RANGE_BYTES:
        assert baskets_read_twice(baskets, planned(baskets, entries, most_events)) == 0


def test_small_clusters_are_joined_and_large_ones_are_not() -> None:
    small = Baskets(range(0, 10_001, 100), 1000)
    assert planned([small], 10_000, 2_000) == tuple(EntryRange(s, s + 2_000) for s in range(0, 10_000, 2_000))
    large = Baskets([0, 5_000, 10_000], 1000)
    assert planned([large], 10_000, 2_000) == (EntryRange(0, 5_000), EntryRange(5_000, 10_000))


def test_a_range_aims_at_32_mb() -> None:
    baskets = Baskets(range(0, 100_001, 1_000), 100_000 * 3_200)
    ranges = planned([baskets], 100_000, 100_000)
    assert {one.stop - one.start for one in ranges} == {AIM_BYTES // 3_200}


def test_a_cluster_too_large_is_cut_at_its_largest_branch_and_counted() -> None:
    heavy = Baskets(range(0, 1_001, 100), 990_000_000)
    light = Baskets([0, 1_000], 10_000_000)
    ranges = planned([heavy, light], 1_000, 100_000)
    assert [one.stop for one in ranges] == [200, 400, 600, 800, 1_000]
    assert baskets_read_twice([heavy, light], ranges) == 4


def test_an_empty_file_has_no_range() -> None:
    assert planned([Baskets([0], 0)], 0, 100) == ()
