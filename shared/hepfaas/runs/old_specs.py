"""Files of ranges that MLaaS4HEP wrote, specs-<file>.json and global-specs.json, as they are read. Pure.

The global form has the number of events of each file, the form of one file has not. `nans`, the feature of the value 0,
is not used, as in MLaaS4HEP. features/old_specs.py compares the ranges with those of the files, and writes these forms.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs.json_values import an_object, check_keys, is_number, texts, whole, wrong

NOTHING_SEEN = 1e15
"""Limits of a branch without a value: from this to its negative, or in later versions the other way round."""

MOST_WIDTH = 100_000
"""Values in an event of one jagged branch, and of all of them together."""

MOST_NAMED = 5
"""Branches and files that a message names."""

LARGEST_EXACT = 2**53

_KEYS = ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans", "events")
_TOTAL = "total"


@dataclass(frozen=True)
class OldRange:
    """A branch in a file of ranges. low, high: both None if no value was seen. width: most values in one event, 1 if it
    is flat."""

    name: str
    jagged: bool
    low: float | None
    high: float | None
    width: int


@dataclass(frozen=True)
class OldSpecs:
    """The content of a file of ranges. place: its name, '' where a run has none. events: of each file, by its name in
    the form of all files; () in the form of one file."""

    place: str = ""
    branches: tuple[OldRange, ...] = ()
    events: tuple[tuple[str, int], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.place)

    @property
    def text(self) -> str:
        """JSON text, equal for equal values; '' if there are none."""
        return json.dumps(asdict(self), sort_keys=True) if self else ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OldSpecs:
        """Return the content from its fields as JSON values."""
        branches = tuple(OldRange(**branch) for branch in values.get("branches", ()))
        return cls(values.get("place", ""), branches, tuple((name, count) for name, count in values.get("events", ())))

    @classmethod
    def from_text(cls, text: str) -> OldSpecs:
        """Return the content of `text`."""
        return cls.from_json(json.loads(text)) if text else cls()


NO_SPECS = OldSpecs()


def is_old_specs(name: str) -> bool:
    """Return whether a file has a name that MLaaS4HEP gave to its files of ranges."""
    return name == "global-specs.json" or (name.startswith("specs-") and name.endswith(".json") and "/" not in name)


def old_specs_of(values: Mapping[str, Any], place: str) -> tuple[OldSpecs, tuple[str, ...]]:
    """Return the content of a file of ranges, and notes on it. Raises: RequestError naming key and value."""
    check_keys(values, _KEYS, place)
    for key in ("minv", "maxv", "fkeys", "jkeys"):
        if key not in values:
            raise RequestError(f"{place} has no '{key}'; a file of ranges of MLaaS4HEP has {', '.join(_KEYS[:5])}")
    flat, jagged = (texts(values[key], f"{place}: '{key}'", "a list of branch names") for key in ("fkeys", "jkeys"))
    lows, highs, widths = (
        an_object(values.get(key, {}), f"{place}: '{key}'", "an object from branch to number")
        for key in ("minv", "maxv", "jdim")
    )
    names = [*flat, *jagged]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise RequestError(f"{place} has branch '{twice[0][:100]}' twice in 'fkeys' and 'jkeys'")
    branches = [
        *(OldRange(name, False, *_range(name, lows, highs, place), 1) for name in flat),
        *(OldRange(name, True, *_range(name, lows, highs, place), _width(name, widths, place)) for name in jagged),
    ]
    if (width := sum(branch.width for branch in branches)) > MOST_WIDTH:
        raise RequestError(f"{place}: 'jdim' gives {width:,} features together; at most {MOST_WIDTH:,}")
    unseen = [name for name in names if lows.get(name) == -NOTHING_SEEN and highs.get(name) == NOTHING_SEEN]
    notes = [f"{place} has no range of {listed(unseen)}: that of the files is used"] if unseen else []
    return OldSpecs(place, tuple(branches), _events(values.get("events", {}), place)), tuple(notes)


def listed(names: Sequence[str]) -> str:
    """Return some of the names, for a message."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(f"'{name[:100]}'" for name in names[:MOST_NAMED]) + more


def check_branches(specs: OldSpecs, features: Mapping[str, bool], others: Sequence[str] | None, url: str) -> None:
    """Raise RequestError naming the branches in which a file of ranges differs from the run.

    features: name of each, and whether it is jagged. others: further branches of the file; None if some are excluded.
    """
    known = {branch.name: branch for branch in specs.branches}
    if missing := [name for name in features if name not in known]:
        raise RequestError(
            f"{specs.place} has no range of {listed(missing)} of '{url}'; exclude the branches, or leave out 'specs' "
            "to take all ranges from the files"
        )
    for name, is_jagged in features.items():
        if known[name].jagged != is_jagged:
            kinds = ("jagged", "flat") if is_jagged else ("flat", "jagged")
            raise RequestError(f"branch '{name}' is {kinds[0]} in '{url}' and {kinds[1]} in {specs.place}")
    if others is not None and (absent := [name for name in known if name not in features and name not in others]):
        raise RequestError(f"{specs.place} has {listed(absent)}, and '{url}' has no such branch; it is of other files")


def check_events(specs: OldSpecs, entries: Mapping[str, int], selects: bool) -> None:
    """Raise RequestError naming the files whose number of events differs.

    entries: of each file of the run, by its address. selects: the run has cuts, after which MLaaS4HEP counted.
    """
    if not specs.events:
        return
    counts = dict(specs.events)
    by_last: dict[str, list[str]] = {}
    for name in counts:
        by_last.setdefault(PurePosixPath(name).name, []).append(name)
    left = set(counts)
    for url, actual in entries.items():
        same_last = by_last.get(PurePosixPath(url).name, [])
        name = url if url in counts else same_last[0] if len(same_last) == 1 else ""
        if name not in left:
            raise RequestError(f"{specs.place} counts events of {listed(list(counts))}, and '{url}' is not among them")
        left.remove(name)
        if counts[name] > actual or (counts[name] < actual and not selects):
            raise RequestError(f"{specs.place} counts {counts[name]:,} events in '{name}', and '{url}' has {actual:,}")
    if left:
        raise RequestError(f"{specs.place} counts events of {listed(sorted(left))}, which the run does not read")


def _range(name: str, lows: Mapping[str, Any], highs: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    if name not in lows and name not in highs:
        return None, None
    ends = []
    for key, values in (("minv", lows), ("maxv", highs)):
        value: Any = values.get(name)
        if not is_number(value):
            raise wrong(f"{place}: '{key}': '{name[:100]}'", value, "a number")
        ends.append(value if isinstance(value, int) and abs(value) > LARGEST_EXACT else float(value))
    low, high = ends
    if {low, high} == {NOTHING_SEEN, -NOTHING_SEEN}:
        return None, None
    if low > high:
        raise RequestError(f"{place}: the range of '{name[:100]}' is {low:g} to {high:g}; 'minv' is above 'maxv'")
    return low, high


def _width(name: str, widths: Mapping[str, Any], place: str) -> int:
    if name not in widths:
        raise RequestError(f"{place}: 'jdim' has no '{name[:100]}', which is in 'jkeys'")
    return whole(0, MOST_WIDTH)(widths[name], f"{place}: 'jdim': '{name[:100]}'")


def _events(value: Any, place: str) -> tuple[tuple[str, int], ...]:
    counts = an_object(value, f"{place}: 'events'", "an object from file to number of events")
    numbers = {name: whole(0)(count, f"{place}: 'events': '{name[:100]}'") for name, count in counts.items()}
    total, found = numbers.pop(_TOTAL, None), sum(numbers.values())
    if total is not None and total != found:
        raise RequestError(f"{place}: 'events' has a total of {total:,}, and its files have {found:,}")
    return tuple(numbers.items())
