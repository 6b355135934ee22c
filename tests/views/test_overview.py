"""Status and lists of runs, as JSON values, from a store alone."""

import time
from dataclasses import replace
from pathlib import Path

from hepfaas.orchestration import records, remarks
from hepfaas.orchestration.records import End, Entry, Sent
from hepfaas.orchestration.remarks import Note
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan, preparation
from hepfaas.runs.opened import joined
from hepfaas.runs.phases import Ready
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.steps.objects import encoded, result_if_there
from hepfaas.views import overview

RECIPE = Recipe("job", (LabelledFile("root://h//a", 0), LabelledFile("root://h//b", 1)), "blobs/x", epochs=3)
ROW = {"run": "job-1", "kind": "training", "files": 2, "created": "1970-01-01T00:16:40Z"}
SUBMITTER = {"issuer": "https://iam", "name": "Ada", "groups": ["/cms"]}


def test_a_run_in_its_first_phase_shows_what_is_known_of_it_and_no_more(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    request = records.Request(RECIPE, 1000.0, ("a note",), submitter=SUBMITTER)
    run = records.create(store, request)
    unfinished = {**ROW, "state": "unfinished", "epochs": 3, "model": "", "tags": []}
    assert [row.to_json() for row in overview.runs(store)] == [{**unfinished, "differs": "", "note": ""}]
    assert overview.status(store, run).to_json() == {
        **unfinished,
        "epochs": [],
        "attempt": 1,
        "places": {"h": 2},
        "submitter": {"issuer": "https://iam", "name": "Ada"},
        "notes": ["a note"],
        "phase": "open",
        "steps_done": 0,
        "steps_of_phase": 2,
    }


def test_a_list_shows_tags_notes_and_what_differs_between_the_runs_of_one_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for recipe in (RECIPE, replace(RECIPE, epochs=7), replace(RECIPE, name="other")):
        records.create(store, records.Request(recipe, 1000.0))
    remarks.tag(store, "job-2", ["best", "a"])
    remarks.note(store, "job-2", Note(1.0, "old"))
    remarks.note(store, "job-2", Note(2.0, "new", "Ada"))
    rows = {each.row.run: each.to_json() for each in overview.runs(store)}
    assert {run: (row["tags"], row["differs"], row["note"]) for run, row in rows.items()} == {
        "job-1": ([], "epochs=3", ""),
        "job-2": (["a", "best"], "epochs=7", "new"),
        "other-1": ([], "", ""),
    }
    assert [each.row.run for each in overview.runs(store, "best")] == ["job-2"]
    status = overview.status(store, "job-2").to_json()
    assert status["tags"] == ["a", "best"]
    assert [(note["text"], note.get("by")) for note in status["user_notes"]] == [("old", None), ("new", "Ada")]


def test_the_progress_of_a_phase_over_entry_ranges_counts_events_and_files(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = records.create(store, records.Request(RECIPE, 1000.0))
    common = {"entries": 200, "ranges": [[0, 100], [100, 200]], "features": [["met", False]], "identifiers": []}
    headers = [{"identity": url, "fingerprint": url, "left_out": [], **common} for url in RECIPE.urls]
    store.create(preparation.open_levels(RECIPE, f"{run}/1")[-1][0].key, encoded(joined(headers)))
    coming = plan.next_steps(RECIPE, f"{run}/1", lambda key: result_if_there(key, store))
    assert isinstance(coming, Ready)
    for step in coming.levels[0][:3]:
        store.create(step.key, b"{}")
    records.trouble(store, run, 1, coming.levels[0][3].key, 1001.0, "a door is away")
    records.fail(store, run, 1, coming.levels[0][3].key, "no such branch")
    status = overview.status(store, run).to_json()
    assert (status["phase"], status["steps_done"], status["steps_of_phase"]) == ("survey", 3, 4)
    assert (status["events_done"], status["events_of_phase"]) == (300, 400)
    assert (status["files_done"], status["files_of_phase"]) == (1, 2)
    assert (status["retries"], status["last_trouble"]) == (1, "a door is away")
    assert status["failed_steps"] == [{"step": coming.levels[0][3].key, "error": "no such branch"}]
    assert not {"eta_s", "events_per_s", "served_by", "ledger", "error", "gate", "scores"} & set(status)


def test_the_pace_of_the_last_minute_gives_the_time_that_is_left(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = records.create(store, records.Request(RECIPE, 1000.0))
    records.log(store, run, Entry(time.time() - 1, "open", "steps/open/1", 1.0))
    stage = overview.status(store, run).stage
    assert isinstance(stage, overview.Progress)
    assert stage.eta_s is not None
    assert 2 <= stage.eta_s < 60
    assert stage.events_per_s is None


def test_a_run_that_has_failed_shows_why(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = records.create(store, records.Request(RECIPE, 1000.0))
    records.mark_sent(store, run, 1, "open-x", Sent(0, 1, 1), 1000.0)
    records.end(store, run, 1, End("failed", 1001.0, "no such file"))
    status = overview.status(store, run)
    assert (status.state, status.to_json()["error"]) == ("failed", "no such file")
