"""Notes on the classes of a training: what the user may not expect, before the first epoch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hepfaas.runs.preparation import class_numbers
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.results import PreparedPart
from hepfaas.runs.splits import Split

MOST_NAMED = 10
"""Labels that a note names."""

EFFECTS: Mapping[Split, str] = {
    Split.TRAINING: "the network learns nothing about it",
    Split.VALIDATION: "the choice of the best epoch knows nothing of it",
    Split.TEST: "its metrics are empty",
}
"""What follows if a class has no event of a sample."""


def on_labels(recipe: Recipe, of_events: Sequence[int] = ()) -> list[str]:
    """Return a note if labels are not the numbers of their classes. of_events: labels by an expression."""
    numbers = dict(zip(of_events, range(len(of_events)), strict=True)) if recipe.label else class_numbers(recipe)
    if recipe.targets or all(label == number for label, number in numbers.items()):
        return []
    pairs = [f"{label} as {number}" for label, number in numbers.items()]
    more = ", …" if len(pairs) > MOST_NAMED else ""
    return [f"classes are numbered from 0: the model learns label {', '.join(pairs[:MOST_NAMED])}{more}"]


def on_classes(recipe: Recipe, parts: Sequence[PreparedPart], fold: int | None = None) -> list[str]:
    """Return a note on each class without training, validation or test events.

    parts: as the network of a fold sees them. Labels by an expression are not counted here.
    """
    if recipe.label or recipe.targets:
        return []
    of = "" if fold is None else f" in fold {fold + 1}"
    notes = []
    for number, name in zip(class_numbers(recipe).values(), recipe.classes, strict=True):
        rows = [sum(part.rows[split] for part in parts if part.label == number) for split in Split]
        empty = [split for split in Split if not rows[split]]
        if empty:
            samples = " and no ".join(split.label for split in empty)
            effects = ", and ".join(EFFECTS[split] for split in empty)
            notes.append(f"class '{name}' has no {samples} event{of} (it has {sum(rows):,} in all): {effects}")
    return notes
