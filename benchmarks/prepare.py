"""From ROOT to the matrix, in memory and stored, against a bare uproot read of the same branches and ranges."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import uproot
from hepfaas.datasets.branch_choice import choose_branches
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.features.branches import survey_of, total
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import FeatureSpec
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import steps
from hepfaas.steps import prepare, spec
from hepfaas.steps.objects import encoded, result_of
from measured import CACHE, Ratio, in_turn, seconds
from sample import multiplied

EVENTS, CLUSTER, RANGE, SURVEYED = 200_000, 1_000, 10_000, 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file with its ranges and spec, in a store."""

    url: str
    identity: str
    names: list[str]
    ranges: tuple[EntryRange, ...]
    spec: FeatureSpec
    columns: str
    raw_bytes: int
    store: Store


def case(path: Path, store: Store) -> Case:
    """Return the case of a file; its spec comes from the first ranges, since all of them repeat the sample's events."""
    file = opened(str(path), "Events")
    choice = choose_branches(file.place, file.branches)
    names = [branch.name for branch in choice.features]
    ranges = planned(file.baskets(names), file.entries, RANGE)
    arrays = (read(file.url, file.identity, "Events", branches=names, entries=entries) for entries in ranges[:SURVEYED])
    surveys = [survey_of(file.identity, branches, len(branches[names[0]])) for branches in arrays]
    key = steps.Sum("survey", ("all",)).key
    store.create(key, encoded(total(surveys).to_json()))
    step = steps.Spec(
        survey=key, branches=tuple(names), identifiers=choice.identifiers, order="sorted", surplus="truncate"
    )
    spec.perform(step, store)
    columns = result_of(step.key, store)["columns"]
    layout = FeatureSpec.from_json(json.loads(store.get(columns)))
    raw = sum(branch.size_bytes for branch in choice.features)
    return Case(
        url=file.url,
        identity=file.identity,
        names=names,
        ranges=ranges,
        spec=layout,
        columns=columns,
        raw_bytes=raw,
        store=store,
    )


def measure() -> list[Ratio]:
    """Make all comparisons."""
    folder = CACHE / "prepare"
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(str(folder))
    small = case(multiplied(EVENTS, CLUSTER), store)
    large = case(multiplied(EVENTS, 10 * RANGE), store)
    runs = itertools.count()
    taken = in_turn(
        5,
        bare=lambda: seconds(lambda: bare(small)),
        matrix=lambda: seconds(lambda: to_matrix(small)),
        stored=lambda: seconds(lambda: to_store(small, next(runs))),
        large=lambda: seconds(lambda: to_matrix(large)),
    )
    sizes = [store.size_bytes(key) or 0 for key in store.keys("steps/prepare/")]
    stored_bytes = sum(sizes) / (len(sizes) / len(small.ranges))
    shutil.rmtree(folder)
    rate = f"{EVENTS / taken['matrix']:,.0f} events/s, {small.spec.n_features} features"
    return [
        Ratio("ROOT to matrix", "a bare uproot read", taken["bare"] / taken["matrix"], ">= 0.70", detail=rate),
        Ratio("ROOT to stored part", "a bare uproot read", taken["bare"] / taken["stored"], ">= 0.45"),
        Ratio("baskets ten times the range", "ROOT to matrix", taken["matrix"] / taken["large"], ">= 0.80"),
        Ratio("bytes of stored parts", "branches uncompressed in ROOT", stored_bytes / small.raw_bytes, "<= 1.50"),
    ]


def bare(case: Case) -> None:
    """Read the branches as arrays, range by range, as any reader must."""
    with uproot.open({case.url: "Events"}, handler=uproot.MemmapSource) as tree:
        for entries in case.ranges:
            tree.arrays(
                case.names, entry_start=entries.start, entry_stop=entries.stop, library="ak", how=dict, array_cache=None
            )


def to_matrix(case: Case) -> None:
    """Read the branches and build the matrix, as prepare and predict do."""
    for entries in case.ranges:
        matrix(read(case.url, case.identity, "Events", branches=case.names, entries=entries), case.spec)


def to_store(one: Case, run: int) -> None:
    """Whole prepare steps, with storing. Each round has another label, so that no result is reused."""
    for found in one.ranges:
        step = steps.Prepare(
            file=one.identity,
            tree="Events",
            entries=tuple(found),
            spec=one.columns,
            label=run,
            split_seed=21,
            url=one.url,
        )
        prepare.perform(step, one.store)
