"""ROOT files in buckets give the same values as on disk, in few requests."""

from pathlib import Path

import numpy as np
import pytest
import uproot
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranged_source import GAP_BYTES, MOST_REQUEST_BYTES, together
from hepfaas.datasets.ranges import EntryRange
from hepfaas.errors import RequestError
from hypothesis import given
from hypothesis import strategies as st
from support.servers import s3_client

pairs = st.tuples(st.integers(0, 10**8), st.integers(1, 10**7)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@pytest.fixture
def place(tmp_path: Path, s3_url: str, s3_server: dict[str, str]) -> tuple[Path, str]:
    """Return a file on disk and its copy in a bucket."""
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"met": "float32", "event": "int64"})
        for start in range(0, 1000, 100):
            chunk = np.arange(start, start + 100)
            file["Events"].extend({"met": chunk.astype("float32"), "event": chunk})
    key = f"{s3_url.removeprefix('s3://tests/')}/ev ents+ä.root"
    s3_client(s3_server).upload_file(str(path), "tests", key)
    return path, f"s3://tests/{key}"


def test_a_file_in_a_bucket_equals_the_local_one(place: tuple[Path, str]) -> None:
    path, url = place
    local, remote = opened(str(path), "Events"), opened(url, "Events")
    assert remote.identity == local.identity
    assert remote.branches == local.branches
    arrays = read(url, remote.identity, "Events", branches=["met", "event"], entries=EntryRange(150, 850))
    assert arrays["event"].tolist() == list(range(150, 850))


def test_a_missing_file_is_named(s3_url: str) -> None:
    with pytest.raises(RequestError, match=r"'s3://tests/.*none.root' does not exist"):
        opened(f"{s3_url}/none.root", "Events")


@given(st.lists(pairs, min_size=1, max_size=50))
def test_every_range_is_in_one_group_and_no_group_is_too_large(ranges: list[tuple[int, int]]) -> None:
    groups = together(ranges)
    assert sorted(one for group in groups for one in group) == sorted(set(ranges))
    for group in groups:
        assert len(group) == 1 or max(stop for _, stop in group) - group[0][0] <= MOST_REQUEST_BYTES


def test_neighbours_are_fetched_together() -> None:
    assert together([(0, 10), (10 + GAP_BYTES, 200_000), (10, 20)]) == [[(0, 10), (10, 20), (10 + GAP_BYTES, 200_000)]]
    assert len(together([(0, 10), (20 + GAP_BYTES, 200_000)])) == 2
