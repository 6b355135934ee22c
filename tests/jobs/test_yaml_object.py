"""YAML has the types of JSON here, and nothing that is built twice or by a tag."""

import json
import math

import pytest
from hepfaas.errors import RequestError
from hepfaas.jobs import yaml_object as yaml_module
from hepfaas.jobs.yaml_object import yaml_object
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_json_is_yaml_with_the_same_values(wanted: dict[str, object]) -> None:
    assert yaml_object(json.dumps(wanted), "samples.yaml") == json.loads(json.dumps(wanted))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("True", "True"), ("12:30", "12:30"), ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("017", "017"), ("1_000", "1_000"),
        (".inf", ".inf"), (".nan", ".nan"), ("<<", "<<"), ("=", "="), ("1e5", 1e5), ("-.5", -0.5), ("1.", 1.0),
        ("+7", 7), ("true", True), ("null", None), ("~", None), ("", None), ("'1'", "1"), ("d/*.root", "d/*.root"),
    ],
)  # fmt: skip
def test_only_the_scalars_of_json_are_more_than_text(text: str, value: object) -> None:
    result = yaml_object(f"a: {text}", "samples.yaml")["a"]
    assert (type(result), result) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: *.root", "samples.yaml is not YAML: .* at line 1 column 5; quote text that begins with '\\*' or '&'"),
        ("a: &x [1]\nb: *x", "samples.yaml line 1 has an anchor or an alias .*; write the value where it is used"),
        ("a: 1\nb: *x", "samples.yaml line 2 has an anchor or an alias"),
        ("a: !!python/object/apply:os.system [ls]", "line 1 has the tag 'tag:yaml.org,2002:python/object/apply:os"),
        ("a: !!float 1", "has the tag 'tag:yaml.org,2002:float'; write plain values"),
        ("a: 1\nb:\n  a: 2\n  a: 3", "samples.yaml line 4 has the key 'a' twice"),
        ("a:\n  1: x", "samples.yaml line 2 has the key 1, which is not text; quote it"),
        ("true: x", "line 1 has the key true, which is not text; quote it"),
        ("[a]: x", "line 1 has the key a list or object, which is not text"),
        ("a: [1, 2", "samples.yaml is not YAML: while parsing a flow sequence, .* at line 2 column 1"),
        ("a: \x07", "samples.yaml is not YAML: unacceptable character"),
        (
            "a: 1\n---\nb: 2",
            "is not YAML: expected a single document in the stream, but found another document at line 2",
        ),
        ("- a", "samples.yaml is not an object; it has keys and values"),
        ("", "samples.yaml is not an object"),
        ("a: " + 21 * "[", "samples.yaml is nested deeper than 20 levels"),
        ("a: " + "9" * 5_000, "samples.yaml line 1 has a number that cannot be read"),
        (
            "a: " + "x" * 1_000_000,
            "samples.yaml has 1.0 MB; at most 1 MB of YAML are read; write JSON, or put the files",
        ),
    ],
)
def test_other_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        yaml_object(text, "samples.yaml")


def test_the_number_of_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_module, "MOST_VALUES", 10)
    with pytest.raises(RequestError, match="samples.yaml has more than 10 values"):
        yaml_object("a: [1, 2, 3, 4, 5, 6, 7, 8, 9]", "samples.yaml")


def test_a_number_that_is_too_large_is_infinite() -> None:
    assert yaml_object("a: 1e999", "samples.yaml")["a"] == math.inf
