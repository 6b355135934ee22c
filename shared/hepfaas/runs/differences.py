"""The settings of a recipe as names and lines of text, and what differs between recipes. Pure.

Names are those of params.json where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hepfaas.runs.recipe import Recipe

Lines = tuple[str, ...]

_APART = ("kind", "name", "files", "code")
"""Fields of a recipe that are not settings."""

_GROUPS = ("preprocessing", "features")
"""Fields whose fields are settings."""

_NAMES: Mapping[str, str] = {
    "tree": "branch",
    "n_events": "nevts",
    "selected": "selected_branches",
    "excluded": "exclude_branches",
    "identifiers": "identifier",
    "new": "new_branches",
    "targets": "target",
    "chunk_events": "chunk_size",
}

MOST_SHORT = 3
"""Settings in a short text."""

MOST_LENGTH = 40
"""Characters of a value in a short text."""


@dataclass(frozen=True)
class Setting:
    """A setting with its value and its default, as lines of text."""

    name: str
    value: Lines
    default: Lines

    @property
    def is_default(self) -> bool:
        """Return whether it has its default."""
        return self.value == self.default


def settings(recipe: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of a recipe, JSON values of `Recipe.to_json` or on a card, those with other values than the
    default first. A setting that an earlier release did not know has its default."""
    values = {**_DEFAULTS, **_flat(recipe)}
    found = [Setting(name, _lines(value), _lines(_DEFAULTS.get(name))) for name, value in values.items()]
    return sorted(found, key=lambda setting: setting.is_default)


def differing(recipes: Sequence[Mapping[str, Any]]) -> dict[str, list[Lines]]:
    """Return the settings that are not the same in all recipes, with the value in each, in the order of the fields of a
    recipe."""
    tables = [{setting.name: setting.value for setting in settings(recipe)} for recipe in recipes]
    names = list(dict.fromkeys([*_DEFAULTS, *(name for table in tables for name in table)]))
    columns = {name: [table.get(name, ()) for table in tables] for name in names}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def short_differences(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each recipe of a list the three first settings in which the list differs, as a short text. Of a
    setting with several lines only those that not all recipes have are in it."""
    columns = {name: _without_common(values) for name, values in differing(recipes).items()}
    for name in ("code", "files"):
        values = [recipe.get(name) for recipe in recipes]
        if any(value != values[0] for value in values):
            columns[name] = [(_short_input(value),) for value in values]
    return [_short({name: values[number] for name, values in columns.items()}) for number in range(len(recipes))]


def _without_common(values: Sequence[Lines]) -> list[Lines]:
    common = set(values[0]).intersection(*values[1:])
    return [tuple(line for line in lines if line not in common) for lines in values]


def _short(values: Mapping[str, Lines]) -> str:
    shown = [f"{name}={_cut('; '.join(lines) or 'none')}" for name, lines in list(values.items())[:MOST_SHORT]]
    more = len(values) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])])


def _short_input(value: Any) -> str:
    """Return the number of files, or the begin of the hash of the code."""
    return str(value).rpartition("/")[2][:8] if isinstance(value, str) else f"{len(value or ())}"


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LENGTH else f"{text[: MOST_LENGTH - 1]}…"


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by their names."""
    values: dict[str, Any] = {}
    for name, value in recipe.items():
        if name in _GROUPS and isinstance(value, Mapping):
            values |= {_NAMES.get(inner, inner): item for inner, item in value.items()}
        elif name == "specs" and isinstance(value, Mapping):
            values[name] = value["branches"]
        elif name not in _APART:
            values[_NAMES.get(name, name)] = value
    return values


def _lines(value: Any) -> Lines:
    """Return a value as lines: one for each item of a list, none if there is no value."""
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return tuple(_item(item) for item in value)
    return (_item(value),)


def _item(value: Any) -> str:
    if isinstance(value, Mapping):
        return _of_mapping({name: item for name, item in value.items() if item not in (None, "", [], ())})
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_item, value))
    return str(value)


def _of_mapping(values: Mapping[str, Any]) -> str:
    """Return a named expression as 'name: expression', other values as 'name=value'."""
    values = dict(values)
    first = next((str(values.pop(name)) for name in ("name", "collection", "pattern") if name in values), "")
    expression = values.pop("expression", None)
    rest = ", ".join([*([str(expression)] if expression else []), *(f"{k}={_item(v)}" for k, v in values.items())])
    return ": ".join(part for part in (first, rest) if part) or "true"


_DEFAULTS = _flat(Recipe("", (), "").to_json())
