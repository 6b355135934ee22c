"""Two trees of one file are two samples: their events have identities of their own, those of the usual tree have not
changed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.runs import plan, preparation
from hepfaas.runs.identities import file_of, identity_of_events
from hepfaas.runs.opened import joined
from hepfaas.runs.recipe import LabelledFile, Recipe, with_usual_tree
from hepfaas.runs.steps import Open, Survey
from hepfaas.training.split import split_of
from hypothesis import given
from hypothesis import strategies as st

BOTH = (LabelledFile("both.root", 1, tree="Signal"), LabelledFile("both.root", 0, tree="Background"))
RECIPE = Recipe(name="m", files=BOTH, code="blobs/code")
IDENTITY = "f" * 64
TREES = st.text(min_size=1, max_size=8)


def opened(step: Open, identity: str = IDENTITY) -> dict[str, Any]:
    """Return the result of an open step, as steps/open.py makes it."""
    return {
        "identity": identity_of_events(identity, step.tree, step.usual_tree),
        "tree": step.tree,
        "fingerprint": f"print of {identity}",
        "entries": 10,
        "ranges": [[0, 10]],
        "features": [["met", False]],
        "identifiers": [],
        "left_out": [],
    }


def surveys(recipe: Recipe) -> list[Survey]:
    levels = preparation.open_levels(recipe, "m-1/1")
    opens = [step for step in levels[0] if isinstance(step, Open)]
    results = {levels[-1][0].key: joined([opened(step, step.url) for step in opens])}
    return preparation.surveys(recipe, "m-1/1", results.get)


def test_each_tree_is_surveyed_under_its_own_identity() -> None:
    steps = surveys(RECIPE)
    assert [(step.tree, step.file, step.url) for step in steps] == [
        ("Signal", "both.root:Signal", "both.root"),
        ("Background", "both.root:Background", "both.root"),
    ]
    assert RECIPE.classes == ("Background", "Signal")


def test_a_file_without_a_tree_of_its_own_has_the_key_that_it_always_had() -> None:
    recipe = replace(RECIPE, files=(LabelledFile("a.root", 1), LabelledFile("b.root", 0, tree="Other")))
    plain, other = surveys(recipe)
    assert (plain.file, plain.tree) == ("a.root", "Events")
    assert plain.key == Survey(file="a.root", tree="Events", branches=("met",), entries=(0, 10), url="elsewhere").key
    assert plain == surveys(replace(recipe, files=(LabelledFile("a.root", 1), LabelledFile("b.root", 0))))[0]
    assert other.file == "b.root:Other"


@given(TREES, TREES, TREES)
def test_identities_are_equal_if_and_only_if_file_and_tree_are(one: str, other: str, usual: str) -> None:
    first, second = identity_of_events(IDENTITY, one, usual), identity_of_events(IDENTITY, other, usual)
    assert (first == second) == (one == other)
    assert file_of(first) == IDENTITY
    assert (first == IDENTITY) == (one == usual)


def test_the_trees_of_a_file_are_not_split_alike() -> None:
    entries = np.arange(1_000)
    signal, background = (split_of(identity_of_events(IDENTITY, file.tree, "Events"), entries, 21) for file in BOTH)
    same = float((signal == background).mean())
    assert abs(same - (0.64**2 + 0.16**2 + 0.2**2)) < 0.05  # as of independent draws


def test_a_tree_that_all_files_name_is_that_of_the_run() -> None:
    files, tree = with_usual_tree([replace(file, tree="Signal") for file in BOTH], "Events")
    assert (tree, [file.tree for file in files]) == ("Signal", ["", ""])
    files, tree = with_usual_tree(BOTH, "Signal")
    assert (tree, [file.tree for file in files]) == ("Signal", ["", "Background"])
    files, tree = with_usual_tree([LabelledFile("a.root", 0), BOTH[0]], "Events")
    assert (tree, [file.tree for file in files]) == ("Events", ["", "Signal"])


def test_a_tree_is_read_once() -> None:
    recipe = replace(RECIPE, files=(BOTH[0], replace(BOTH[0], url="copy.root"), BOTH[1]))
    levels = preparation.open_levels(recipe, "m-1/1")
    results = {levels[-1][0].key: joined([opened(step) for step in levels[0] if isinstance(step, Open)])}
    with pytest.raises(RequestError, match=r"'copy.root:Signal' and 'both.root:Signal' are the same file"):
        plan.next_steps(recipe, "m-1/1", results.get)


def test_a_recipe_stays_the_same_through_json() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
