"""Runs of several kinds: each survives JSON, and those of earlier releases are trainings."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hepfaas.orchestration.records import Request
from hepfaas.runs.conversion import Conversion
from hepfaas.runs.kinds import AnyRecipe, recipe_from_json
from hepfaas.runs.phases import Finished, Ready
from hepfaas.runs.plan import maker, next_steps
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import LabelledFile, Recipe

TRAINING = Recipe("m", (LabelledFile("a.root", 0), LabelledFile("b.root", 1)), "blobs/0")
PREDICTION = Prediction(
    "m-scores", "m/1", "graph", "spec", ("root://a//x.root", "root://b//y.root"), "Events", ("met",), ("event",), (0, 9)
)


CONVERSION = Conversion("m", "uploads/0", "keras", "m.keras", "", "", '{"name": "m"}', ("a", "b"), "mark")


@pytest.mark.parametrize("recipe", [TRAINING, PREDICTION, CONVERSION])
def test_a_request_survives_json(recipe: AnyRecipe) -> None:
    request = Request(recipe, 1.0, ("note",), once="x")
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_a_request_of_an_earlier_release_is_a_training() -> None:
    values = json.loads(json.dumps(TRAINING.to_json()))
    del values["kind"]
    assert recipe_from_json(values) == TRAINING


def test_a_conversion_converts_once_and_makes_a_version_for_each_upload() -> None:
    there: dict[str, dict[str, Any]] = {}
    done = []
    for recipe in (CONVERSION, replace(CONVERSION, upload="another")):
        while isinstance(coming := next_steps(recipe, "m-1/1", there.get), Ready):
            (step,) = coming.steps
            assert maker(recipe, "m-1/1", there.get, step.key) == step
            done.append(step.kind)
            there[step.key] = {"name": "m", "version": done.count("register")}
        assert isinstance(coming, Finished)
        assert coming.model == {"name": "m", "version": done.count("register")}
    assert done == ["convert", "register", "register"]
