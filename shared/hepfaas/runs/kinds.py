"""The kinds of runs, a closed set. The recipe of each is a frozen dataclass with `name` (of its runs), `urls`,
`to_json` and `from_json`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepfaas.runs.conversion import Conversion
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import Recipe

AnyRecipe = Recipe | Prediction | Conversion

_KINDS: Mapping[str, type[Recipe] | type[Prediction] | type[Conversion]] = {
    kind.kind: kind for kind in (Recipe, Prediction, Conversion)
}


def recipe_from_json(values: Mapping[str, Any]) -> AnyRecipe:
    """Return the recipe that `to_json` of any kind gave, also after a round trip through JSON text.

    Values without a kind are those of a training.
    """
    return _KINDS[values.get("kind", Recipe.kind)].from_json(values)
