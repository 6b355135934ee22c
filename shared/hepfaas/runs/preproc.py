"""preproc.json of MLaaS4HEP as a `Preprocessing` (docs/how-to/migrate.md). Pure.

The three sections keep their meaning. Where the original misread an entry and went on, the entry is read as written,
and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import Expression, parse
from hepfaas.expressions.grammar import shown
from hepfaas.runs.json_values import a_flag, a_text, an_object, check_keys, texts, wrong
from hepfaas.runs.preprocessing import NewBranch, Preprocessing
from hepfaas.runs.preprocessing_keys import a_short_name, an_expression, check_name, checked, unnamed_cut

SECTIONS = ("flat_cut", "jagged_cut", "new_branch")

_IGNORED = "ignored cuts after the first key that is not a cut; here they apply"
_NOT_TEXT = 'ignored "remove" unless it was the text "True"; here the branch is removed'
_TURNED = "read a range that begins with '>' as if it began with '<'; here it is read as written"
_UNAPPLIED = "did not apply cuts on new jagged branches without a section jagged_cut; here they apply"
_SHOWN = 3
"""Most entries that a note names."""

_NUMBERED = re.compile(r"cut_?([0-9]{0,9})")
_TURNED_RANGE = re.compile(r"[^A-Za-z<>=!]*(?:>=[^<>=!]+(?:[<>]|!=)|>[^<>=!]+[<>](?!=))")
"""5 >= x > 2, for instance; 5 > x >= 2 was refused, since the original looked for '>=' before '>'."""


@dataclass(frozen=True)
class _Entry:
    """One entry of a section. cuts: expressions. other: the cuts that do not use the entry's branch. differences: what
    the original did with this entry."""

    name: str
    place: str
    jagged: bool
    definition: Expression | None
    cuts: tuple[str, ...]
    removed: tuple[str, ...]
    other: tuple[str, ...]
    differences: tuple[str, ...]


def preprocessing_of(values: Mapping[str, Any], place: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the preprocessing of a preproc.json, and notes for the user. place: the file, for messages.

    A cut is named by its expression. Cuts are in the original's order: on flat branches, then on jagged ones. New
    branches are ordered so that each uses only those before it. Raises: RequestError naming section, entry and key.
    """
    check_keys(values, SECTIONS, place)
    entries = [entry for section in SECTIONS for entry in _entries(values, section, place)]
    cuts = [
        unnamed_cut(cut)
        for jagged in (False, True)
        for entry in entries
        if entry.jagged is jagged
        for cut in entry.cuts
    ]
    preprocessing = Preprocessing(
        new=_new_branches(entries, place),
        cuts=tuple(dict.fromkeys(cuts)),
        removed=tuple(dict.fromkeys(name for entry in entries for name in entry.removed)),
    )
    return checked(preprocessing, place), tuple(_notes(entries, place))


def _entries(values: Mapping[str, Any], section: str, place: str) -> Iterator[_Entry]:
    takes = "an object of branches and what happens to them"
    entries = an_object(values.get(section, {}), f"{place}: {section}", takes)
    has_jagged_cuts = bool(values.get("jagged_cut"))
    for name, fields in entries.items():
        entry_place = f"{place}: {section} '{shown(name[:100])}'"
        entry = an_object(fields, entry_place, "an object with the keys cut and remove")
        if section == "new_branch":
            yield _new_entry(name, entry, entry_place, has_jagged_cuts)
        else:
            yield _cut_entry(name, entry, entry_place, section == "jagged_cut")


def _cut_entry(name: str, fields: Mapping[str, Any], place: str, jagged: bool) -> _Entry:
    keys = _cut_keys(fields)
    check_keys([key for key in fields if key not in keys], ("cut", "remove"), place)
    ignored = set(list(fields)[: len(keys)]) != set(keys)
    return _entry(name, fields, place, jagged=jagged, differences=(_IGNORED,) if ignored else ())


def _new_entry(name: str, fields: Mapping[str, Any], place: str, has_jagged_cuts: bool) -> _Entry:
    keys = _cut_keys(fields)
    known = ("def", "type", "cut", "remove", "keys_to_remove")
    check_keys([key for key in fields if key not in keys], known, place)
    check_name(name, place)
    for key, takes in (("def", "an expression"), ("type", '"flat" or "jagged"')):
        if key not in fields:
            raise RequestError(f"{place} has no '{key}'; add it: {takes}")
    if fields["type"] not in ("flat", "jagged"):
        raise wrong(f"{place}: 'type'", fields["type"], '"flat" or "jagged"')
    jagged = fields["type"] == "jagged"
    return _entry(
        name,
        fields,
        place,
        jagged=jagged,
        definition=an_expression(fields["def"], f"{place}: 'def'"),
        differences=(_UNAPPLIED,) if jagged and keys and not has_jagged_cuts else (),
    )


def _entry(
    name: str,
    fields: Mapping[str, Any],
    place: str,
    *,
    jagged: bool,
    differences: Sequence[str],
    definition: Expression | None = None,
) -> _Entry:
    a_short_name(name, place)
    removes = a_flag(fields.get("remove", False), f"{place}: 'remove'")
    sources = texts(fields.get("keys_to_remove", []), f"{place}: 'keys_to_remove'", "a list of branch names")
    conditions = [_condition(fields[key], jagged, f"{place}: '{key}'") for key in _cut_keys(fields)]
    not_text = (_NOT_TEXT,) if removes and fields["remove"] != "True" else ()
    turned = (_TURNED,) if not jagged and any(_TURNED_RANGE.match(part.text) for part, _ in conditions) else ()
    return _Entry(
        name=name,
        place=place,
        jagged=jagged,
        definition=definition,
        cuts=tuple(cut for _, cut in conditions),
        removed=(*(a_short_name(source, place) for source in sources), *([name] if removes else [])),
        other=tuple(cut for part, cut in conditions if name not in part.names),
        differences=(*differences, *not_text, *turned),
    )


def _cut_keys(fields: Iterable[str]) -> list[str]:
    """Return the keys of cuts by their number: 'cut', 'cut_1', 'cut_2', …, and any other that begins with 'cut'."""

    def rank(key: str) -> tuple[bool, int, str]:
        number = _NUMBERED.fullmatch(key)
        return number is None, int(number[1] or 0) if number else 0, key

    return sorted((key for key in fields if key.startswith("cut")), key=rank)


def _condition(value: Any, jagged: bool, place: str) -> tuple[Expression, str]:
    """Return the condition of a cut as it is written, and the text of the cut."""
    if not jagged:
        condition = an_expression(value, place)
        return condition, condition.text
    takes = 'a list of a condition and the word "all" or "any"'
    if not isinstance(value, list) or len(value) != 2:
        raise wrong(place, value, takes)
    word = a_text(value[1], place, takes)
    if word not in ("all", "any"):
        raise wrong(place, value[1], '"all" (each value passes) or "any" (at least one value passes) as second item')
    condition = an_expression(value[0], place)
    return condition, parse(f"{word}({condition.text})", place).text


def _new_branches(entries: Sequence[_Entry], place: str) -> tuple[NewBranch, ...]:
    """Return the new branches, each after those that it uses."""
    new = {entry.name: (entry.definition, entry.jagged) for entry in entries if entry.definition}
    uses = {name: definition.names & new.keys() for name, (definition, _) in new.items()}
    try:
        order = list(TopologicalSorter(uses).static_order())
    except CycleError as error:
        circle = " → ".join(f"'{name}'" for name in reversed(error.args[1][-10:]))
        raise RequestError(
            f"{place}: new_branch: each of these uses the next: {circle}; define one without it"
        ) from error
    return tuple(NewBranch(name, new[name][0].text, new[name][1]) for name in order)


def _notes(entries: Sequence[_Entry], place: str) -> Iterator[str]:
    for difference in (_IGNORED, _NOT_TEXT, _TURNED, _UNAPPLIED):
        if names := [entry.place.removeprefix(f"{place}: ") for entry in entries if difference in entry.differences]:
            yield f"{place}: {_listed(names)}: MLaaS4HEP {difference}"
    other = [f"{entry.place.removeprefix(f'{place}: ')}: {cut}" for entry in entries for cut in entry.other]
    if other:
        yield f"{place}: {_listed(other)}: the cut does not use the branch of its entry; it applies as written"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
