"""A repeated request makes no second run, wherever a process was killed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.orchestration import records
from hepfaas.orchestration.submitting import Submitting, trace_of
from hepfaas.platform.storage import Data, StagedStore
from hepfaas.platform.stores import open_store
from hepfaas.runs.recipe import LabelledFile, Recipe
from support.crashing import Crash, CrashingStore, RecordingSender

RECIPE = Recipe("job", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
REQUEST = records.Request(RECIPE, 1000.0)
WRITES = 5


def submitting(store: object, root: Path, sender: RecordingSender) -> Submitting:
    return Submitting(open_store(str(root)), store, sender, "me")  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", range(1, WRITES + 1))
def test_a_kill_at_any_write_leaves_one_run_and_no_other(tmp_path: Path, nth: int, after: bool) -> None:
    store, sender = open_store(f"{tmp_path}/me"), RecordingSender()
    with pytest.raises(Crash):
        submitting(CrashingStore(store, nth, after), tmp_path, sender).submit(REQUEST, "key")
    assert submitting(store, tmp_path, sender).submit(replace(REQUEST, created=2000.0), "key") == "job-1"
    assert records.runs(store) == ["job-1"]
    assert list(open_store(str(tmp_path)).keys("active/")) == ["active/me/job-1"]
    assert {event.data["run"] for event in sender.events} == {"job-1"}


def test_a_name_taken_by_another_request_is_skipped(tmp_path: Path) -> None:
    store, sender = open_store(f"{tmp_path}/me"), RecordingSender()
    with pytest.raises(Crash):  # the name 'job-1' is claimed, and nothing made of it
        submitting(CrashingStore(store, 2, True), tmp_path, sender).submit(REQUEST, "key")
    assert submitting(store, tmp_path, sender).submit(REQUEST) == "job-1"
    assert submitting(store, tmp_path, sender).submit(REQUEST, "key") == "job-2"
    assert submitting(store, tmp_path, sender).submit(REQUEST, "key") == "job-2"


def test_concurrent_submissions_make_one_run_for_each_key(tmp_path: Path) -> None:
    store, sender = open_store(f"{tmp_path}/me"), RecordingSender()
    keys = [f"key{number % 4}" for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda key: submitting(store, tmp_path, sender).submit(REQUEST, key), keys))
    assert len(set(runs)) == 4
    assert len(set(zip(keys, runs, strict=True))) == 4
    assert records.runs(store) == sorted(set(runs))


class Counting(StagedStore):
    """A store in memory that counts its calls and the keys that it lists."""

    def __init__(self, folder: Path) -> None:
        super().__init__(open_store(str(folder)))
        self.asked = self.listed = 0

    def size_bytes(self, key: str) -> int | None:
        self.asked += 1
        return super().size_bytes(key)

    def create(self, key: str, data: Data) -> bool:
        self.asked += 1
        return super().size_bytes(key) is None and super().create(key, data)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        self.asked += 1
        for key in sorted(key for key in self._kept if key.startswith(prefix) and key > after):
            self.listed += 1
            yield key


def test_a_submission_is_cheap_after_a_thousand_runs(tmp_path: Path) -> None:
    store = Counting(tmp_path)
    for number in range(1, 1001):
        assert records.create(store, REQUEST) == f"job-{number}"
        records.log(store, f"job-{number}", records.Entry(1.0, "open", "steps/open/x", 1.0))
    store.asked = 0
    assert records.create(store, REQUEST) == "job-1001"
    assert store.listed == 0
    assert store.asked < 50


def test_the_number_of_a_deleted_run_is_never_reused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    runs = [records.create(store, REQUEST) for _ in range(5)]
    for run in runs[1:]:
        store.create(f"runs/{run}/deleted.json", b"{}")
        records.remove(store, run)
    assert records.create(store, REQUEST) == "job-6"
    assert records.runs(store) == ["job-1", "job-6"]


def test_an_unfinished_local_run_goes_on_under_its_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first, other = records.start(store, REQUEST), replace(REQUEST, created=2000.0, recipe=replace(RECIPE, epochs=3))
    assert (first, records.start(store, other), records.start(store, REQUEST)) == ("job-1", "job-2", "job-1")
    records.end(store, first, 1, records.End("completed", 3000.0))
    assert records.start(store, REQUEST) == "job-3"


def test_a_run_whose_creator_was_killed_before_listing_it_goes_on(tmp_path: Path) -> None:
    store = CrashingStore(open_store(str(tmp_path)), 2, False)
    with pytest.raises(Crash):
        records.start(store, REQUEST)  # type: ignore[arg-type]
    assert records.runs(open_store(str(tmp_path))) == []
    assert records.start(open_store(str(tmp_path)), REQUEST) == "job-1"
    assert records.runs(open_store(str(tmp_path))) == ["job-1"]


def test_the_key_of_another_recipe_is_refused(tmp_path: Path) -> None:
    store, sender = open_store(f"{tmp_path}/me"), RecordingSender()
    submitting(store, tmp_path, sender).submit(REQUEST, "key")
    other = replace(REQUEST, recipe=replace(RECIPE, epochs=3))
    with pytest.raises(RequestError, match="was used for another submission"):
        submitting(store, tmp_path, sender).submit(other, "key")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "00-1",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y",
    ],
)
def test_an_invalid_trace_context_is_replaced_by_a_new_one(sent: str) -> None:
    made = trace_of(sent)
    assert made != sent
    assert trace_of(made) == made
