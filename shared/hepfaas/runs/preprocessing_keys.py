"""Keys of params.json for selection and new branches, and the limits of a `Preprocessing`. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import Expression, parse
from hepfaas.expressions.grammar import shown
from hepfaas.expressions.patterns import check_patterns
from hepfaas.runs.json_values import a_text, an_object, is_number, texts, wrong
from hepfaas.runs.preprocessing import Cut, Missing, NewBranch, ObjectCut, Preprocessing

KEYS = ("missing", "objects", "new_branches", "cuts", "remove")

MOST_ENTRIES, MOST_CUTS, MOST_MISSING, MOST_NAME = 1_000, 255, 100, 200
"""Limits of a preprocessing: entries, cuts (one byte per event stores the number of a cut), and values that stand for
missing ones; characters of a name."""

MOST_CHARACTERS = 64_000
"""Maximum characters of all names and expressions of a preprocessing, since each step of a run contains them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def preprocessing_from(values: Mapping[str, Any], place: str) -> Preprocessing:
    """Return the preprocessing of the keys `KEYS`; others are ignored. place: the file, for messages.

    missing: a number for all branches, or an object of patterns and numbers. objects: an object of collections and
    conditions. new_branches: an object of names and expressions, each of which may use those before it. cuts: a list of
    conditions, or an object of names and conditions. remove: a list of names or patterns. Raises: RequestError.
    """

    def value(key: str, default: Any) -> tuple[Any, str]:
        return values.get(key, default), f"{place}: '{key}'"

    preprocessing = Preprocessing(
        missing=tuple(_missing(*value("missing", {}))),
        objects=tuple(ObjectCut(*item) for item in _named(*value("objects", {}))),
        new=tuple(NewBranch(*item) for item in _named(*value("new_branches", {}))),
        cuts=tuple(dict.fromkeys(_cuts(*value("cuts", [])))),
        removed=tuple(a_short_name(name, place) for name in texts(*value("remove", []), "a list of names or patterns")),
    )
    return checked(preprocessing, place)


def joined(first: Preprocessing, second: Preprocessing, place: str) -> Preprocessing:
    """Return the preprocessing that does what both do; entries of the first come first, and what both have is kept
    once. place: both files, for messages. Raises: RequestError if they contradict each other."""
    return checked(
        Preprocessing(
            missing=tuple(dict.fromkeys(first.missing + second.missing)),
            objects=tuple(dict.fromkeys(first.objects + second.objects)),
            new=first.new + second.new,
            cuts=tuple(dict.fromkeys(first.cuts + second.cuts)),
            removed=tuple(dict.fromkeys(first.removed + second.removed)),
        ),
        place,
    )


def checked(preprocessing: Preprocessing, place: str) -> Preprocessing:
    """Return the preprocessing. Raises: RequestError if it has too many entries, a name twice, or a missing value
    of a new branch."""
    parts = (preprocessing.missing, preprocessing.objects, preprocessing.new, preprocessing.cuts, preprocessing.removed)
    if (entries := sum(map(len, parts))) > MOST_ENTRIES:
        raise RequestError(f"{place}: {entries:,} cuts, new branches and other entries; at most {MOST_ENTRIES:,}")
    if len(preprocessing.cuts) > MOST_CUTS:
        raise RequestError(f"{place}: {len(preprocessing.cuts):,} cuts; at most {MOST_CUTS}; join some by 'and'")
    if (missing := len(preprocessing.missing)) > MOST_MISSING:
        raise RequestError(f"{place}: 'missing' has {missing:,} patterns and values; at most {MOST_MISSING}")
    if (characters := _characters(preprocessing)) > MOST_CHARACTERS:
        raise RequestError(
            f"{place}: the names and expressions of cuts, new branches and other entries have {characters:,} "
            f"characters; at most {MOST_CHARACTERS:,}"
        )
    check_patterns(preprocessing.removed, f"{place}: 'remove'")
    _check_unique("new branches", (branch.name for branch in preprocessing.new), place)
    _check_unique("cuts", (cut.name for cut in preprocessing.cuts), place)
    computed = {branch.name for branch in preprocessing.new}
    if declared := [missing.pattern for missing in preprocessing.missing if missing.pattern in computed]:
        raise RequestError(
            f"{place}: 'missing' names the new branch '{declared[0]}'; declare the value for the branches that "
            f"'{declared[0]}' is computed from"
        )
    return preprocessing


def _characters(preprocessing: Preprocessing) -> int:
    parts = [
        *(text for item in preprocessing.objects for text in (item.collection, item.expression)),
        *(text for new in preprocessing.new for text in (new.name, new.expression)),
        *(text for cut in preprocessing.cuts for text in (cut.name, cut.expression)),
        *preprocessing.removed,
    ]
    return sum(map(len, parts))


def unnamed_cut(text: str) -> Cut:
    """Return a cut whose name is its text."""
    return Cut(shown(text), text)


def check_name(name: str, place: str) -> None:
    """Raise RequestError if a name cannot be used in an expression."""
    if len(name) > MOST_NAME or not _NAME.fullmatch(name):
        raise RequestError(
            f"{place}: the name '{shown(name[:100])}' cannot be used in expressions; a name has letters, digits and "
            f"'_', does not begin with a digit, and has at most {MOST_NAME} characters"
        )
    parse(name, f"{place}: the name")


def an_expression(value: Any, place: str) -> Expression:
    """Return the expression in a text. Raises: RequestError."""
    return parse(a_text(value, place, "an expression"), place)


def a_short_name(name: str, place: str) -> str:
    """Return a name or pattern. Raises: RequestError if it is too long."""
    if len(name) > MOST_NAME:
        raise RequestError(f"{place}: '{shown(name[:50])}…' has {len(name):,} characters; at most {MOST_NAME}")
    return name


def _check_unique(what: str, names: Iterable[str], place: str) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise RequestError(f"{place}: {times} {what} have the name '{shown(name[:100])}'; rename one")


def _missing(value: Any, place: str) -> Iterator[Missing]:
    takes = "a number, or an object of patterns of branch names and numbers"
    everywhere = isinstance(value, list) or is_number(value)
    for pattern, numbers in ({"*": value} if everywhere else an_object(value, place, takes)).items():
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if not is_number(number):
                raise wrong(f"{place}: '{shown(pattern[:100])}'", number, "a number or a list of numbers")
            yield Missing(a_short_name(pattern, place), float(number))


def _named(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Return names and expressions."""
    for name, text in an_object(value, place, "an object of names and expressions").items():
        check_name(name, place)
        yield name, an_expression(text, f"{place}: '{name}'").text


def _cuts(value: Any, place: str) -> Iterator[Cut]:
    if isinstance(value, list):
        for number, text in enumerate(value, 1):
            yield unnamed_cut(an_expression(text, f"{place}: item {number}").text)
        return
    for name, text in an_object(value, place, "a list of conditions, or an object of names and conditions").items():
        yield Cut(
            a_short_name(a_text(name, f"{place}: the name of a cut", "text"), place),
            an_expression(text, f"{place}: '{shown(name[:100])}'").text,
        )
