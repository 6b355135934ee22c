"""A request that is sent again makes no second run, whoever is killed when."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.platform import records
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store, open_store
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.service.submitting import Submitting

RECIPE = Recipe("job", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x")
REQUEST = records.Request(RECIPE, 1000.0)
WRITES = 5


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """A folder store whose user is killed at the n-th create, before or after it."""

    def __init__(self, store: Store, nth: int, after: bool) -> None:
        self._store, self._left, self._after, self.url = store, nth, after, store.url

    def create(self, key: str, data: bytes) -> bool:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        created = self._store.create(key, data)
        if self._left == 0:
            raise Killed
        return created

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Taken:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []

    def send(self, event: CloudEvent) -> None:
        self.events.append(event)


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
