"""Patterns name branches: exactly, with wildcards, or with regular expressions; none takes exponential time."""

import fnmatch
import re
import time

import pytest
from hepfaas.errors import RequestError
from hepfaas.expressions.patterns import (
    MOST_LENGTH,
    MOST_PATTERNS,
    check_patterns,
    is_pattern,
    matching,
    values_by_name,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = ["met", "Muon_pt", "Muon_eta", "Muon_charge", "genWeight", "gen_pt", "a[0]", "a0", "x*", "xy"]

letters = st.text("ab_*?[]!/\n\ud800é", max_size=8)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("met", ["met"]),
        ("mett", []),
        ("Muon_*", ["Muon_pt", "Muon_eta", "Muon_charge"]),
        ("gen*", ["genWeight", "gen_pt"]),
        ("*_pt", ["Muon_pt", "gen_pt"]),
        ("?et", ["met"]),
        ("Muon_[pe]*", ["Muon_pt", "Muon_eta"]),
        ("Muon_[!pe]*", ["Muon_charge"]),
        ("a[0]", ["a[0]"]),
        ("a[01]", ["a0"]),
        ("x*", ["x*"]),
        ("x?", ["x*", "xy"]),
        ("/Muon_(pt|eta)/", ["Muon_pt", "Muon_eta"]),
        ("/muon_pt/", []),
        ("/muon_pt/i", ["Muon_pt"]),
        ("/Muon/", []),
        ("/.*[a-z]_pt/", ["Muon_pt", "gen_pt"]),
        ("/x\\*/", ["x*"]),
    ],
)
def test_a_pattern_matches_whole_names_in_their_order(pattern: str, expected: list[str]) -> None:
    assert matching(pattern, NAMES) == expected


@given(letters, st.lists(letters, max_size=6))
def test_a_wildcard_matches_as_in_a_shell_unless_a_name_equals_it(pattern: str, names: list[str]) -> None:
    if pattern.startswith("/"):
        pattern = "a" + pattern
    expected = [pattern] if pattern in names else [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    assert matching(pattern, names) == expected


@given(st.from_regex(r"[ab.()|*+?]{0,8}", fullmatch=True), st.lists(st.text("abé\n", max_size=6), max_size=6))
def test_an_expression_matches_as_python_does_or_is_refused(text: str, names: list[str]) -> None:
    try:
        expected = re.compile(text, re.DOTALL)
    except re.error:
        return
    try:
        matches = matching(f"/{text}/", names)
    except RequestError as error:
        assert "is not a regular expression of RE2" in str(error)  # noqa: PT017 - both outcomes are right
        return
    assert matches == [name for name in names if expected.fullmatch(name)]


@pytest.mark.parametrize("pattern", ["/(a*)*b/", "/(a|a)*b/", "/(.*)*(.*)*(.*)*c/", "*a*a*a*a*a*a*a*a*c"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    start = time.perf_counter()
    assert matching(pattern, ["a" * 1000] * 500) == []
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/Muon_(pt/", "is not a regular expression of RE2: missing \\)"),
        (r"/(a)\1/", "is not a regular expression of RE2: invalid escape sequence"),
        ("/(?=a)b/", "is not a regular expression of RE2"),
        ("/a{1000}{1000}/", "is not a regular expression of RE2"),
        ("a" * MOST_LENGTH + "*", "has 1,001 characters; a pattern has at most 1,000"),
    ],
)
def test_a_pattern_that_is_not_valid_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        matching(pattern, NAMES)
    with pytest.raises(RequestError, match=f"exclude_branches: .*{message}"):
        check_patterns([pattern], "exclude_branches")


def test_a_name_that_is_not_utf8_is_matched() -> None:
    assert matching("/a.*/", ["a\ud800", "b\ud800", "a"]) == ["a\ud800", "a"]


def test_a_slow_pattern_and_too_many_patterns_are_refused() -> None:
    with pytest.raises(RequestError, match="too complex for 5,000 names"):
        matching("/.*a.{200}b/", ["a" * 1000] * 5000)
    with pytest.raises(RequestError, match="has 201 wildcards and regular expressions; at most 200"):
        check_patterns(["a*"] * (MOST_PATTERNS + 1), "x")
    check_patterns(["a"] * 10_000, "x")


def test_a_name_is_not_a_pattern() -> None:
    assert not is_pattern("Muon_pt")
    assert not is_pattern("boosted/pt")
    assert all(map(is_pattern, ("a*", "a?", "[ab]", "/a/", "/a/i")))


def test_the_exact_name_counts_and_else_the_first_pattern() -> None:
    rules = [("*_pt", 1), ("Muon_*", 2), ("gen_pt", 3), ("met", 4), ("*", 5)]
    values = values_by_name(rules, NAMES, "scaling")
    assert values["gen_pt"] == 3
    assert values["Muon_pt"] == 1
    assert values["Muon_eta"] == 2
    assert values["met"] == 4
    assert values["a0"] == 5
    assert set(values) == set(NAMES)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("Muonn_pt", 1)], "'scaling': 'Muonn_pt' matches no branch; closest: Muon_pt"),
        ([("zz*", 1)], r"'zz\*' matches no branch; it has: met, Muon_pt"),
        ([("*", 1), ("Muon_*", 2)], r"'Muon_\*' has no effect, since other entries match all its branches"),
    ],
)
def test_a_rule_without_effect_is_an_error(rules: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        values_by_name(rules, NAMES, "'scaling'")
