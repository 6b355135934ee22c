"""Each message shows the place, the text, the column and what to write instead."""

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse

TEXTS = {
    "Jet_pt > 3o": "at column 10: '3o' is not a number",
    "0x1F": "at column 1: '0x1F' is not a number",
    "1_000 + 1": "at column 1: '1_000' is not a number",
    "1.5.2": "at column 1: '1.5.2' is not a number",
    "2j": "at column 1: '2j' is not a number",
    "": "'' at column 1: a number, a branch or a function is expected before the end",
    "a >": "at column 4: a number, a branch or a function is expected before the end",
    "* a": "at column 1: a number, a branch or a function is expected before '*'",
    "f(*a)": "at column 3: a number, a branch or a function is expected before '*'",
    "a b": "at column 3: an operator is expected before 'b'",
    "a)": "at column 2: an operator is expected before ')'",
    "(a": "at column 3: a ')' is expected: the '(' of column 1 is open",
    "sqrt(a": "at column 7: a ',' or ')' is expected: the '(' of column 5 is open",
    "a[0": "at column 4: a ']' is expected: the '[' of column 2 is open",
    "a if b": "at column 7: an 'else' is expected: a if condition else b",
    "a = 3": "at column 3: '=' is not an operator; compare with '=='",
    "sum(a, axis=1)": "Arguments of functions have no names",
    "a := 3": "at column 3: ':' is not an operator",
    "a ^ 2": "at column 3: '^' is not an operator; write ** for a power, and != for an exclusive or",
    "a ? 1 : 2": "at column 3: '?' is not an operator; write where(condition, a, b)",
    "a[0:2]": "for the first objects write x[0], x[1], or a filter such as x[x > 20]",
    "a[:, 0]": "at column 3: ':' is not an operator",
    "Muon[0].pt": "at column 8: there are no attributes; write pt(Muon[0]) for the pt of a four-vector",
    "(a).__class__": "at column 4: there are no attributes",
    "[1, 2]": "at column 1: there are no lists; write x[0] or x[x > 20] after a branch",
    "[a for a in b]": "at column 1: there are no lists",
    "{1: 2}": "at column 1: the character '{' is not part of any expression",
    "a; b": "at column 2: there is only one expression",
    "'a' == b": "at column 1: text is not a value; write branch('a') for the branch of this name",
    'f"{a}"': "at column 2: an operator is expected before",
    "'a": "at column 1: the quoted name has no end, or contains a backslash",
    "lambda x: x": "at column 1: 'lambda' is not part of any expression; remove it",
    "a in b": "at column 3: an operator is expected before 'in'; write (x == 1) or (x == 2)",
    "a is b": "at column 3: an operator is expected before 'is'; write ==",
    "a\0b": r"'a\x00b' at column 2: the character '\x00' is not part of any expression",
    "a + é": "at column 5: the character 'é' is not part of any expression",
    "a\u202eb": r"the character '\u202e' is not part of any expression",
    "squareroot(a)": "at column 1: there is no function 'squareroot'",
    "a + sqr(a)": "at column 5: there is no function 'sqr'; closest: sqrt",
    "__import__(a)": "there is no function '__import__'",
    "sqrt(a, a)": "sqrt() takes 1 argument; found 2",
    "where(a)": "where() takes 3 arguments; found 1",
    "vector(a)": "vector() takes 2 to 4 arguments; found 1",
    "max()": "max() takes 1 or more arguments; found 0",
    "a[0](1)": "at column 5: only functions can be called",
    "branch(a)": 'at column 8: branch() needs a name in quotes: branch("name of the branch")',
    "branch('a', 1)": "at column 11: a ')' is expected after the name of the branch",
    "18446744073709551616": "the integer needs more than 64 bits; write it with an exponent, such as 1e20",
    "9" * 3_000: "the integer needs more than 64 bits",
    "a & 4 == 4": "at column 3: '&' next to a comparison has two readings; write (a & b) == c, a & (b == c)",
    "a == 1 | b": "at column 8: '|' next to a comparison has two readings",
    "!a > 3": "at column 1: '!' binds tighter than the comparison; write not (a > b), or (!a) == b",
    "(" * 65 + "a" + ")" * 65: "at column 65: more than 64 operations or parentheses stand inside each other",
    "-" * 65 + "a": "more than 64 operations",
    "2 ** " * 65 + "2": "more than 64 operations",
    "a" + "[0]" * 65: "more than 64 operations",
    "not " * 65 + "a": "more than 64 operations",
    "1 if a else " * 65 + "1": "more than 64 operations",
    "a+" * 600 + "a": "the expression has more than 1000 names, numbers and operations",
    "branch('a')+" * 300 + "a" * 401: "the expression has 4001 characters; the limit is 4000",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_no_expression_is_refused_with_the_column(text: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(text, "params.json: cut 2")
    assert TEXTS[text] in str(error.value)
    assert str(error.value).startswith("params.json: cut 2: '")
    assert "\n" not in str(error.value)


BRANCHES = ["Muon_pt", "Muon_eta", "Muon_phi", "MET_pt", "MET_phi", "nMuon"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20 < Muon_Pt", "'20 < Muon_Pt' at column 6: there is no branch 'Muon_Pt'; closest: Muon_pt"),
        ("nMuon + zzz", "at column 9: there is no branch 'zzz'; known: MET_phi, MET_pt, Muon_eta"),
        ("branch('Muon pt')", "there is no branch 'Muon pt'; closest: Muon_pt"),
        ("sqrt > 3", "at column 1: 'sqrt' is a function; write sqrt"),
        ("mass(Muo[0])", "at column 6: there is no branch 'Muo'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_branches(text: str, message: str) -> None:
    expression = parse(text, "preproc.json: new_branch")
    with pytest.raises(RequestError, match=message):
        expression.branches(BRANCHES)
    with pytest.raises(RequestError, match=message):
        expression.evaluate({name: np.ones(2) for name in BRANCHES})


ARRAYS = {
    "Muon_pt": ak.Array([[1.0, 2.0], []]),
    "Muon_eta": ak.Array([[1.0, 2.0], []]),
    "Muon_phi": ak.Array([[1.0, 2.0], []]),
    "MET_pt": np.array([1.0, 2.0]),
    "MET_phi": np.array([1.0, 2.0]),
    "Jet_pt": ak.Array([[1.0], [2.0]]),
    "x": np.array([0.5, 1.0]),
    "name": ak.Array(["a", "b"]),
    "nested": ak.Array([[[1.0]], [[]]]),
    "optional": ak.Array([[1.0, None], []]),
    "record": ak.Array([{"a": 1}, {"a": 2}]),
    "text": np.array(["a", "b"]),
    "thing": np.array([{}, []], object),
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + (Muon_pt + Jet_pt)", "at column 5: '(Muon_pt + Jet_pt)': the values have different numbers"),
        ("Muon_pt + Jet_pt", "objects, such as 2 and 1 in one event; reduce one of them with sum, max, any or [0]"),
        ("Muon_pt[Jet_pt > 0]", "different numbers of objects"),
        ("deltaR(Muon, vector(Jet_pt, 0, 0))", "different numbers of objects"),
        ("where(Jet_pt > 0, Muon_pt, 0)", "different numbers of objects"),
        ("MET_pt[0]", "at column 1: 'MET_pt[0]': objects are needed, and there is one number for each event"),
        ("MET_pt[Jet_pt > 0]", "objects are needed, and there is one number for each event"),
        ("3[0]", "a number has no objects"),
        ("Muon_pt[MET_pt > 3]", "a filter needs a condition on the objects; this one has a value for each event"),
        ("Muon_pt[0.5]", "an index has to be a whole number; found 0.5"),
        ("Muon_pt[True]", "an index has to be a whole number; found True"),
        ("Muon_pt[nan]", "an index has to be a whole number; found nan"),
        ("Muon_pt[inf]", "an index has to be a whole number; found inf"),
        ("Muon_pt[x]", "an index has to be a whole number; some of these have a fraction"),
        ("max(MET_pt)", "a function over the objects of an event needs a jagged value; this has one number for each"),
        ("sum(3)", "needs a jagged value"),
        ("count(Muon_pt > 1)", "count of true and false has two readings; write sum(…) for the true ones, or len(…)"),
        ("Muon[0]", "the result is a vector, and not a number; write pt"),
        ("Muon[0] * 2", "'Muon[0] * 2': a number is needed, and this is a vector; write pt"),
        ("Muon[0] > 2", "a number is needed, and this is a vector"),
        ("Muon[0] and True", "a number is needed, and this is a vector"),
        ("max(Muon)", "a number is needed, and this is a vector"),
        ("pt(Muon_pt)", "a vector is needed, such as Muon[0] or vector(pt, eta, phi, mass), and this is a number"),
        ("deltaR(Muon[0], 1)", "a vector is needed"),
        ("mass(Muon[0])", "the vector has no mass: no branch of its collection ends in _mass, _Mass, _m, _M, _energy"),
        ("energy(Muon[0] + Muon[1])", "the vector has no mass"),
        ("eta(MET)", "the vector is transverse: it has no eta and no z component; pt, phi, deltaPhi and mt are"),
        ("deltaR(MET, Muon[0])", "the vector is transverse"),
        ("mass(Muon[0], MET)", "the vector has no mass"),
        ("pz(Muon[0] + MET)", "the vector is transverse"),
        ("vector(1, 2, 3, 4)", "a vector needs a branch"),
        ("x & 3", "the operator needs integers, or true and false; join conditions with 'and', 'or'"),
        ("~x", "the operator needs integers"),
        ("1.5 << 1", "the operator needs integers"),
        ("18446744073709551615 & 1", "the operator needs integers of 64 bits with a sign"),
        ("name", "branch 'name' holds 2 * string, and not numbers or lists of numbers"),
        ("sum(nested)", "branch 'nested' holds 2 * var * var * float64, and not numbers"),
        ("optional", "branch 'optional' holds 2 * var * ?float64, and not numbers"),
        ("record", "branch 'record' holds 2 * {a: int64}, and not numbers"),
        ("text", "branch 'text' holds <U1 with 1 axes, and not numbers"),
        ("1 + thing", "at column 5: 'thing': branch 'thing' holds object with 1 axes, and not numbers"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_with_their_part_of_the_text(text: str, message: str) -> None:
    expression = parse(text, "params.json: weight")
    with pytest.raises(RequestError) as error:
        expression.evaluate({name: ARRAYS[name] for name in expression.branches(ARRAYS)}, 2)
    assert message in str(error.value)
    assert str(error.value).startswith(f"params.json: weight: '{text}' at column ")


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(RequestError, match="here: branch 'b' has 3 events; 2 are expected"):
        parse("a + b", "here").evaluate({"a": np.ones(2), "b": np.ones(3)})


def test_a_long_text_is_cut_around_the_column() -> None:
    text = "a+" * 200 + "?" + "+a" * 200
    with pytest.raises(RequestError, match=r"here: '….*\?.*…' at column 401: '\?' is not an operator") as error:
        parse(text, "here")
    assert len(str(error.value)) < 250


def test_chains_can_be_long() -> None:
    arrays = {"run": np.array([1, 150, 300])}
    text = " or ".join(f"run == {i}" for i in range(1, 200))
    assert parse(text, "here").evaluate(arrays).tolist() == [True, True, False]
    assert parse("run" + " + 1" * 400, "here").evaluate(arrays).tolist() == [401, 550, 700]


def test_a_cut_with_a_value_for_each_object_is_refused() -> None:
    with pytest.raises(RequestError) as error:
        parse("Muon_pt > 1", "params.json: cut 1").passes(ARRAYS)
    assert str(error.value) == (
        "params.json: cut 1: 'Muon_pt > 1' at column 1: a cut on events needs one value for each event, "
        "and this has one for each object; write any(…)"
    )
    with pytest.raises(RequestError, match="a number is needed, and this is a vector"):
        parse("Muon[0]", "here").passes(ARRAYS)


def test_names_of_branches_are_shown_on_one_line() -> None:
    with pytest.raises(RequestError, match=r"closest: Muon\\npt"):
        parse("Muon_pt", "here").branches(["Muon\npt"])
