"""A request that is sent again makes no second run, whoever is killed when."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.platform import records
from hepfaas.platform.storage import open_store
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.service.submitting import Submitting, trace_of
from mortal import Killed, Mortal, Taken

RECIPE = Recipe("job", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
REQUEST = records.Request(RECIPE, 1000.0)
WRITES = 5


def submitting(store: object, root: Path, sender: Taken) -> Submitting:
    return Submitting(open_store(str(root)), store, sender, "me")  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", range(1, WRITES + 1))
def test_a_kill_at_any_write_leaves_one_run_and_no_other(tmp_path: Path, nth: int, after: bool) -> None:
    store, sender = open_store(f"{tmp_path}/me"), Taken()
    with pytest.raises(Killed):
        submitting(Mortal(store, nth, after), tmp_path, sender).submit(REQUEST, "key")
    assert submitting(store, tmp_path, sender).submit(replace(REQUEST, created=2000.0), "key") == "job-1"
    assert records.runs(store) == ["job-1"]
    assert list(open_store(str(tmp_path)).keys("active/")) == ["active/me/job-1"]
    assert {event.data["run"] for event in sender.events} == {"job-1"}


def test_a_name_that_another_took_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    store, sender = open_store(f"{tmp_path}/me"), Taken()
    with pytest.raises(Killed):  # the name 'job-1' is claimed, and nothing made of it
        submitting(Mortal(store, 2, True), tmp_path, sender).submit(REQUEST, "key")
    assert submitting(store, tmp_path, sender).submit(REQUEST) == "job-1"
    assert submitting(store, tmp_path, sender).submit(REQUEST, "key") == "job-2"
    assert submitting(store, tmp_path, sender).submit(REQUEST, "key") == "job-2"


def test_many_at_once_make_one_run_for_each_key(tmp_path: Path) -> None:
    store, sender = open_store(f"{tmp_path}/me"), Taken()
    keys = [f"key{number % 4}" for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda key: submitting(store, tmp_path, sender).submit(REQUEST, key), keys))
    assert len(set(runs)) == 4
    assert len(set(zip(keys, runs, strict=True))) == 4
    assert records.runs(store) == sorted(set(runs))


def test_the_key_of_another_recipe_is_refused(tmp_path: Path) -> None:
    store, sender = open_store(f"{tmp_path}/me"), Taken()
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
def test_what_is_no_trace_context_is_replaced_by_a_new_one(sent: str) -> None:
    made = trace_of(sent)
    assert made != sent
    assert trace_of(made) == made
