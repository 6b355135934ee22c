"""From ROOT to the matrix, alone and stored, against a bare uproot read of the same branches over the same ranges."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import uproot
from hepfaas.datasets.branch_choice import choose_branches
from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.datasets.root import opened, read
from hepfaas.features.branches import survey_of, total
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import Spec
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import steps
from hepfaas.steps import prepare, spec
from hepfaas.steps.objects import encoded, result_of
from measured import CACHE, Ratio, in_turn, seconds
from sample import multiplied

EVENTS, CLUSTER, RANGE, SURVEYED = 200_000, 1_000, 10_000, 5


@dataclass(frozen=True)
class Case:
    """A file, its ranges and the spec of its events, in a store."""

    url: str
    identity: str
    names: list[str]
    ranges: tuple[EntryRange, ...]
    spec: Spec
    columns: str
    raw_bytes: int
    store: Store


def case(path: Path, store: Store) -> Case:
    """A spec from the first of its ranges: the sample's 5,000 events, which all of them repeat."""
    file = opened(str(path), "Events")
    choice = choose_branches(file.place, file.branches)
    names = [branch.name for branch in choice.features]
    ranges = planned(file.baskets(names), file.entries, RANGE)
    arrays = (read(file.url, file.identity, "Events", branches=names, entries=found) for found in ranges[:SURVEYED])
    surveys = [survey_of(file.identity, some, len(some[names[0]])) for some in arrays]
    key = steps.Sum("survey", ("all",)).key
    store.create(key, encoded(total(surveys).to_json()))
    step = steps.Spec(key, tuple(names), choice.identifiers, "sorted", "truncate")
    spec.perform(step, store)
    columns = result_of(step.key, store)["columns"]
    found_spec = Spec.from_json(json.loads(store.get(columns)))
    raw = sum(branch.size_bytes for branch in choice.features)
    return Case(file.url, file.identity, names, ranges, found_spec, columns, raw, store)


def measure() -> list[Ratio]:
    """All comparisons."""
    folder = CACHE / "prepare"
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(str(folder))
    small = case(multiplied(EVENTS, CLUSTER), store)
    large = case(multiplied(EVENTS, 10 * RANGE), store)
    runs = itertools.count()
    found = in_turn(
        5,
        bare=lambda: seconds(lambda: bare(small)),
        matrix=lambda: seconds(lambda: to_matrix(small)),
        stored=lambda: seconds(lambda: to_store(small, next(runs))),
        large=lambda: seconds(lambda: to_matrix(large)),
    )
    sizes = [store.size_bytes(key) or 0 for key in store.keys("steps/prepare/")]
    stored_bytes = sum(sizes) / (len(sizes) / len(small.ranges))
    shutil.rmtree(folder)
    rate = f"{EVENTS / found['matrix']:,.0f} events/s, {small.spec.n_features} features"
    return [
        Ratio("ROOT to matrix", "a bare uproot read", found["bare"] / found["matrix"], ">= 0.70", rate),
        Ratio("ROOT to stored part", "a bare uproot read", found["bare"] / found["stored"], ">= 0.45"),
        Ratio("baskets ten times the range", "ROOT to matrix", found["matrix"] / found["large"], ">= 0.80"),
        Ratio("bytes of stored parts", "branches uncompressed in ROOT", stored_bytes / small.raw_bytes, "<= 1.50"),
    ]


def bare(one: Case) -> None:
    """What any reader must do: the branches as arrays, range after range."""
    with uproot.open({one.url: "Events"}, handler=uproot.MemmapSource) as tree:
        for found in one.ranges:
            tree.arrays(
                one.names, entry_start=found.start, entry_stop=found.stop, library="ak", how=dict, array_cache=None
            )


def to_matrix(one: Case) -> None:
    """Reading and building the matrix, as prepare and predict do."""
    for found in one.ranges:
        matrix(read(one.url, one.identity, "Events", branches=one.names, entries=found), one.spec)


def to_store(one: Case, run: int) -> None:
    """Whole prepare steps, stored; another label each time, so that none is there."""
    for found in one.ranges:
        step = steps.Prepare(one.identity, "Events", tuple(found), one.columns, run, 21, one.url)
        prepare.perform(step, one.store)
