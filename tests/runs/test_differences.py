"""Settings of recipes as text, and what differs between recipes."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hepfaas.runs.differences import MOST_LENGTH, MOST_SHORT, differing, settings, short_differences
from hepfaas.runs.feature_rules import FeatureRules, ScalingRule
from hepfaas.runs.old_specs import OldRange, OldSpecs
from hepfaas.runs.preprocessing import Cut, Missing, NewBranch, ObjectCut, Preprocessing
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.schedule import Schedule
from hypothesis import given
from hypothesis import strategies as st

RECIPE = Recipe("m", (LabelledFile("root://h//a", 0),), "blobs/0123456789abcdef")
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(11, 90),
        "batch_size": st.integers(51, 900),
        "tree": st.sampled_from(["Friends", "t"]),
        "weight": st.sampled_from(["w", "where(x > 1, 2, 3)"]),
        "learning_rate": st.floats(1e-6, 1),
        "shuffle": st.just(False),
        "spectators": st.lists(st.text("ab", min_size=1), min_size=1, max_size=3).map(tuple),
        "class_weight": st.just(((0, 1.0), (1, 2.5))),
    },
)
NAMES = {"tree": "branch"}


def read(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe after a round trip through JSON text."""
    values: dict[str, Any] = json.loads(json.dumps(recipe.to_json()))
    return values


@given(CHANGES)
def test_settings_with_other_values_come_first_and_are_those_that_were_changed(changes: dict[str, Any]) -> None:
    found = settings(read(replace(RECIPE, **changes)))
    changed = [each.name for each in found if not each.is_default]
    assert sorted(changed) == sorted(NAMES.get(name, name) for name in changes)
    assert [each.name for each in found[: len(changed)]] == changed


@given(CHANGES, CHANGES)
def test_two_recipes_differ_in_the_settings_whose_values_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = replace(RECIPE, **one), replace(RECIPE, **other)
    expected = {
        NAMES.get(item.name, item.name)
        for item in fields(Recipe)
        if getattr(first, item.name) != getattr(second, item.name)
    }
    assert set(differing([read(first), read(second)])) == expected
    assert differing([read(first), read(first)]) == {}


def test_a_setting_that_an_earlier_release_did_not_know_has_its_default() -> None:
    old = read(RECIPE)
    del old["patience"], old["features"]
    assert differing([old, read(RECIPE)]) == {}


@pytest.mark.parametrize(
    ("changes", "name", "lines"),
    [
        ({"preprocessing": Preprocessing(cuts=(Cut("MET", "MET_pt > 15"),))}, "cuts", ("MET: MET_pt > 15",)),
        ({"preprocessing": Preprocessing(new=(NewBranch("ht", "sum(pt)"),))}, "new_branches", ("ht: sum(pt)",)),
        (
            {"preprocessing": Preprocessing(objects=(ObjectCut("Jet", "Jet_pt > 25"),))},
            "objects",
            ("Jet: Jet_pt > 25",),
        ),
        ({"preprocessing": Preprocessing(missing=(Missing("b*", -999.0),))}, "missing", ("b*: value=-999",)),
        ({"features": FeatureRules(scaling=(ScalingRule("*_pt", "log"),))}, "scaling", ("*_pt: kind=log",)),
        ({"class_weight": ((0, 1.0), (1, 2.5))}, "class_weight", ("0, 1", "1, 2.5")),
        ({"shuffle": False}, "shuffle", ("false",)),
        ({"learning_rate": 1e-4}, "learning_rate", ("0.0001",)),
        ({"threshold": 1 / 3}, "threshold", ("0.3333333333",)),
        ({"chunk_events": 500}, "chunk_size", ("500",)),
        (
            {"specs": OldSpecs("s.json", (OldRange("pt", True, 0, 9.5, 3),), (("a.root", 5),))},
            "specs",
            ("pt: jagged=true, low=0, high=9.5, width=3",),
        ),
    ],
)
def test_a_setting_is_read_as_lines(changes: dict[str, Any], name: str, lines: tuple[str, ...]) -> None:
    changed = [each for each in settings(read(replace(RECIPE, **changes))) if not each.is_default]
    assert [(each.name, each.value) for each in changed] == [(name, lines)]


def test_a_schedule_is_one_line_of_its_values() -> None:
    recipe = replace(RECIPE, learning_rate_schedule=Schedule(name="exponential", factor=0.5))
    (line,) = next(each for each in settings(read(recipe)) if not each.is_default).value
    assert line.startswith("exponential: ")
    assert "factor=0.5" in line


def test_a_short_text_names_a_few_settings_and_only_the_lines_that_differ() -> None:
    common, one = Cut("two leptons", "n == 2"), Cut("MET", "met > 15")
    first = replace(RECIPE, preprocessing=Preprocessing(cuts=(common, one)), epochs=3, code="blobs/ffffffffff")
    second = replace(RECIPE, preprocessing=Preprocessing(cuts=(common,)), files=(*RECIPE.files, *RECIPE.files))
    texts = short_differences([read(first), read(second)])
    assert texts == [
        "epochs=3, cuts=MET: met > 15, code=ffffffff, 1 more",
        "epochs=10, cuts=none, code=01234567, 1 more",
    ]


@given(st.text(max_size=300))
def test_a_short_text_is_short(text: str) -> None:
    (found, _) = short_differences([read(replace(RECIPE, weight=text)), read(replace(RECIPE, weight="other"))])
    assert len(found) <= MOST_SHORT * (MOST_LENGTH + 20)
