"""A network that cannot be served is refused before its first epoch, and the export of others is what was checked."""

from pathlib import Path

import numpy as np
import pytest
import uproot
from hepfaas.errors import RequestError
from hepfaas.models import versions
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan
from hepfaas.runs.phases import Ready
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Train
from hepfaas.steps.learning import Learners
from hepfaas.steps.objects import encoded, put_blob, result_if_there
from hepfaas.steps.performing import perform

HEAD = """
import keras
from keras import layers as L, ops
def model(idim, columns):
    x = keras.Input((idim,))
    assert [column.branch for column in columns] == ["met", "tag"]
    h = BODY
    net = keras.Model(x, LAST)
    net.compile(optimizer="adam", loss="mse")
    return net
"""
USUAL = "L.Dense(1, activation='sigmoid')(h)"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelledFile, ...]:
    folder = tmp_path_factory.mktemp("events")
    rng = np.random.default_rng(2)
    for label in range(2):
        with uproot.recreate(folder / f"class{label}.root") as file:
            file["Events"] = {"met": rng.normal(50 + 20 * label, 20, 300), "tag": rng.random(300)}
    return tuple(LabelledFile(str(folder / f"class{label}.root"), label) for label in range(2))


def recipe_of(store: Store, files: tuple[LabelledFile, ...], body: str, last: str = USUAL) -> Recipe:
    code = HEAD.replace("BODY", body).replace("LAST", last).encode()
    manifest = put_blob(store, encoded({"model.py": put_blob(store, code)}))
    return Recipe("m", files, code=manifest, epochs=2, batch_size=64)


def finish(store: Store, recipe: Recipe) -> None:
    with Learners(lambda line: None) as learners:
        while isinstance(coming := plan.next_steps(recipe, "run/1", results_in(store)), Ready):
            for step in coming.steps:
                tools = {"learners": learners} if step.kind in ("train", "export") else {}
                perform(step, store, **tools, **({"on_rows": int} if isinstance(step, Train) else {}))


def results_in(store: Store):  # type: ignore[no-untyped-def]
    return lambda key: result_if_there(key, store)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "L.Dense(4)(x - ops.mean(x, axis=0, keepdims=True))",
            "the score of an event by the network of model.py depends on the events that it is computed with: alone ",
        ),
        (
            "L.Dense(4)(ops.erf(x))",
            "model.py: LiteRT, which serves the network, has no operation Erf; use gelu instead",
        ),
    ],
)
def test_a_network_that_cannot_be_served_is_refused_before_the_first_epoch(
    files: tuple[LabelledFile, ...], body: str, message: str, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(RequestError) as caught:
        finish(store, recipe_of(store, files, body))
    assert str(caught.value).startswith(message)
    assert not [*store.keys("steps/train/")]


def test_a_linear_output_trains_to_the_end_and_its_conversion_is_on_the_card_and_in_the_notes(
    files: tuple[LabelledFile, ...], tmp_path: Path
) -> None:
    """The network begins with scores far outside of 0 to 1."""
    store = open_store(str(tmp_path))
    recipe = recipe_of(store, files, "x * 50", "L.Dense(1)(h)")
    finish(store, recipe)
    text = "the score is the output of the network, clipped to 0 to 1"
    assert plan.notes(recipe, "run/1", results_in(store)) == [text]
    card = versions.card_of(store, versions.Version("m", 1))
    assert (card["score"], card["logits"]) == (text, False)
