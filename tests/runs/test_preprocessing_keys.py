"""Keys of params.json for selection: their values, their limits, and how they join those of a preproc.json."""

from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.preprocessing import Cut, Missing, NewBranch, ObjectCut, Preprocessing
from hepfaas.runs.preprocessing_keys import KEYS, joined, preprocessing_from

FULL = {
    "missing": {"*btag*": -999, "MET_*": [-1, -2.5]},
    "objects": {"Jet": "Jet_pt > 30 and abs(Jet_eta) < 2.5"},
    "new_branches": {"m_ll": "mass(Muon[0], Muon[1])", "m_gev": "m_ll / 1000"},
    "cuts": [" nMuon >= 2 ", "m_ll > 60"],
    "remove": ["HLT_*", "m_ll"],
}


def test_the_keys_become_a_preprocessing() -> None:
    assert set(FULL) == set(KEYS)
    assert preprocessing_from(FULL, "params.json") == Preprocessing(
        missing=(Missing("*btag*", -999.0), Missing("MET_*", -1.0), Missing("MET_*", -2.5)),
        objects=(ObjectCut("Jet", "Jet_pt > 30 and abs(Jet_eta) < 2.5"),),
        new=(NewBranch("m_ll", "mass(Muon[0], Muon[1])"), NewBranch("m_gev", "m_ll / 1000")),
        cuts=(Cut("nMuon >= 2", "nMuon >= 2"), Cut("m_ll > 60", "m_ll > 60")),
        removed=("HLT_*", "m_ll"),
    )


def test_other_keys_are_left_to_params() -> None:
    assert preprocessing_from({"epochs": 5}, "params.json") == Preprocessing()
    assert not preprocessing_from({"cuts": [], "missing": {}}, "params.json")


def test_one_number_is_missing_in_all_branches() -> None:
    assert preprocessing_from({"missing": -999}, "p").missing == (Missing("*", -999.0),)
    assert preprocessing_from({"missing": [-999, -9999]}, "p").missing == (Missing("*", -999.0), Missing("*", -9999.0))


def test_cuts_may_have_names_of_their_own() -> None:
    cuts = preprocessing_from({"cuts": {"two muons": "nMuon >= 2"}}, "params.json").cuts
    assert cuts == (Cut("two muons", "nMuon >= 2"),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuts": "nMuon > 2"}, "params.json: 'cuts' is .*; it takes a list of conditions, or an object of names"),
        ({"cuts": [1]}, "params.json: 'cuts': item 1 is 1 \\(a whole number\\); it takes an expression"),
        ({"cuts": ["x > 1", "x >"]}, "params.json: 'cuts': item 2: 'x >' at column 4"),
        ({"cuts": {"a": "x >"}}, "params.json: 'cuts': 'a': 'x >' at column 4"),
        ({"cuts": {"": "x > 1"}}, "'cuts': the name of a cut is \"\" \\(text\\); it takes text"),
        ({"cuts": {"a" * 201: "x > 1"}}, "'a{50}…' has 201 characters; at most 200"),
        ({"cuts": {"a": "x > 1", " a": "x > 2"}}, "params.json: 2 cuts have the name 'a'; rename one"),
        ({"cuts": [f"x > {i}" for i in range(256)]}, "params.json: 256 cuts; at most 255; join some by 'and'"),
        ({"missing": {f"x{i}": -1 for i in range(101)}}, "params.json: 'missing' has 101 patterns and values; at most"),
        (
            {"new_branches": {f"x{i}": "x" + " + 1" * 62 for i in range(300)}},
            "the names and expressions of cuts, .* have 75,790 characters; at most 64,000",
        ),
        ({"remove": ["/Muon_(pt/"]}, "params.json: 'remove': '/Muon_\\(pt/' is not a regular expression of RE2"),
        ({"new_branches": {"a b": "x"}}, "'new_branches': the name 'a b' cannot be used in expressions"),
        ({"new_branches": {"a": 1}}, "'new_branches': 'a' is 1 \\(a whole number\\); it takes an expression"),
        ({"new_branches": ["x"]}, "'new_branches' is .* \\(a list\\); it takes an object of names and expressions"),
        ({"objects": {"Jet-1": "x"}}, "'objects': the name 'Jet-1' cannot be used"),
        ({"objects": {"Jet": "Jet_pt >"}}, "'objects': 'Jet': 'Jet_pt >' at column 9"),
        ({"missing": "-999"}, "'missing' is \"-999\" \\(text\\); it takes a number"),
        ({"missing": True}, "'missing' is true .*; it takes a number"),
        ({"missing": float("nan")}, "'missing' is NaN .*; it takes a number"),
        (
            {"missing": {"jet_*": -9, "ht": -9}, "new_branches": {"ht": "sum(Jet_pt)"}},
            "'missing' names the new branch 'ht'; declare the value for the branches that 'ht' is computed from",
        ),
        ({"missing": {"x": "a"}}, "'missing': 'x' is \"a\" \\(text\\); it takes a number or a list of numbers"),
        ({"missing": {"x": 10**400}}, "'missing': 'x' is 10{99} .*; it takes a number"),
        ({"remove": "x"}, "'remove' is \"x\" \\(text\\); it takes a list of names or patterns"),
        ({"remove": [""]}, "'remove': item 1 is \"\" \\(text\\); it takes"),
        ({"remove": [str(i) for i in range(1001)]}, "1,001 cuts, new branches and other entries; at most 1,000"),
    ],
)
def test_an_error_names_the_key_and_what_it_takes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        preprocessing_from(values, "params.json")


def test_both_files_together_do_what_each_does() -> None:
    first = Preprocessing(new=(NewBranch("a", "x", False),), cuts=(Cut("x > 1", "x > 1"),), removed=("x",))
    second = preprocessing_from({"new_branches": {"b": "a + 1"}, "cuts": ["x > 1", "b < 2"], "remove": ["x", "y"]}, "p")
    assert joined(first, second, "both") == Preprocessing(
        new=(NewBranch("a", "x", False), NewBranch("b", "a + 1")),
        cuts=(Cut("x > 1", "x > 1"), Cut("b < 2", "b < 2")),
        removed=("x", "y"),
    )


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"new_branches": {"a": "x"}}, {"new_branches": {"a": "x"}}, "both: 2 new branches have the name 'a'; rename"),
        ({"cuts": {"a": "x > 1"}}, {"cuts": {"a": "x > 2"}}, "both: 2 cuts have the name 'a'"),
        ({"cuts": [f"x>{i}" for i in range(200)]}, {"cuts": [f"y>{i}" for i in range(56)]}, "both: 256 cuts"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        joined(preprocessing_from(first, "a"), preprocessing_from(second, "b"), "both")
