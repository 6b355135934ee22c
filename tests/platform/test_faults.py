"""Planned faults happen where and when they are planned, once over all processes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hepfaas.errors import UnavailableError
from hepfaas.platform.faults import FaultyStore, Plan
from hepfaas.platform.folder import FolderStore

SITE = f"{__name__}.asks:size_bytes"


def asks(folder: Path) -> bool:
    """Whether a store of its own, on the same plan, answers."""
    try:
        FaultyStore(FolderStore(folder / "store"), Plan(folder)).size_bytes("a")
    except UnavailableError:
        return False
    return True


@pytest.mark.parametrize("nth", [1, 3])
def test_a_fault_happens_once_to_the_nth_call_of_all_that_are_made(tmp_path: Path, nth: int) -> None:
    (tmp_path / "met").mkdir()
    (tmp_path / "plan.json").write_text(json.dumps([{"id": "f", "site": SITE, "kind": "answer lost", "nth": nth}]))
    assert [asks(tmp_path) for _ in range(nth)] == [True] * (nth - 1) + [False]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(asks, [tmp_path] * 40))
    assert (tmp_path / "hits").read_text().count(f"{SITE}\n") == nth + 40


def test_a_listing_whose_answer_is_lost_gives_no_key(tmp_path: Path) -> None:
    (tmp_path / "met").mkdir()
    site = f"{__name__}.{test_a_listing_whose_answer_is_lost_gives_no_key.__name__}:keys"
    (tmp_path / "plan.json").write_text(json.dumps([{"id": "f", "site": site, "kind": "answer lost"}]))
    store = FaultyStore(FolderStore(tmp_path / "store"), Plan(tmp_path))
    store.create("a", b"")
    with pytest.raises(UnavailableError, match="got no answer"):
        store.keys("")
    assert list(store.keys("")) == ["a"]


def test_the_store_of_an_owner_meets_the_plan_of_the_store_above(tmp_path: Path) -> None:
    (tmp_path / "met").mkdir()
    site = f"{__name__}.{test_the_store_of_an_owner_meets_the_plan_of_the_store_above.__name__}:used_bytes"
    (tmp_path / "plan.json").write_text(json.dumps([{"id": "f", "site": site, "kind": "answer lost"}]))
    root = FaultyStore(FolderStore(tmp_path / "store"), Plan(tmp_path))
    root.create("me/a", bytes(2_000))
    with pytest.raises(UnavailableError, match="got no answer"):
        root.below("me").used_bytes()
    assert root.below("me").used_bytes() == 2_000
