"""Reading RNTuples range by range, against uproot's own `arrays()` in a plain loop over the same ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import uproot
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange, planned
from measured import Ratio, in_turn, seconds
from sample import multiplied

EVENTS, RANGE = 200_000, 10_000


@dataclass(frozen=True)
class Case:
    """A file with its ranges and all its branches of numbers."""

    url: str
    identity: str
    names: list[str]
    ranges: tuple[EntryRange, ...]


def case(path: Path) -> Case:
    """Return the case of a file."""
    file = opened(str(path), "Events")
    names = [branch.name for branch in file.branches]
    return Case(file.url, file.identity, names, tuple(planned(file.baskets(names), file.entries, RANGE)))


def measure() -> list[Ratio]:
    """Make all comparisons."""
    small, large = (case(multiplied(EVENTS, cluster, ntuple=True)) for cluster in (RANGE, 10 * RANGE))
    tree = case(multiplied(EVENTS, RANGE))
    taken = in_turn(
        5,
        bare=lambda: seconds(lambda: bare(small)),
        ours=lambda: seconds(lambda: ours(small)),
        bare_large=lambda: seconds(lambda: bare(large)),
        large=lambda: seconds(lambda: ours(large)),
        tree=lambda: seconds(lambda: ours(tree)),
    )
    rate, loop = f"{EVENTS / taken['ours']:,.0f} events/s, {len(small.names)} branches", "uproot's arrays() in a loop"
    return [
        Ratio("reading an RNTuple", loop, taken["bare"] / taken["ours"], ">= 0.70", detail=rate),
        Ratio("clusters ten times the range", loop, taken["bare_large"] / taken["large"], ">= 0.70"),
        Ratio("reading an RNTuple", "reading a TTree of these events", taken["tree"] / taken["ours"], ">= 0.70"),
    ]


def bare(case: Case) -> None:
    """Read all fields as arrays, range by range, as any reader must."""
    with uproot.open({case.url: "Events"}, handler=uproot.MemmapSource) as ntuple:
        for entries in case.ranges:
            ntuple.arrays(entry_start=entries.start, entry_stop=entries.stop, library="ak", array_cache=None)


def ours(case: Case) -> None:
    """Read all branches, range by range, as steps do."""
    for entries in case.ranges:
        read(case.url, case.identity, "Events", branches=case.names, entries=entries)
