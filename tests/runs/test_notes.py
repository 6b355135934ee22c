"""Notes on the classes of a training, which are shown before the first epoch."""

import dataclasses

import pytest
from hepfaas.runs.notes import on_classes, on_labels
from hepfaas.runs.recipe import LabelledFile, Recipe, Sample
from hepfaas.runs.results import PreparedPart
from hepfaas.runs.splits import Split


def recipe(*labels: int) -> Recipe:
    return Recipe("m", tuple(LabelledFile(f"f{n}.root", label) for n, label in enumerate(labels)), code="c")


def part(label: int, *rows: int) -> PreparedPart:
    train, validation, test = rows
    return PreparedPart(f"p{label}", 1, f"f{label}", (0, 1), label, (train, validation, test), 0, "")


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ((0, 1), []),
        ((1, 0, 2), []),
        ((1, 2), ["classes are numbered from 0: the model learns label 1 as 0, 2 as 1"]),
        ((-1, 1), ["classes are numbered from 0: the model learns label -1 as 0, 1 as 1"]),
        ((0, 2, 5), ["classes are numbered from 0: the model learns label 0 as 0, 2 as 1, 5 as 2"]),
    ],
)
def test_labels_that_are_no_class_numbers_are_told_with_their_map(labels: tuple[int, ...], note: list[str]) -> None:
    assert on_labels(recipe(*labels)) == note
    assert on_labels(dataclasses.replace(recipe(*labels), targets=("x",))) == []
    assert on_labels(dataclasses.replace(recipe(0), label="x"), sorted(set(labels))) == note


def test_a_class_without_events_of_a_sample_is_told() -> None:
    parts = [part(0, 10, 4, 3), part(1, 2, 1, 0), part(1, 1, 0, 0)]
    note = "class 'f1' has no test event (it has 4 in all): its metrics are empty"
    assert on_classes(recipe(3, 7), parts) == [note]
    assert on_classes(recipe(3, 7), [parts[0], part(1, 1, 1, 1)]) == []
    assert on_classes(dataclasses.replace(recipe(3, 7), label="x"), parts) == []
    named = dataclasses.replace(
        recipe(0, 1),
        files=(LabelledFile("a", 0, "qcd"), LabelledFile("b", 1, "higgs")),
        samples=(Sample(name="qcd"), Sample(name="higgs")),
    )
    (told,) = on_classes(named, [parts[0], part(1, 0, 5, 0)], fold=1)
    assert told == (
        f"class 'higgs' has no {Split.TRAINING.label} and no test event in fold 2 (it has 5 in all): the network "
        "learns nothing about it, and its metrics are empty"
    )
