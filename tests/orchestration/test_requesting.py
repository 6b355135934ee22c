"""Runs that one function requests and another begins."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.orchestration import events, records
from hepfaas.orchestration.advancing import Advancing
from hepfaas.orchestration.events import RUN_REQUESTED, RUN_SUBMITTED
from hepfaas.orchestration.records import End, Request
from hepfaas.orchestration.requesting import Asking
from hepfaas.orchestration.submitting import Submitting
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.prediction import Prediction
from hepfaas.serving.run_requests import MOST_HEADERS, FileEntries, look
from hepfaas.views import overview
from support.crashing import Crash, CrashingStore, RecordingSender
from support.jobs import write_root

RECIPE = Prediction("m-scores", "m/1", "graph", "spec", ("root://h//a.root",), "Events", ("met",), ())
WISH = Request(RECIPE, 1000.0, trace="00-1-2-01")


class Place:
    """A store above all owners, the requests of owner 'me' in it, and the events sent."""

    def __init__(self, folder: Path) -> None:
        self.root, self.store, self.taken = open_store(str(folder)), open_store(f"{folder}/me"), RecordingSender()
        self.asking = Asking(self.root, self.taken, "me", "predict")

    def there(self) -> list[str]:
        return sorted(self.root.keys(""))

    def handle(self, event: CloudEvent) -> None:
        """Handle an event as `advance` does."""

        def store_of(owner: str) -> Store:
            return open_store(f"{self.root.url}/{owner}")

        Advancing(self.root, store_of, self.taken, max_scale=4, deadline_s=300).handle(event)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_requesting_function_writes_only_its_request(place: Place) -> None:
    run = place.asking.ask(WISH)
    assert place.there() == [f"asked/me/{run}", f"me/asked/{run}"]
    (event,) = place.taken.events
    assert (event.type, event.source, event.trace) == (RUN_REQUESTED, "/hepfaas/predict", WISH.trace)
    assert event.data == {"owner": "me", "run": run, "attempt": 1}
    pending = overview.pending(place.store, run)
    assert pending
    assert (pending.run, pending.state) == (run, "pending")


def test_doubled_and_late_events_make_one_run(place: Place) -> None:
    run = place.asking.ask(WISH)
    (event,) = place.taken.events
    for _ in range(3):
        place.handle(event)
    assert records.runs(place.store) == [run]
    made = records.request_of(place.store, run)
    assert (made.recipe, made.trace) == (RECIPE, WISH.trace)
    assert {sent.type for sent in place.taken.events[1:]} == {RUN_SUBMITTED}
    assert [key for key in place.there() if key.startswith(("asked/", "active/"))] == [f"active/me/{run}"]
    records.end(place.store, run, 1, End("completed", 2000.0, scores=0))
    place.root.delete(f"active/me/{run}")
    place.handle(event)
    assert not any(key.startswith("active/") for key in place.there())


def test_a_late_event_does_not_bring_a_deleted_run_back(place: Place) -> None:
    run = place.asking.ask(WISH)
    event = place.taken.events[0]
    place.handle(event)
    Submitting(place.root, place.store, place.taken, "me").delete(run)
    ping = CloudEvent(events.PING, "/up", "ping", "1", {})
    place.handle(ping)  # it is marked; its records go once they are old enough
    records.remove(place.store, run)
    place.handle(event)
    assert not records.is_there(place.store, run)
    assert overview.pending(place.store, run) is None


def test_the_ping_begins_a_requested_run_whose_event_was_lost(place: Place) -> None:
    class Away:
        def send(self, event: CloudEvent) -> None:
            raise UnavailableError("the broker does not answer")

    with pytest.raises(UnavailableError):
        replace(place.asking, sender=Away()).ask(WISH, "key")
    place.handle(CloudEvent(events.PING, "/up", "ping", "1", {}))
    (run,) = records.runs(place.store)
    assert place.asking.ask(WISH, "key") == run


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_request_repeated_after_a_kill_gives_one_run(place: Place, nth: int, after: bool) -> None:
    crashing = replace(place.asking, root=CrashingStore(place.root, nth, after))  # type: ignore[arg-type]
    with pytest.raises(Crash):
        crashing.ask(WISH, "key")
    run = place.asking.ask(WISH, "key")
    place.handle(place.taken.events[-1])
    assert records.runs(place.store) == [run]
    assert len(list(place.root.keys("me/asked/"))) == 1


def test_a_key_is_for_one_request_and_other_requests_have_other_names(place: Place) -> None:
    run = place.asking.ask(WISH, "key")
    assert place.asking.ask(replace(WISH, created=2000.0), "key") == run
    with pytest.raises(RequestError, match="Idempotency-Key 'key' was used for another request"):
        place.asking.ask(replace(WISH, recipe=replace(RECIPE, tree="Other")), "key")
    assert len({run, place.asking.ask(WISH, "other"), place.asking.ask(WISH), place.asking.ask(WISH)}) == 4


def test_a_run_without_a_request_is_refused(place: Place) -> None:
    name = {"owner": "me", "run": "m-scores-1", "attempt": 1}
    with pytest.raises(RequestError, match="no run 'm-scores-1' was requested"):
        place.handle(CloudEvent(RUN_REQUESTED, "/x", "s", "1", name))


SERVED: Any = SimpleNamespace(published=SimpleNamespace(tree="Events", spec=SimpleNamespace(record_function="")))


def test_headers_are_read_until_it_is_clear_whether_files_are_long(tmp_path: Path) -> None:
    files = []
    for number in range(MOST_HEADERS + 1):
        files.append(str(tmp_path / f"{number}.root"))
        write_root(Path(files[-1]), number, 0.0, 10)
    assert look(SERVED, FileEntries(files[:3], [""] * 3), 30)[1] is False
    headers, is_long = look(SERVED, FileEntries(files[:3], [""] * 3), 19)
    assert (len(headers), is_long) == (2, True)
    assert look(SERVED, FileEntries(files[:3], [""] * 3, (8, 100)), 6)[1] is False
    assert look(SERVED, FileEntries(files[:3], [""] * 3, (8, 100)), 5)[1] is True
    assert look(SERVED, FileEntries(["root://nowhere//x.root"], [""], (0, 10)), 10) == ([], False)
    assert look(SERVED, FileEntries(files, [""] * len(files)), 1_000_000)[1] is True
