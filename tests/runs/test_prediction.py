"""The plan of a prediction run: the next steps, from the results that exist."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs import plan
from hepfaas.runs.ledger import CountedPart, prediction_ledger
from hepfaas.runs.opened import joined
from hepfaas.runs.phases import Finished, Input, Ready
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.steps import Open, Predict, step_from_json

RECIPE = Prediction("m-scores", "m/1", "graph", "spec", ("a.root", "b.root"), "Events", ("met", "pt"), ("event",))
HINTS = {"name", "model", "urls"}
"""Fields on which scores do not depend."""


def opened(identity: str, *ranges: tuple[int, int]) -> dict[str, Any]:
    return {
        "identity": identity,
        "fingerprint": identity,
        "entries": ranges[-1][1] if ranges else 0,
        "ranges": ranges,
        "features": [],
        "identifiers": ["event"],
        "left_out": [],
    }


def coming(recipe: Prediction, files: list[dict[str, Any]], there: Mapping[str, Any] | None = None) -> Ready | Finished:
    """Return what comes next once these files are open."""
    ready = plan.next_steps(recipe, "m-1/1", lambda key: None)
    assert isinstance(ready, Ready)
    results = {ready.levels[-1][0].key: joined(files), **(there or {})}
    return plan.next_steps(recipe, "m-1/1", results.get)


def predicts(recipe: Prediction, *files: dict[str, Any]) -> list[Predict]:
    ready = coming(recipe, list(files))
    assert isinstance(ready, Ready)
    return [step for step in ready.levels[0] if isinstance(step, Predict)]


FILES = (opened("A", (0, 5), (5, 9)), opened("B", (0, 4)))


def test_files_are_opened_first_and_then_scored_range_by_range() -> None:
    ready = plan.next_steps(RECIPE, "m-1/1", lambda key: None)
    assert isinstance(ready, Ready)
    assert [step.url for step in ready.levels[0] if isinstance(step, Open)] == ["a.root", "b.root"]
    steps = predicts(RECIPE, *FILES)
    assert [(step.file, step.entries, step.url) for step in steps] == [
        ("A", (0, 5), "a.root"),
        ("A", (5, 9), "a.root"),
        ("B", (0, 4), "b.root"),
    ]
    assert [step_from_json(step.to_json()) for step in steps] == steps


def test_a_prediction_is_finished_when_the_sum_of_all_parts_exists() -> None:
    ready = coming(RECIPE, list(FILES))
    assert isinstance(ready, Ready)
    parts = {"parts": [{"rows": 13}]}
    assert coming(RECIPE, list(FILES), {ready.levels[-1][0].key: parts}) == Finished(scores=parts)


def test_entries_apply_to_each_file_and_an_empty_range_has_no_step() -> None:
    steps = predicts(replace(RECIPE, entries=(2, 6)), *FILES)
    assert [(step.file, step.entries) for step in steps] == [("A", (2, 5)), ("A", (5, 6)), ("B", (2, 4))]
    assert coming(replace(RECIPE, entries=(20, 30)), list(FILES)) == Finished(scores={"parts": []})
    assert coming(RECIPE, [opened("A"), opened("B")]) == Finished(scores={"parts": []})


def test_a_file_is_scored_once() -> None:
    with pytest.raises(RequestError, match=r"'b.root' and 'a.root' are the same file"):
        coming(RECIPE, [FILES[0], FILES[0]])


IN_OPENING = ("identifiers", "range_events", "spectators", "fold_by", "dtype", "record_function")
"""Values that change the open steps."""


def test_every_value_that_scores_depend_on_is_in_the_steps() -> None:
    other: dict[str, Any] = {
        "graph": "x",
        "spec": "x",
        "tree": "x",
        "features": ("met",),
        "identifiers": (),
        "spectators": ("met",),
        "preprocessing": "x",
        "fold_by": "event",
        "entries": (0, 3),
        "range_events": 7,
        "name": "x",
        "model": "m/2",
        "urls": ("c.root", "d.root"),
        "trees": ("x", ""),
        "dtype": "csv",
        "record_function": "def preprocessing(record): return record",
    }
    assert set(other) == {field.name for field in fields(Prediction)}
    before = {step.key for step in predicts(RECIPE, *FILES)}
    openings = plan.next_steps(RECIPE, "m-1/1", lambda key: None)
    for name, value in other.items():
        changed = replace(RECIPE, **{name: value})
        same = {step.key for step in predicts(changed, *FILES)} == before
        if name in (
            "identifiers",
            "range_events",
            "spectators",
            "fold_by",
            "trees",
            "dtype",
            "record_function",
        ):  # these change the open step
            assert plan.next_steps(changed, "m-1/1", lambda key: None) != openings
        elif name != "preprocessing":  # the hash of the spec names it, and the open step needs it for spectators
            assert same == (name in HINTS), name


def test_the_fold_of_an_event_is_computed_in_files_that_have_its_branches() -> None:
    recipe = replace(RECIPE, spectators=("mass",), fold_by="event")
    files = [{**opened("A", (0, 5)), "spectators": ["mass", "event"]}, {**opened("B", (0, 4)), "spectators": ["mass"]}]
    assert [(step.spectators, step.fold_by) for step in predicts(recipe, *files)] == [
        (("mass",), "event"),
        (("mass",), ""),
    ]


def test_each_file_is_read_at_the_tree_that_its_header_names() -> None:
    recipe = replace(RECIPE, trees=("Signal", ""))
    ready = plan.next_steps(recipe, "m-1/1", lambda key: None)
    assert isinstance(ready, Ready)
    opens = [step for step in ready.levels[0] if isinstance(step, Open)]
    assert [(step.tree, step.usual_tree) for step in opens] == [("Signal", "Events"), ("", "Events")]
    files = [{**opened("A:Signal", (0, 5)), "tree": "Signal"}, {**opened("B:Only", (0, 4)), "tree": "Only"}]
    steps = predicts(recipe, *files)
    assert [(step.file, step.tree) for step in steps] == [("A:Signal", "Signal"), ("B:Only", "Only")]
    with pytest.raises(RequestError, match=r"'b.root' and 'a.root:Signal' are the same file"):
        coming(recipe, [files[0], files[0]])


def test_the_plan_names_the_step_that_makes_a_lost_part() -> None:
    step = predicts(RECIPE, *FILES)[1]
    ready = plan.next_steps(RECIPE, "m-1/1", lambda key: None)
    assert isinstance(ready, Ready)
    results = {ready.levels[-1][0].key: joined(list(FILES))}
    assert plan.maker(RECIPE, "m-1/1", results.get, step.key) == step
    assert plan.maker(RECIPE, "m-1/1", results.get, "steps/predict/none") is None
    assert plan.maker(RECIPE, "m-1/1", lambda key: None, step.key) is None


def test_the_ledger_finds_missing_doubled_and_cut_parts() -> None:
    file = Input("a.root", 0, "A", ((2, 5), (5, 9)), "Events")

    def findings(*parts: tuple[int, int, int]) -> tuple[str, ...]:
        counted = [CountedPart("A", (start, stop), (rows,)) for start, stop, rows in parts]
        return prediction_ledger([file], counted).findings

    assert findings((2, 5, 3), (5, 9, 4)) == ()
    assert "3 of its 7 events are scored" in findings((2, 5, 3))[0]
    assert "missing" in findings((2, 4, 2), (5, 9, 4))[0]
    assert "counted twice" in findings((2, 6, 4), (5, 9, 4))[0]
    assert "has 3 events" in findings((2, 5, 3), (5, 9, 3))[0]
