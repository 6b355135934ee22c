"""Ten cuts and five new variables, in whole prepare steps and on arrays in memory, against the script that a physicist
would write with uproot, awkward, vector and NumPy. The script keeps its matrix in memory; a step stores it."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
import vector
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.features.preprocess import inputs_of, preprocessed
from hepfaas.features.spec import FeatureSpec
from hepfaas.features.vectors import vectors_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import steps
from hepfaas.runs.preprocessing import Preprocessing
from hepfaas.runs.preprocessing_keys import preprocessing_from
from hepfaas.steps import prepare, spec, survey
from hepfaas.steps import sum as sums
from hepfaas.steps.objects import result_of
from measured import CACHE, Ratio
from numpy.typing import NDArray
from sample import multiplied

EVENTS, CLUSTER, RANGE, ROUNDS = 200_000, 20_000, 100_000, 7
BRANCHES = [
    *("MET_pt", "MET_phi", "PV_npvs", "nJet", "nMuon", "nTau"),
    *(f"{name}_{part}" for name in ("Jet", "Muon", "Tau") for part in ("pt", "eta", "phi", "mass")),
    "Jet_btagDeepB",
]
PREPROCESSING = {
    "new_branches": {
        "ht": "sum(Jet_pt[Jet_pt > 30])",
        "m_tautau": "mass(Tau[0], Tau[1])",
        "best_btag": "max(Jet_btagDeepB)",
        "mt_tau": "sqrt(2 * Tau_pt[0] * MET_pt * (1 - cos(Tau_phi[0] - MET_phi)))",
        "Jet_log": "log(Jet_pt)",
    },
    "cuts": [
        *("nJet >= 1", "nTau >= 1", "MET_pt > 5", "PV_npvs >= 3", "ht > 10", "m_tautau > 5 or nMuon > 0"),
        *("any(abs(Jet_eta) < 2.4)", "all(Tau_pt > 10)", "Tau_pt[0] < 300", "mt_tau < 250"),
    ],
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file with its ranges, and the spec of its vectors. inputs: the branches that are read."""

    path: Path
    identity: str
    inputs: list[str]
    ranges: tuple[EntryRange, ...]
    spec: FeatureSpec
    columns: str
    store: Store

    def read(self, entries: EntryRange) -> Mapping[str, Any]:
        """Return the branches of a range as steps read them."""
        return read(str(self.path), self.identity, "Events", branches=self.inputs, entries=entries)


def case(path: Path, store: Store) -> Case:
    """Return the case of a file; the ranges of its features come from all events."""
    preprocessing: Preprocessing = preprocessing_from(PREPROCESSING, "benchmark")
    file = opened(str(path), "Events")
    new = [branch.name for branch in preprocessing.new]
    inputs = list(inputs_of(preprocessing, [*BRANCHES, *new], [branch.name for branch in file.branches]))
    ranges = planned(file.baskets(inputs), file.entries, RANGE)
    surveys = [
        steps.Survey(
            file=file.identity,
            tree="Events",
            branches=(*BRANCHES, *new),
            entries=tuple(entries),
            inputs=tuple(inputs),
            preprocessing=preprocessing.text,
            url=file.url,
        )
        for entries in ranges
    ]
    for step in surveys:
        survey.perform(step, store)
    total = steps.Sum("survey", tuple(step.key for step in surveys))
    sums.perform(total, store)
    step = steps.Spec(
        survey=total.key,
        branches=(*BRANCHES, *new),
        identifiers=(),
        order="sorted",
        surplus="truncate",
        inputs=tuple(inputs),
        preprocessing=preprocessing.text,
    )
    spec.perform(step, store)
    columns = result_of(step.key, store)["columns"]
    layout = FeatureSpec.from_json(json.loads(store.get(columns)))
    return Case(
        path=path,
        identity=file.identity,
        inputs=inputs,
        ranges=ranges,
        spec=layout,
        columns=columns,
        store=store,
    )


def measure() -> list[Ratio]:
    """Make all comparisons."""
    vector.register_awkward()
    folder = CACHE / "preprocess"
    shutil.rmtree(folder, ignore_errors=True)
    one = case(multiplied(EVENTS, CLUSTER), open_store(str(folder)))
    runs = itertools.count()
    check(one)
    ours = [one.read(entries) for entries in one.ranges]
    theirs = [_plain_read(tree, one, entries) for tree in (_tree(one),) for entries in one.ranges]
    taken = in_turn(
        steps=lambda: to_store(one, next(runs)),
        script=lambda: script(one),
        expressions=lambda: [preprocessed(arrays, one.spec.preprocessing) for arrays in ours],
        awkward=lambda: [selection(arrays, variables(arrays)) for arrays in theirs],
    )
    rate = f"{EVENTS / taken['steps'][0]:,.0f} events/s; processor {_ratio(taken, 'script', 'steps', 1):.2f}"
    alone = (
        f"{EVENTS / taken['expressions'][0]:,.0f} events/s; processor {_ratio(taken, 'awkward', 'expressions', 1):.2f}"
    )
    shutil.rmtree(folder)
    return [
        Ratio(
            "ROOT to stored part with 10 cuts and 5 new branches",
            "a script with uproot, awkward and vector",
            _ratio(taken, "script", "steps", 0),
            ">= 0.60",
            detail=rate,
        ),
        Ratio(
            "10 cuts and 5 new branches in memory",
            "the same in awkward and vector",
            _ratio(taken, "awkward", "expressions", 0),
            ">= 0.60",
            detail=alone,
        ),
    ]


Taken = Mapping[str, tuple[float, float]]


def _ratio(taken: Taken, rival: str, subject: str, clock: int) -> float:
    return taken[rival][clock] / taken[subject][clock]


def in_turn(**rivals: Callable[[], object]) -> Taken:
    """Return the median seconds of each rival, by the wall clock and of the processor, over rounds of all rivals."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for number in range(ROUNDS + 1):
        for name, call in rivals.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            if number:
                times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (statistics.median(wall for wall, _ in taken), statistics.median(processor for _, processor in taken))
        for name, taken in times.items()
    }


def to_store(one: Case, run: int) -> None:
    """Whole prepare steps, with storing. Each round has another label, so that no result is reused."""
    for entries in one.ranges:
        step = steps.Prepare(
            file=one.identity,
            tree="Events",
            entries=tuple(entries),
            spec=one.columns,
            label=run,
            split_seed=21,
            url=str(one.path),
        )
        prepare.perform(step, one.store)


def check(one: Case) -> None:
    """Compare the two matrices. Raises: AssertionError if they differ."""
    for entries, theirs in zip(one.ranges, script(one), strict=True):
        ours = vectors_of(one.read(entries), one.spec).features
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def _tree(one: Case) -> Any:
    return uproot.open({str(one.path): "Events"}, handler=uproot.MemmapSource)


def _plain_read(tree: Any, one: Case, entries: EntryRange) -> dict[str, Any]:
    arrays: dict[str, Any] = tree.arrays(
        one.inputs, entry_start=entries.start, entry_stop=entries.stop, library="ak", how=dict, array_cache=None
    )
    return arrays


def script(one: Case) -> list[NDArray[np.float32]]:
    """Return the matrix of each range, as a script makes it: read, variables, cuts, scaled and padded columns."""
    matrices = []
    with _tree(one) as tree:
        for entries in one.ranges:
            arrays = _plain_read(tree, one, entries)
            arrays |= variables(arrays)
            selected = selection(arrays, arrays)
            columns = []
            for branch in one.spec.branches:
                values = arrays[branch.name][selected]
                if branch.jagged:
                    padded = ak.pad_none(values, branch.width, axis=1, clip=True)
                    columns.append(_scaled(ak.to_numpy(ak.fill_none(padded, np.nan)), branch))
                else:
                    columns.append(_scaled(ak.to_numpy(values)[:, np.newaxis], branch))
            matrices.append(np.concatenate(columns, axis=1))
    return matrices


def _scaled(values: NDArray[Any], branch: Any) -> NDArray[np.float32]:
    scaled = (values - branch.low) / (branch.high - branch.low) if branch.high > branch.low else values
    return np.nan_to_num(scaled.astype(np.float32), copy=False, nan=0, posinf=0, neginf=0)


def variables(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new branches of `PREPROCESSING`, in awkward and vector."""
    jets = arrays["Jet_pt"]
    parts = {part: arrays[f"Tau_{part}"] for part in ("pt", "eta", "phi", "mass")}
    taus = ak.pad_none(ak.zip(parts, with_name="Momentum4D"), 2)
    first = taus[:, 0]
    with np.errstate(all="ignore"):
        mt = np.sqrt(2 * first.pt * arrays["MET_pt"] * (1 - np.cos(first.phi - arrays["MET_phi"])))
        return {
            "ht": ak.sum(jets[jets > 30], axis=1),
            "m_tautau": ak.fill_none((first + taus[:, 1]).mass, np.nan),
            "best_btag": ak.fill_none(ak.max(arrays["Jet_btagDeepB"], axis=1), np.nan),
            "mt_tau": ak.fill_none(mt, np.nan),
            "Jet_log": np.log(jets),
        }


def selection(arrays: Mapping[str, Any], new: Mapping[str, Any]) -> Any:
    """Return whether each event passes the cuts of `PREPROCESSING`."""
    return (
        (arrays["nJet"] >= 1)
        & (arrays["nTau"] >= 1)
        & (arrays["MET_pt"] > 5)
        & (arrays["PV_npvs"] >= 3)
        & (new["ht"] > 10)
        & ((new["m_tautau"] > 5) | (arrays["nMuon"] > 0))
        & ak.any(np.abs(arrays["Jet_eta"]) < 2.4, axis=1)
        & ak.all(arrays["Tau_pt"] > 10, axis=1)
        & ak.fill_none(ak.firsts(arrays["Tau_pt"]) < 300, False)
        & (new["mt_tau"] < 250)
    )
