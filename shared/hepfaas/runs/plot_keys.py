"""Key of params.json for the texts of the plots. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepfaas.runs.json_values import Key, Parse, a_number, check_keys, wrong
from hepfaas.runs.plot_labels import PlotLabels

MOST_TITLES, LONGEST = 500, 100


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
        raise wrong(place, value, f"a line of at most {LONGEST} characters")
    return value


def _titles(value: Any, place: str) -> bool | tuple[tuple[str, str], ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, dict) or len(value) > MOST_TITLES:
        raise wrong(place, value, f"true, or a text for each of at most {MOST_TITLES} branches")
    return tuple((name, _text(text, f"{place}: '{name[:LONGEST]}'")) for name, text in value.items())


_PARTS: Mapping[str, Parse] = {
    "label": _text,
    "luminosity": a_number(0, above=True),
    "energy": a_number(0, above=True),
    "titles": _titles,
}


def _plots(value: Any, place: str) -> PlotLabels:
    if not isinstance(value, dict):
        raise wrong(place, value, f"an object with {', '.join(map(repr, _PARTS))}")
    check_keys(value, _PARTS, place)
    parts = {name: _PARTS[name](part, f"{place}: '{name}'") for name, part in value.items()}
    titles = parts.pop("titles", False)
    if isinstance(titles, bool):
        return PlotLabels(**parts, branch_titles=titles)
    return PlotLabels(**parts, titles=titles)


KEYS: Mapping[str, Key] = {"plots": Key(_plots, "plots")}
