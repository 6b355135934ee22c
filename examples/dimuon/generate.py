"""Make the ROOT files of this example: `python generate.py [FOLDER] [EVENTS]`, EVENTS of each process.

Three processes with two muons, in NanoAOD's names: a Higgs boson (signal), Drell-Yan, and top quark pairs. The
distributions are invented; they have the features of real samples that an analysis has to treat: several files of one
process, generator weights of both signs, jets without a b-tag value (-999), lists that are empty in some events.
"""

import sys
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

MUON_MASS = 0.1057
PROCESSES = {
    # name: (files, share of negative weights)
    "higgs": (1, 0.02),
    "drell_yan": (2, 0.2),
    "top": (1, 0.3),
}


def masses(process: str, count: int, random: np.random.Generator) -> Any:
    """Return the mass of the muon pair, (count,), in GeV."""
    if process == "higgs":
        return random.normal(125, 1.8, count)
    if process == "drell_yan":
        return 110 + random.exponential(18, count)
    return random.uniform(70, 250, count)


def muons(process: str, count: int, random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Return pt [GeV], eta and phi of both muons of a decay at rest that is boosted, (count, 2) each."""
    mass = masses(process, count, random)
    mean_pt = {"higgs": 60.0, "drell_yan": 25.0, "top": 70.0}[process]
    pair_pt, pair_phi = random.exponential(mean_pt, count), random.uniform(-np.pi, np.pi, count)
    rapidity = random.normal(0, 1.1, count)
    cosine, angle = random.uniform(-1, 1, count), random.uniform(-np.pi, np.pi, count)
    sine, momentum = np.sqrt(1 - cosine**2), np.sqrt(mass**2 / 4 - MUON_MASS**2)
    transverse_mass = np.sqrt(mass**2 + pair_pt**2)
    pair = np.stack(
        [
            pair_pt * np.cos(pair_phi),
            pair_pt * np.sin(pair_phi),
            transverse_mass * np.sinh(rapidity),
        ]
    )
    energy = transverse_mass * np.cosh(rapidity)
    results = []
    for sign in (1, -1):
        own = sign * momentum * np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine])
        along = (own * pair).sum(axis=0) / (mass * (energy + mass)) + 0.5
        x, y, z = own + along * pair
        pt = np.hypot(x, y)
        results.append((pt, np.arcsinh(z / pt), np.arctan2(y, x)))
    first, second = (np.stack(values, axis=1).astype(np.float32) for values in results)
    both = np.stack([first, second], axis=1)
    order = np.argsort(-both[:, :, 0], axis=1)
    sorted_ = np.take_along_axis(both, order[:, :, None], axis=1)
    return sorted_[..., 0], sorted_[..., 1], sorted_[..., 2]


def events(process: str, count: int, first: int, random: np.random.Generator) -> dict[str, Any]:
    """Return the branches of `count` events."""
    pt, eta, phi = muons(process, count, random)
    n_muons = np.where(random.random(count) < 0.05, 1, 2)  # one is lost in some events
    kept = np.arange(2) < n_muons[:, None]

    def muon(values: Any) -> Any:
        return ak.unflatten(values[kept], n_muons)

    n_jets = random.poisson({"higgs": 1.6, "drell_yan": 0.9, "top": 3.0}[process], count)
    total = int(n_jets.sum())
    b_quark = random.random(total) < {"higgs": 0.05, "drell_yan": 0.06, "top": 0.55}[process]
    btag = np.where(b_quark, random.beta(5, 1.5, total), random.beta(1.2, 6, total)).astype(np.float32)
    btag[random.random(total) < 0.15] = -999
    jets = {
        "pt": 20 + random.exponential(35, total),
        "eta": random.normal(0, 2.3 if process == "higgs" else 1.6, total),
        "phi": random.uniform(-np.pi, np.pi, total),
        "mass": random.exponential(8, total),
        "btag": btag,
    }
    negative = random.random(count) < PROCESSES[process][1]
    return {
        "run": np.ones(count, dtype=np.uint32),
        "event": np.arange(first, first + count, dtype=np.uint64),
        "genWeight": np.where(negative, -1.0, 1.0).astype(np.float32) * np.float32(1.5),
        "MET_pt": random.exponential(55.0 if process == "top" else 16.0, count).astype(np.float32),
        "MET_phi": random.uniform(-np.pi, np.pi, count).astype(np.float32),
        "PV_npvs": random.poisson(30, count).astype(np.int32),
        "Muon": ak.zip(
            {
                "pt": muon(pt),
                "eta": muon(eta),
                "phi": muon(phi),
                "mass": muon(np.full((count, 2), MUON_MASS, dtype=np.float32)),
            }
        ),
        "Jet": ak.zip({name: ak.unflatten(values.astype(np.float32), n_jets) for name, values in jets.items()}),
    }


def main(folder: Path, count: int) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (process, (n_files, _)) in enumerate(PROCESSES.items()):
        random = np.random.default_rng(number)
        for part in range(n_files):
            size = count // n_files
            branches = events(process, size, part * size, random)
            path = folder / (f"{process}.root" if n_files == 1 else f"{process}_{part}.root")
            with uproot.recreate(path) as file:
                types = {
                    name: values.type.content if isinstance(values, ak.Array) else values.dtype
                    for name, values in branches.items()
                }
                tree = file.mktree("Events", types)
                for start in range(0, size, 10_000):
                    tree.extend({name: values[start : start + 10_000] for name, values in branches.items()})
                file.mktree("Runs", {"genEventSumw": np.float64}).extend(
                    {"genEventSumw": np.array([branches["genWeight"].sum(dtype=np.float64)])}
                )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data"), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
