"""Files of ranges of MLaaS4HEP: both forms are read, and errors name the key."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.old_specs import MOST_WIDTH, OldRange, OldSpecs, check_events, is_old_specs, old_specs_of
from hypothesis import given, settings
from hypothesis import strategies as st

ONE_FILE = {
    "jdim": {"lep_pt": 2},
    "minv": {"met": -3.5, "lep_pt": 0.5, "event": 0, "stamp": 2**60 + 1},
    "maxv": {"met": 4.25, "lep_pt": 200.0, "event": 99, "stamp": 2**60 + 3},
    "fkeys": ["event", "met", "stamp"],
    "jkeys": ["lep_pt"],
    "nans": {"met": 0.45},
}
RANGES = (
    OldRange("event", False, 0.0, 99.0, 1),
    OldRange("met", False, -3.5, 4.25, 1),
    OldRange("stamp", False, 2**60 + 1, 2**60 + 3, 1),
    OldRange("lep_pt", True, 0.5, 200.0, 2),
)


def changed(**changes: Any) -> dict[str, Any]:
    return {**ONE_FILE, **changes}


def with_met(key: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(ONE_FILE))
    values[key]["met"] = value
    return values


def test_both_forms_have_ranges_and_widths_and_one_has_events() -> None:
    assert old_specs_of(ONE_FILE, "specs-a.json") == (OldSpecs("specs-a.json", RANGES), ())
    events = {"a.root": 300, "b.root": 200, "total": 500}
    specs, notes = old_specs_of(changed(events=events), "global-specs.json")
    assert (specs.branches, specs.events, notes) == (RANGES, (("a.root", 300), ("b.root", 200)), ())
    assert OldSpecs.from_text(specs.text) == specs
    assert OldSpecs.from_text(OldSpecs().text) == OldSpecs()


@pytest.mark.parametrize(("low", "high", "noted"), [(1e15, -1e15, False), (-1e15, 1e15, True)])
def test_a_branch_without_a_value_has_no_range(low: float, high: float, noted: bool) -> None:
    """The second pair made all features of the branch the same (reader.py of the uproot 4 branch)."""
    specs, notes = old_specs_of(changed(minv={"met": low}, maxv={"met": high}), "s.json")
    assert {branch.name: (branch.low, branch.high) for branch in specs.branches} == dict.fromkeys(
        ("event", "met", "stamp", "lep_pt"), (None, None)
    )
    assert notes == (("s.json has no range of 'met': that of the files is used",) if noted else ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "s.json has no 'minv'; a file of ranges of MLaaS4HEP has jdim, minv, maxv, fkeys, jkeys"),
        (changed(jdims={}), "s.json has the unknown key 'jdims'; closest: jdim"),
        (changed(fkeys="met"), "s.json: 'fkeys' is \"met\" .*; it takes a list of branch names"),
        (changed(minv=[1]), "s.json: 'minv' is .1. .*; it takes an object from branch to number"),
        (with_met("minv", "low"), "s.json: 'minv': 'met' is \"low\" .*; it takes a number"),
        (with_met("maxv", float("nan")), "s.json: 'maxv': 'met' is NaN .*; it takes a number"),
        (with_met("maxv", -4), "s.json: the range of 'met' is -3.5 to -4; 'minv' is above"),
        (changed(jdim={}), "s.json: 'jdim' has no 'lep_pt', which is in 'jkeys'"),
        (changed(jdim={"lep_pt": MOST_WIDTH + 1}), f"'jdim': 'lep_pt' is .* from 0 to {MOST_WIDTH:,}"),
        (
            changed(jkeys=["lep_pt", "jet"], jdim={"lep_pt": 60_000, "jet": 60_000}),
            "'jdim' gives 120,003 features together; at most 100,000",
        ),
        (changed(jdim={"lep_pt": 1.5}), "'jdim': 'lep_pt' is 1.5 .*; it takes a whole number"),
        (changed(jkeys=["met"], jdim={"met": 1}), "s.json has branch 'met' twice in 'fkeys' and 'jkeys'"),
        (changed(events={"a": 1, "total": 2}), "s.json: 'events' has a total of 2, and its files have 1"),
        (changed(events={"a": -1}), "s.json: 'events': 'a' is -1 .*; it takes a whole number from 0"),
    ],
)
def test_a_file_that_is_no_file_of_ranges_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        old_specs_of(json.loads(json.dumps(values)), "s.json")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
names = st.sampled_from(["met", "pt", "total", ""])
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=4), inner, max_size=3)
)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from([*ONE_FILE, "events"]), anything | st.dictionaries(names, anything)))
def test_any_object_is_read_or_refused(values: dict[str, Any]) -> None:
    with suppress(RequestError):
        specs, _ = old_specs_of({"fkeys": ["met"], "jkeys": [], "minv": {}, "maxv": {}} | values, "s.json")
        assert OldSpecs.from_text(specs.text) == specs


def test_files_are_known_by_address_or_by_the_end_of_it() -> None:
    specs = OldSpecs("s.json", (), (("/data/a.root", 1), ("root://h//x/b.root", 2)))
    check_events(specs, {"root://other//store/a.root": 1, "root://h//x/b.root": 2}, selects=False)
    same_ends = OldSpecs("s.json", (), (("/one/a.root", 1), ("/two/a.root", 2)))
    check_events(same_ends, {"/two/a.root": 2, "/one/a.root": 1}, selects=False)
    with pytest.raises(RequestError, match="'/three/a.root' is not among them"):
        check_events(same_ends, {"/two/a.root": 2, "/three/a.root": 1}, selects=False)


def test_names_of_the_files_are_known() -> None:
    assert is_old_specs("global-specs.json")
    assert is_old_specs("specs-a.json")
    assert not any(map(is_old_specs, ("spec.json", "specs.txt", "data/specs-a.json", "data/global-specs.json")))
