"""preproc.json of MLaaS4HEP: entries become cuts and new branches, differences are noted, errors name the place."""

import itertools
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.preproc import preprocessing_of
from hepfaas.runs.preprocessing import Cut, NewBranch, Preprocessing
from hepfaas.runs.preprocessing_keys import KEYS, preprocessing_from
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = {
    "new_branch": {
        "log_E": {
            "def": "log(E)",
            "type": "jagged",
            "cut_1": ["log_E<6.31", "any"],
            "cut_2": ["log_E>5.85", "all"],
            "remove": "False",
            "keys_to_remove": ["E"],
        },
        "n_square": {"def": "n**2", "type": "flat", "cut": "1<=n_square<=16", "remove": "True"},
    },
    "flat_cut": {"nLeptons": {"cut": "0<=nLeptons<=2", "remove": "False"}},
    "jagged_cut": {"Pt": {"cut": ["Pt>200", "all"], "remove": "False"}},
}


def cuts_of(values: dict[str, Any]) -> list[str]:
    return [cut.expression for cut in preprocessing_of(values, "preproc.json")[0].cuts]


def notes_of(values: dict[str, Any]) -> tuple[str, ...]:
    return preprocessing_of(values, "preproc.json")[1]


def test_a_file_in_the_form_of_the_originals_documentation_is_understood_without_a_note() -> None:
    preprocessing, notes = preprocessing_of(EXAMPLE, "preproc.json")
    assert preprocessing == Preprocessing(
        new=(NewBranch("log_E", "log(E)", True), NewBranch("n_square", "n**2", False)),
        cuts=tuple(
            Cut(text, text)
            for text in ("0<=nLeptons<=2", "1<=n_square<=16", "all(Pt>200)", "any(log_E<6.31)", "all(log_E>5.85)")
        ),
        removed=("E", "n_square"),
    )
    assert notes == ()
    assert Preprocessing.from_text(preprocessing.text) == preprocessing


def test_all_orders_of_keys_and_sections_mean_the_same() -> None:
    fields = EXAMPLE["new_branch"]["log_E"]
    expected, _ = preprocessing_of(EXAMPLE, "preproc.json")
    for order in itertools.permutations(fields):
        entry = {key: fields[key] for key in order}
        values = {**EXAMPLE, "new_branch": {**EXAMPLE["new_branch"], "log_E": entry}}
        assert preprocessing_of(values, "preproc.json")[0] == expected
    for sections in itertools.permutations(EXAMPLE):
        assert preprocessing_of({section: EXAMPLE[section] for section in sections}, "preproc.json")[0] == expected


def test_cuts_of_one_entry_are_ordered_by_their_number() -> None:
    keys = ["cut_10", "cut_2", "remove", "cutlast", "cut", "cut1"]
    entry = {key: "False" if key == "remove" else f"x > {number}" for number, key in enumerate(keys)}
    assert cuts_of({"flat_cut": {"x": entry}}) == ["x > 4", "x > 5", "x > 1", "x > 0", "x > 3"]


def test_a_cut_that_is_there_twice_is_kept_once() -> None:
    assert cuts_of({"flat_cut": {"x": {"cut_1": "x > 1", "cut_2": " x > 1 "}}}) == ["x > 1"]


@pytest.mark.parametrize(
    ("written", "removed"),
    [("True", True), ("true", True), (True, True), ("TRUE ", True), ("False", False), ("false", False), (False, False)],
)
def test_remove_is_true_or_false_as_text_or_as_boolean(written: Any, removed: bool) -> None:
    values = {"flat_cut": {"x": {"cut": "x > 1", "remove": written}}}
    preprocessing, notes = preprocessing_of(values, "preproc.json")
    assert preprocessing.removed == (("x",) if removed else ())
    assert bool(notes) == (removed and written != "True")


def test_cuts_that_differ_in_blanks_have_names_of_their_own() -> None:
    preprocessing, _ = preprocessing_of({"flat_cut": {"x": {"cut_1": "x>1", "cut_2": "x > 1\n"}}}, "preproc.json")
    assert [cut.name for cut in preprocessing.cuts] == ["x>1", "x > 1"]
    jagged = {"jagged_cut": {"x": {"cut": ["x >\n1", "all"]}}}
    assert preprocessing_of(jagged, "preproc.json")[0].cuts[0].name == "all(x >\\n1)"


def test_a_new_branch_comes_after_those_that_it_uses() -> None:
    new = {name: {"def": text, "type": "flat"} for name, text in (("c", "a + b"), ("b", "2 * a"), ("a", "x"))}
    preprocessing, _ = preprocessing_of({"new_branch": new}, "preproc.json")
    assert [branch.name for branch in preprocessing.new] == ["a", "b", "c"]


def test_many_new_branches_may_each_use_the_next() -> None:
    new = {f"b{i}": {"def": f"b{i + 1} + 1", "type": "flat"} for i in range(999)}
    preprocessing, _ = preprocessing_of({"new_branch": new}, "preproc.json")
    assert [branch.name for branch in preprocessing.new] == [f"b{i}" for i in reversed(range(999))]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (
            {"flat_cut": {"x": {"remove": "False", "cut": "x > 1"}}},
            "flat_cut 'x': MLaaS4HEP ignored cuts after the first key that is not a cut; here they apply",
        ),
        (
            {"jagged_cut": {"x": {"cut_1": ["x>1", "all"], "remove": "False", "cut_2": ["x<5", "all"]}}},
            "jagged_cut 'x': MLaaS4HEP ignored cuts after",
        ),
        (
            {"flat_cut": {"x": {"cut": "x > 1", "remove": True}}},
            'flat_cut \'x\': MLaaS4HEP ignored "remove" unless it was the text "True"; here the branch is removed',
        ),
        (
            {"flat_cut": {"x": {"cut": "2 >= x>=0", "remove": "False"}}},
            "flat_cut 'x': MLaaS4HEP read a range that begins with '>' as if it began with '<'",
        ),
        (
            {"new_branch": {"y": {"def": "2 * x", "type": "jagged", "cut": ["y>1", "any"], "remove": "False"}}},
            "new_branch 'y': MLaaS4HEP did not apply cuts on new jagged branches without a section jagged_cut",
        ),
        (
            {"flat_cut": {"nMuon": {"cut": "nJet > 2", "remove": "False"}}},
            "flat_cut 'nMuon': nJet > 2: the cut does not use the branch of its entry; it applies as written",
        ),
    ],
)
def test_a_file_that_the_original_misread_is_noted(values: dict[str, Any], note: str) -> None:
    notes = notes_of(values)
    assert len(notes) == 1
    assert notes[0].startswith(f"preproc.json: {note}")


def test_a_note_names_three_entries_and_the_number_of_the_others() -> None:
    values = {"flat_cut": {f"x{i}": {"cut": f"x{i} > 1", "remove": True} for i in range(5)}}
    assert "flat_cut 'x0', flat_cut 'x1', flat_cut 'x2' and 2 more: MLaaS4HEP ignored" in notes_of(values)[0]


@pytest.mark.parametrize("cut", ["5>=x", "x<5", "1<x<5", "1<=x<=1e3", "-5 < x", "x == 1", "x != 5", "5 > x >= 1"])
def test_cuts_that_the_original_read_rightly_or_refused_have_no_note(cut: str) -> None:
    assert notes_of({"flat_cut": {"x": {"cut": cut, "remove": "False"}}}) == ()


def flat(cut: Any) -> dict[str, Any]:
    return {"flat_cut": {"x": {"cut": cut, "remove": "False"}}}


def jagged(cut: Any) -> dict[str, Any]:
    return {"jagged_cut": {"Jet_pt": {"cut_1": cut, "remove": "False"}}}


def new(**fields: Any) -> dict[str, Any]:
    return {"new_branch": {"y": {"def": "2 * x", "type": "flat", **fields}}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flatcut": {}}, "preproc.json has the unknown key 'flatcut'; closest: flat_cut"),
        ({"zzz": {}}, "preproc.json has the unknown key 'zzz'; known: flat_cut, jagged_cut, new_branch"),
        ({"flat_cut": []}, r"preproc.json: flat_cut is \[\] \(a list\); it takes an object of branches"),
        ({"flat_cut": {"x": "x > 1"}}, "preproc.json: flat_cut 'x' is \"x > 1\" \\(text\\); it takes an object"),
        ({"flat_cut": {"x": {"remov": "True"}}}, "flat_cut 'x' has the unknown key 'remov'; closest: remove"),
        ({"flat_cut": {"x": {"def": "y"}}}, "flat_cut 'x' has the unknown key 'def'; known: cut, remove"),
        (flat({}), "flat_cut 'x': 'cut' is {} \\(an object\\); it takes an expression"),
        (flat(""), "flat_cut 'x': 'cut' is \"\" \\(text\\); it takes an expression"),
        (flat(["x > 1", "all"]), "flat_cut 'x': 'cut' is .* \\(a list\\); it takes an expression"),
        (flat("x > "), "preproc.json: flat_cut 'x': 'cut': 'x >' at column 4: a number, a branch or a function"),
        (flat("x > 1) or (x < 2"), "flat_cut 'x': 'cut': .* at column 6"),
        (flat("x" * 5000), "the expression has 5000 characters; the limit is 4000"),
        (jagged("Jet_pt > 20"), "jagged_cut 'Jet_pt': 'cut_1' is .*; it takes a list of a condition and the word"),
        (jagged(["Jet_pt > 20"]), '\'cut_1\' is .*; it takes a list of a condition and the word "all" or "any"'),
        (
            jagged(["Jet_pt > 20", "some"]),
            "jagged_cut 'Jet_pt': 'cut_1' is \"some\" .* \"all\" \\(each value passes\\)",
        ),
        (jagged(["Jet_pt > 20", "All"]), '\'cut_1\' is "All" .* "any" \\(at least one value passes\\)'),
        (jagged(["Jet_pt >", "all"]), "preproc.json: jagged_cut 'Jet_pt': 'cut_1': 'Jet_pt >' at column 9"),
        (jagged(["1) + sum(Jet_pt", "all"]), "jagged_cut 'Jet_pt': 'cut_1': .* at column 2"),
        (new(type="vector"), 'new_branch \'y\': \'type\' is "vector" \\(text\\); it takes "flat" or "jagged"'),
        (new(remove="yes"), "new_branch 'y': 'remove' is \"yes\" \\(text\\); it takes true or false"),
        (
            new(keys_to_remove="x"),
            "new_branch 'y': 'keys_to_remove' is \"x\" \\(text\\); it takes a list of branch names",
        ),
        (
            new(keys_to_remove=[1]),
            "'keys_to_remove': item 1 is 1 \\(a whole number\\); it takes a list of branch names",
        ),
        (new(**{"def": "lag(x)"}), "new_branch 'y': 'def': .* there is no function 'lag'; closest: log"),
        ({"new_branch": {"y": {"type": "flat"}}}, "new_branch 'y' has no 'def'; add it: an expression"),
        ({"new_branch": {"y": {"def": "x"}}}, "new_branch 'y' has no 'type'; add it: \"flat\" or \"jagged\""),
        ({"new_branch": {"2y": {"def": "x", "type": "flat"}}}, "the name '2y' cannot be used in expressions"),
        ({"new_branch": {"not": {"def": "x", "type": "flat"}}}, "new_branch 'not': the name: "),
        (
            {"new_branch": {n: {"def": d, "type": "flat"} for n, d in (("a", "b + 1"), ("b", "2 * a"))}},
            "new_branch: each of these uses the next: '[ab]' → '[ab]' → '[ab]'; define one without it",
        ),
        (
            {"flat_cut": {"x": {f"cut_{i}": f"x > {i}" for i in range(256)}}},
            "preproc.json: 256 cuts; at most 255; join some by 'and'",
        ),
        (
            {"new_branch": {f"y{i}": {"def": "x", "type": "flat", "remove": "True"} for i in range(501)}},
            "preproc.json: 1,002 cuts, new branches and other entries; at most 1,000",
        ),
    ],
)
def test_an_error_names_section_entry_and_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        preprocessing_of(values, "preproc.json")


def test_the_circle_of_new_branches_is_shown_in_the_order_of_use() -> None:
    new = {name: {"def": text, "type": "flat"} for name, text in (("a", "b"), ("b", "c"), ("c", "a"))}
    with pytest.raises(RequestError) as failure:
        preprocessing_of({"new_branch": new}, "preproc.json")
    circle = [part.strip(" '") for part in str(failure.value).split(": ")[3].split(";")[0].split("→")]
    assert {(one, two) for one, two in itertools.pairwise(circle)} == {("a", "b"), ("b", "c"), ("c", "a")}


def test_cuts_of_thousands_of_entries_end_in_an_error() -> None:
    with pytest.raises(RequestError, match="at most 1,000"):
        preprocessing_of({"flat_cut": {f"x{i}": {"cut": f"x{i} > 1"} for i in range(5000)}}, "preproc.json")


words = st.sampled_from(
    [
        *("new_branch", "flat_cut", "jagged_cut", "cut", "cut_1", "remove", "def", "type", "keys_to_remove", *KEYS),
        *("flat", "jagged", "all", "any", "True", "x > 1", "1 < x < 5", "log(x)", "x", "y", "Jet", "*", ""),
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=8), inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(words | st.text(max_size=8), json_values, max_size=4))
def test_any_json_gives_a_preprocessing_or_an_error_of_one_printable_line(values: dict[str, Any]) -> None:
    for read in (
        lambda: preprocessing_of(values, "preproc.json")[0],
        lambda: preprocessing_from(values, "params.json"),
    ):
        try:
            preprocessing = read()
        except RequestError as error:
            message = str(error)
        else:
            message = "none"
            assert Preprocessing.from_text(preprocessing.text) == preprocessing
        assert message.isprintable()
        assert len(message) < 1000
