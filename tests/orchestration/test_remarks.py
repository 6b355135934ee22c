"""Tags and notes of runs: they behave as a set and a list, and nothing is overwritten."""

from pathlib import Path

import pytest
from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.orchestration import records, remarks
from hepfaas.orchestration.remarks import MOST_CHANGES, MOST_CHARACTERS, MOST_NOTES, MOST_TAGS, Note
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.reports import RECIPE

TAGS = st.sampled_from(["a", "b", "c", "v1.2"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), TAGS), max_size=12))
def test_the_tags_of_a_run_are_a_set(store: Store, changes: list[tuple[bool, str]]) -> None:
    run = "m-1"
    expected: set[str] = set()
    for key in list(store.keys(f"runs/{run}/")):
        store.delete(key)
    for adds, tag in changes:
        if adds:
            expected.add(tag)
            assert set(remarks.tag(store, run, [tag])) == expected
        elif tag in expected:
            expected.remove(tag)
            assert set(remarks.untag(store, run, [tag])) == expected
        else:
            with pytest.raises(RequestError, match=f"run '{run}' has no tag '{tag}'"):
                remarks.untag(store, run, [tag])
    assert list(remarks.tags_of(store, run)) == sorted(expected)


def test_two_processes_that_give_the_same_tag_give_it_once(store: Store) -> None:
    known = remarks.remarks_of(store, "m-1")
    remarks.tag(store, "m-1", ["good"])
    remarks._change(store, "m-1", ["good"], known)  # it has listed the tags before the other one has written
    assert remarks.tags_of(store, "m-1") == ("good",)


@pytest.mark.parametrize("tag", ["", " ", "a b", "-a", "../x", "a/b", "x" * 51, "é", "a\n", "<b>"])
def test_a_tag_has_letters_digits_and_few_marks(store: Store, tag: str) -> None:
    with pytest.raises(RequestError, match="cannot be a tag: use up to 50 letters"):
        remarks.tag(store, "m-1", ["good", tag])
    assert list(store.keys("runs/")) == []


def test_a_run_has_a_limited_number_of_tags_and_of_their_changes(store: Store) -> None:
    with pytest.raises(ForbiddenError, match="more than 20 tags"):
        remarks.tag(store, "m-1", [f"t{number}" for number in range(MOST_TAGS + 1)])
    for _ in range(MOST_CHANGES // 2):
        remarks.tag(store, "m-1", ["t"])
        remarks.untag(store, "m-1", ["t"])
    with pytest.raises(ForbiddenError, match="were changed 200 times"):
        remarks.tag(store, "m-1", ["t"])


def test_notes_are_kept_in_the_order_of_their_times_and_a_repeated_one_once(store: Store) -> None:
    remarks.note(store, "m-1", Note(20.0, "second\nline", "Ada"))
    remarks.note(store, "m-1", Note(10.0, " first ", "Ada"))
    assert remarks.note(store, "m-1", Note(30.0, "first", "Ada")) == Note(10.0, "first", "Ada")
    remarks.note(store, "m-1", Note(40.0, "first", "Emmy"))
    expected = [Note(10.0, "first", "Ada"), Note(20.0, "second\nline", "Ada"), Note(40.0, "first", "Emmy")]
    assert remarks.notes_of(store, "m-1") == expected


@pytest.mark.parametrize("text", ["", " \n", "x" * (MOST_CHARACTERS + 1)])
def test_a_note_is_neither_empty_nor_long(store: Store, text: str) -> None:
    with pytest.raises(RequestError, match="it takes 1 to 4,000"):
        remarks.note(store, "m-1", Note(1.0, text))


def test_a_run_has_a_limited_number_of_notes(store: Store) -> None:
    for number in range(MOST_NOTES):
        remarks.note(store, "m-1", Note(float(number), f"note {number}"))
    with pytest.raises(ForbiddenError, match="has 200 notes, which is the limit"):
        remarks.note(store, "m-1", Note(1.0, "one more"))


def test_a_deleted_run_keeps_neither_tags_nor_notes(store: Store) -> None:
    run = records.create(store, records.Request(RECIPE, 1.0))
    remarks.tag(store, run, ["good"])
    remarks.note(store, run, Note(1.0, "a note"))
    records.remove(store, run)
    assert list(store.keys(f"runs/{run}/")) == []
