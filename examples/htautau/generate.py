"""Generate the sample of this folder: NanoAOD-like ROOT files of H → ττ from gluon and vector boson fusion.

    uv run --no-project --with pythia8mc==8.317.2 --with fastjet --with uproot --with awkward \
        python examples/htautau/generate.py

writes `ggH_tautau.root`, `VBF_tautau.root`, `unseen.root` and `unseen_truth.csv` to the output folder. The same
events, seed and package versions give the same branches; the bytes differ in uproot's UUIDs and dates.

Pythia makes the collisions, fastjet the jets. The detector is a set of efficiencies and Gaussian resolutions,
all in this module, of the size of those of CMS but tuned to nothing. README.md lists the branches. Lengths are
in cm, energies, momenta and masses in GeV, angles in rad, as in NanoAOD; Pythia gives mm.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import fastjet
import numpy as np
import numpy.typing as npt
import pythia8mc
import uproot
import vector

vector.register_awkward()

Columns = dict[str, ak.Array]

EVENTS_PER_CLUSTER = 1000
MANTISSA_BITS = 12  # of the 23 of a float32; NanoAOD keeps 8 to 16, so that files compress

MM_TO_CM = 0.1
ELECTRON, NU_E, MUON, NU_MU, TAU, NU_TAU = 11, 12, 13, 14, 15, 16  # PDG numbers
PHOTON, PI0 = 22, 111

TRACKER_ETA = 2.5
CALORIMETER_ETA = 5.0
CONE_PT = 0.5  # GeV, least pt of a particle that counts for isolation
ISOLATION_WORKING_POINTS = (0.30, 0.20, 0.10, 0.06)  # Electron_cutBased counts those passed
JET_RADIUS, JET_PT, JET_ETA = 0.4, 15.0, 4.7
JET_NOISE, JET_STOCHASTIC, JET_CONSTANT = 3.0, 0.8, 0.05  # GeV, √GeV, 1: σ(pt)/pt = N/pt ⊕ S/√pt ⊕ C
UNCLUSTERED = 0.5  # √GeV: σ of each MET component is this times √MET_sumEt, on top of the jets
N_PILE_UP = 25.0
SUM_ET_OF_PILE_UP = 30.0  # GeV a vertex
RHO_OF_PILE_UP = 0.6  # GeV per unit area, a vertex


@dataclass(frozen=True)
class Process:
    """A class of events: name, label and settings of Pythia."""

    name: str
    label: int
    settings: tuple[str, ...]


GLUON_FUSION = Process("ggH", 0, ("HiggsSM:gg2H = on",))
# dipoleRecoil: without it the shower of VBF fills the gap between the two jets (Jäger et al., arXiv:2003.12435)
VECTOR_BOSON_FUSION = Process(
    "VBF", 1, ("HiggsSM:ff2Hff(t:ZZ) = on", "HiggsSM:ff2Hff(t:WW) = on", "SpaceShower:dipoleRecoil = on")
)
COMMON_SETTINGS = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    "25:m0 = 125.",
    "25:onMode = off",
    "25:onIfMatch = 15 -15",
)


@dataclass(frozen=True)
class Lepton:
    """Response of the detector to electrons or muons.

    min_pt: GeV; max_eta, efficiency: pure numbers; pt: relative resolution; angle: rad; impact: cm.
    """

    pdg: int
    mass: float
    min_pt: float
    max_eta: float
    efficiency: float
    pt: float
    angle: float
    impact: float


MUONS = Lepton(MUON, 0.10566, min_pt=3.0, max_eta=2.4, efficiency=0.95, pt=0.015, angle=0.0005, impact=0.002)
ELECTRONS = Lepton(ELECTRON, 0.000511, min_pt=5.0, max_eta=2.5, efficiency=0.85, pt=0.03, angle=0.001, impact=0.004)


@dataclass(frozen=True)
class HadronicTaus:
    """Response of the detector to hadronic taus; fields as in `Lepton`, after reconstruction."""

    min_pt: float = 18.0
    max_eta: float = 2.3
    efficiency: float = 0.75
    pt: float = 0.08
    angle: float = 0.005
    impact: float = 0.003


TAUS = HadronicTaus()


# Branches and their types. Four more flat branches, nMuon to nJet, come with the jagged ones: 18 and 48.
F32, I32 = np.float32, np.int32
IDENTIFIERS = {"run": np.uint32, "luminosityBlock": np.uint32, "event": np.uint64}
FLAT = {
    "MET_pt": F32,
    "MET_phi": F32,
    "MET_sumEt": F32,
    "MET_significance": F32,
    "MET_covXX": F32,
    "MET_covXY": F32,
    "MET_covYY": F32,
    "PV_npvs": I32,
    "PV_x": F32,
    "PV_y": F32,
    "PV_z": F32,
    "fixedGridRhoFastjetAll": F32,
    "HLT_IsoMu24": np.bool_,
    "HLT_DoubleMediumIsoPFTau35_Trk1_eta2p1_Reg": np.bool_,
}
MOMENTUM = {"pt": F32, "eta": F32, "phi": F32, "mass": F32}
IMPACT = {"dxy": F32, "dz": F32}
JAGGED = {
    "Muon": {
        **MOMENTUM,
        "charge": I32,
        "pfRelIso03_all": F32,
        "pfRelIso04_all": F32,
        **IMPACT,
        "tightId": np.bool_,
        "jetIdx": I32,
    },
    "Electron": {**MOMENTUM, "charge": I32, "pfRelIso03_all": F32, **IMPACT, "cutBased": I32, "jetIdx": I32},
    "Tau": {
        **MOMENTUM,
        "charge": I32,
        "decayMode": I32,
        "rawIso": F32,
        "chargedIso": F32,
        "neutralIso": F32,
        "leadTkPtOverTauPt": F32,
        "leadTkDeltaEta": F32,
        "leadTkDeltaPhi": F32,
        **IMPACT,
        "jetIdx": I32,
    },
    "Jet": {
        **MOMENTUM,
        "btagDeepB": F32,
        "qgl": F32,
        "chHEF": F32,
        "neHEF": F32,
        "chEmEF": F32,
        "neEmEF": F32,
        "muEF": F32,
        "nConstituents": np.uint8,
    },
}


# --- Pythia ------------------------------------------------------------------------------------------


def started(process: Process, seed: int) -> pythia8mc.Pythia:
    """Return Pythia, ready to generate events of a process; seed: 1 to 900 000 000.

    Raises: RuntimeError if Pythia does not start.
    """
    pythia = pythia8mc.Pythia("", False)
    for setting in (*COMMON_SETTINGS, *process.settings, "Random:setSeed = on", f"Random:seed = {seed}"):
        pythia.readString(setting)
    if not pythia.init():
        raise RuntimeError(f"Pythia does not start for process {process.name!r}, seed {seed}")
    return pythia


def next_particles(pythia: pythia8mc.Pythia, n_events: int) -> ak.Array:
    """Return the event records of the next events, shape (events, var): Momentum4D with these fields.

    pdg, status: as Pythia's; charge: e; vx, vy, vz: mm, production vertex (0 if Pythia has none);
    mother: index of the first mother; tau_ancestor: of the decayed tau that it is or comes from, else -1;
    both are indices over all events of the array.

    Raises: RuntimeError if Pythia gives up an event.
    """
    records = pythia.nextBatch(n_events, "fail").prt
    if len(records) != n_events:
        raise RuntimeError(f"Pythia made {len(records)} events of {n_events}")
    multiplicity = ak.num(records)
    first_of_event = np.cumsum(ak.to_numpy(multiplicity)) - ak.to_numpy(multiplicity)
    pdgs, kind = np.unique(ak.to_numpy(ak.flatten(records.id)), return_inverse=True)
    charge = np.array([pythia.particleData.charge(int(pdg)) for pdg in pdgs])[kind]
    mother = ak.to_numpy(ak.flatten(records.mother1 + first_of_event))
    tau = nearest_ancestor(mother, is_decayed_tau(ak.to_numpy(ak.flatten(records.id)), mother))
    made_at = {
        axis: ak.fill_none(records.vProd[field], 0.0, axis=1)
        for axis, field in (("vx", "px"), ("vy", "py"), ("vz", "pz"))
    }
    return ak.zip(
        {
            "px": records.p.px,
            "py": records.p.py,
            "pz": records.p.pz,
            "E": records.p.e,
            "pdg": records.id,
            "status": records.status,
            "charge": ak.unflatten(charge, multiplicity),
            "mother": ak.unflatten(mother, multiplicity),
            "tau_ancestor": ak.unflatten(tau, multiplicity),
            **made_at,
        },
        with_name="Momentum4D",
    )


def is_decayed_tau(pdg: npt.NDArray[np.int32], mother: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return True for taus that decay, shape (particles,); any other tau of the record is followed by a copy."""
    is_tau = abs(pdg) == TAU
    return is_tau & ~np.isin(np.arange(len(pdg)), mother[is_tau])


def nearest_ancestor(mother: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the index of the particle if it is wanted, else of its nearest wanted ancestor; -1 for none.

    All of shape (particles,). A mother is an index into the same array; the root of each event is its own mother.
    """
    above = np.where(wanted, np.arange(len(mother)), mother)
    while not np.array_equal(above, twice := above[above]):
        above = twice
    return np.where(wanted[above], above, -1)


def is_neutrino(particles: ak.Array) -> ak.Array:
    """Return True for neutrinos, the only stable particles that leave no trace here."""
    kind = abs(particles.pdg)
    return (kind == NU_E) | (kind == NU_MU) | (kind == NU_TAU)


def has_quark(particles: ak.Array, flavour: int) -> ak.Array:
    """Return True for hadrons with a quark of this flavour (PDG numbering scheme: the hundreds and thousands)."""
    kind = abs(particles.pdg)
    return (kind > 100) & ((kind // 100 % 10 == flavour) | (kind // 1000 % 10 == flavour))


# --- Detector ----------------------------------------------------------------------------------------


def gaussian(rng: np.random.Generator, like: ak.Array) -> ak.Array:
    """Return standard normal numbers in the shape of an array, (events,) or (events, var)."""
    return shaped(rng.standard_normal(ak.count(like, axis=None)), like)


def uniform(rng: np.random.Generator, like: ak.Array) -> ak.Array:
    """Return numbers in [0, 1) in the shape of an array, (events,) or (events, var)."""
    return shaped(rng.random(ak.count(like, axis=None)), like)


def shaped(values: npt.NDArray[np.float64], like: ak.Array) -> ak.Array:
    """Return values, shape (n,), in the shape of an array of n numbers."""
    return ak.Array(values) if like.ndim == 1 else ak.unflatten(values, ak.num(like))


def wrapped(phi: ak.Array) -> ak.Array:
    """Return the angle in [-π, π)."""
    return (phi + np.pi) % (2 * np.pi) - np.pi


def smeared(rng: np.random.Generator, true: ak.Array, relative_pt: ak.Array | float, angle: float) -> Columns:
    """Return pt, eta, phi as measured, (events, var): relative resolution of pt, resolution of both angles in rad.

    pt does not fall below a tenth of the true one.
    """
    return {
        "pt": true.pt * np.maximum(1 + relative_pt * gaussian(rng, true.pt), 0.1),
        "eta": true.eta + angle * gaussian(rng, true.pt),
        "phi": wrapped(true.phi + angle * gaussian(rng, true.pt)),
    }


def impact(rng: np.random.Generator, tracks: ak.Array, resolution: float) -> Columns:
    """Return dxy, dz in cm of tracks to the primary vertex, smeared; resolution in cm, dz twice as bad."""
    along = (tracks.vx * tracks.px + tracks.vy * tracks.py) / tracks.pt
    dxy = (tracks.vy * tracks.px - tracks.vx * tracks.py) / tracks.pt
    dz = tracks.vz - along * tracks.pz / tracks.pt
    return {
        "dxy": MM_TO_CM * dxy + resolution * gaussian(rng, dxy),
        "dz": MM_TO_CM * dz + 2 * resolution * gaussian(rng, dz),
    }


def cone_pt(axes: ak.Array, particles: ak.Array, radius: float) -> ak.Array:
    """Return the sum of pt, GeV, of particles within ΔR of each axis, (events, axes); an axis may be one of them."""
    axis, particle = ak.unzip(ak.cartesian([axes, particles], nested=True))
    return ak.sum(ak.where(axis.deltaR(particle) < radius, particle.pt, 0.0), axis=-1)


def nearest(axes: ak.Array, candidates: ak.Array, radius: float) -> ak.Array:
    """Return the index of the candidate nearest to each axis, (events, axes); -1 if none is within the radius."""
    axis, candidate = ak.unzip(ak.cartesian([axes, candidates], nested=True))
    distance = axis.deltaR(candidate)
    index = ak.fill_none(ak.argmin(distance, axis=-1), -1)
    return ak.where(ak.fill_none(ak.min(distance, axis=-1), np.inf) < radius, index, -1)


def by_pt(objects: ak.Array) -> ak.Array:
    """Return the objects of each event, hardest first."""
    return objects[ak.argsort(objects.pt, ascending=False)]


def leptons(
    rng: np.random.Generator, visible: ak.Array, kind: Lepton, relative_isolations: dict[str, float]
) -> ak.Array:
    """Return the electrons or muons as measured, (events, var), with the isolation of each name and radius."""
    true = visible[abs(visible.pdg) == kind.pdg]
    true = true[(true.pt > kind.min_pt) & (abs(true.eta) < kind.max_eta)]
    true = true[uniform(rng, true.pt) < kind.efficiency]
    around = visible[visible.pt > CONE_PT]
    measured = smeared(rng, true, kind.pt, kind.angle)
    return by_pt(
        ak.zip(
            {
                **measured,
                "mass": ak.full_like(true.pt, kind.mass),
                "charge": ak.values_astype(true.charge, np.int32),
                **{
                    name: (cone_pt(true, around, radius) - true.pt) / measured["pt"]
                    for name, radius in relative_isolations.items()
                },
                **impact(rng, true, kind.impact),
            },
            with_name="Momentum4D",
        )
    )


def muons(rng: np.random.Generator, visible: ak.Array) -> ak.Array:
    """Return muons; tightId: a random 97 % of those that point to the primary vertex."""
    candidates = leptons(rng, visible, MUONS, {"pfRelIso03_all": 0.3, "pfRelIso04_all": 0.4})
    points_to_vertex = (abs(candidates.dxy) < 0.2) & (abs(candidates.dz) < 0.5)  # cm, as CMS's tight muons
    return ak.with_field(candidates, points_to_vertex & (uniform(rng, candidates.pt) < 0.97), "tightId")


def electrons(rng: np.random.Generator, visible: ak.Array) -> ak.Array:
    """Return electrons; cutBased: number of working points of isolation that are passed, 0 to 4."""
    candidates = leptons(rng, visible, ELECTRONS, {"pfRelIso03_all": 0.3})
    passed = sum(ak.values_astype(candidates.pfRelIso03_all < cut, np.int32) for cut in ISOLATION_WORKING_POINTS)
    return ak.with_field(candidates, passed, "cutBased")


def hadronic_taus(particles: ak.Array) -> ak.Array:
    """Return the true visible part of each hadronic tau decay, (events, var): Momentum4D with these fields.

    charge, decayMode: 5 (charged hadrons - 1) + π⁰, as in HPS (CMS, JINST 13 (2018) P10005);
    lead: its hardest charged hadron, a particle.
    """
    flat = ak.flatten(particles)
    tau = ak.to_numpy(flat.tau_ancestor)
    kept = np.flatnonzero((tau >= 0) & (tau != np.arange(len(tau))))
    kept = kept[np.argsort(tau[kept], kind="stable")]
    index, n_products = np.unique(tau[kept], return_counts=True)
    products = ak.unflatten(flat[kept], n_products)
    is_leptonic = ak.any((abs(products.pdg) == NU_E) | (abs(products.pdg) == NU_MU), axis=1)
    seen = products[(products.status > 0) & ~is_neutrino(products)]
    tracks = seen[(seen.charge != 0) & (abs(seen.pdg) > 100)]
    is_hadronic = ak.to_numpy(~is_leptonic & (ak.num(tracks) > 0))
    n_pi0 = ak.sum(products.pdg == PI0, axis=1)
    taus = ak.zip(
        {
            **{axis: ak.sum(seen[axis], axis=1) for axis in ("px", "py", "pz", "E")},
            "charge": flat.charge[index],
            "decayMode": 5 * (ak.num(tracks) - 1) + n_pi0,
            "lead": ak.firsts(by_pt(tracks)),
        },
        with_name="Momentum4D",
        depth_limit=1,
    )[is_hadronic]
    event = np.repeat(np.arange(len(particles)), ak.to_numpy(ak.num(particles)))[index[is_hadronic]]
    return ak.unflatten(taus, np.bincount(event, minlength=len(particles)))


def taus(rng: np.random.Generator, particles: ak.Array, visible: ak.Array) -> ak.Array:
    """Return hadronic taus as measured; isolations in GeV, ΔR < 0.5, of particles not from taus. No jet fakes a tau."""
    true = hadronic_taus(particles)
    true = true[(abs(true.eta) < TAUS.max_eta) & (uniform(rng, true.charge) < TAUS.efficiency)]
    measured = smeared(rng, true, TAUS.pt, TAUS.angle)
    others = visible[(visible.tau_ancestor < 0) & (visible.pt > CONE_PT)]
    charged, neutral = (cone_pt(true, others[mask], 0.5) for mask in (others.charge != 0, others.charge == 0))
    lead = true.lead
    candidates = ak.zip(
        {
            **measured,
            "mass": true.mass,
            "charge": ak.values_astype(true.charge, np.int32),
            "decayMode": ak.values_astype(true.decayMode, np.int32),
            "chargedIso": charged,
            "neutralIso": neutral,
            "rawIso": charged + neutral,
            "leadTkPtOverTauPt": lead.pt / measured["pt"],
            "leadTkDeltaEta": lead.eta - measured["eta"],
            "leadTkDeltaPhi": wrapped(lead.phi - measured["phi"]),
            **impact(rng, lead, TAUS.impact),
        },
        with_name="Momentum4D",
    )
    return by_pt(candidates[candidates.pt > TAUS.min_pt])


def jets(rng: np.random.Generator, particles: ak.Array, visible: ak.Array) -> ak.Array:
    """Return anti-kt jets as measured, (events, var), also of leptons and taus. Fields besides the branches:

    sigma: resolution of pt; shift_x, shift_y: measured minus true px, py; all in GeV.
    """
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, JET_RADIUS)
    cluster = fastjet.ClusterSequence(visible[abs(visible.eta) < CALORIMETER_ETA], definition)
    true, parts = cluster.inclusive_jets(min_pt=JET_PT / 2), cluster.constituents(min_pt=JET_PT / 2)
    relative = np.sqrt((JET_NOISE / true.pt) ** 2 + JET_STOCHASTIC**2 / true.pt + JET_CONSTANT**2)
    measured = smeared(rng, true, relative, angle=0.02)
    candidates = ak.zip(
        {
            **measured,
            "mass": np.maximum(true.mass, 0.0) * measured["pt"] / true.pt,
            "btagDeepB": b_tag(rng, true, particles),
            "qgl": quark_likelihood(parts),
            **energy_fractions(parts),
            "nConstituents": np.minimum(ak.num(parts, axis=2), 255),
            "sigma": relative * true.pt,
            "shift_x": measured["pt"] * np.cos(measured["phi"]) - true.px,
            "shift_y": measured["pt"] * np.sin(measured["phi"]) - true.py,
        },
        with_name="Momentum4D",
    )
    return by_pt(candidates[(candidates.pt > JET_PT) & (abs(candidates.eta) < JET_ETA)])


def energy_fractions(parts: ak.Array) -> Columns:
    """Return the shares of a jet's energy by kind of constituent; a charged one without a track counts as neutral."""
    kind, has_track = abs(parts.pdg), (parts.charge != 0) & (abs(parts.eta) < TRACKER_ETA)
    is_em, is_muon = (kind == ELECTRON) | (kind == PHOTON), (kind == MUON) & has_track
    masks = {
        "chHEF": has_track & ~is_em & ~is_muon,
        "neHEF": ~has_track & ~is_em,
        "chEmEF": has_track & is_em,
        "neEmEF": ~has_track & is_em,
        "muEF": is_muon,
    }
    energy = ak.sum(parts.E, axis=-1)
    return {name: ak.sum(parts.E * mask, axis=-1) / energy for name, mask in masks.items()}


def quark_likelihood(parts: ak.Array) -> ak.Array:
    """Return a logistic function of ptD: near 1 for few hard constituents, as of quarks, near 0 for many soft ones.

    ptD = √Σpt² / Σpt is one of the three inputs of the discriminator of CMS (CMS-PAS-JME-13-002).
    """
    pt_d = np.sqrt(ak.sum(parts.pt**2, axis=-1)) / ak.sum(parts.pt, axis=-1)
    return 1 / (1 + np.exp(-12 * (pt_d - 0.35)))


def b_tag(rng: np.random.Generator, true: ak.Array, particles: ak.Array) -> ak.Array:
    """Return a random number per jet: Beta(4, 1) with a b hadron in the cone, Beta(2, 3) with c, else Beta(1, 6)."""
    has_b, has_c = (
        nearest(true, particles[has_quark(particles, flavour) & (particles.pt > 5)], JET_RADIUS) >= 0
        for flavour in (5, 4)
    )
    first = ak.where(has_b, 4, ak.where(has_c, 2, 1))
    second = ak.where(has_b, 1, ak.where(has_c, 3, 6))
    return shaped(rng.beta(ak.to_numpy(ak.flatten(first)), ak.to_numpy(ak.flatten(second))), true.pt)


def vertices(rng: np.random.Generator, n_events: int) -> Columns:
    """Return the branches that the simulated collision does not have: pile-up and beam spot, all random."""
    npvs = 1 + rng.poisson(N_PILE_UP, n_events)
    return {
        "PV_npvs": npvs,
        "PV_x": rng.normal(0.09, 0.002, n_events),
        "PV_y": rng.normal(-0.04, 0.002, n_events),
        "PV_z": rng.normal(0.0, 3.5, n_events),
        "fixedGridRhoFastjetAll": np.maximum(RHO_OF_PILE_UP * npvs + rng.normal(0.0, 2.0, n_events), 0.0),
    }


def missing_momentum(
    rng: np.random.Generator, particles: ak.Array, visible: ak.Array, jet: ak.Array, npvs: npt.NDArray[np.int64]
) -> Columns:
    """Return the MET branches: the neutrinos, less the shifts of the jets, plus noise that grows with √MET_sumEt.

    The covariance is that of the noise; the significance is METᵀ cov⁻¹ MET (CMS, JINST 6 (2011) P09001).
    """
    neutrinos = particles[(particles.status > 0) & is_neutrino(particles)]
    hard = ak.sum(visible.pt[abs(visible.eta) < CALORIMETER_ETA], axis=1)
    pile_up = SUM_ET_OF_PILE_UP * (npvs - 1) * np.maximum(1 + 0.1 * gaussian(rng, hard), 0.1)
    sum_et = hard + pile_up
    noise = UNCLUSTERED * np.sqrt(sum_et)
    x = ak.sum(neutrinos.px, axis=1) - ak.sum(jet.shift_x, axis=1) + noise * gaussian(rng, hard)
    y = ak.sum(neutrinos.py, axis=1) - ak.sum(jet.shift_y, axis=1) + noise * gaussian(rng, hard)
    cos, sin = np.cos(jet.phi), np.sin(jet.phi)
    xx = noise**2 + ak.sum((jet.sigma * cos) ** 2, axis=1)
    yy = noise**2 + ak.sum((jet.sigma * sin) ** 2, axis=1)
    xy = ak.sum(jet.sigma**2 * cos * sin, axis=1)
    return {
        "MET_pt": np.hypot(x, y),
        "MET_phi": np.arctan2(y, x),
        "MET_sumEt": sum_et,
        "MET_significance": (yy * x**2 - 2 * xy * x * y + xx * y**2) / (xx * yy - xy**2),
        "MET_covXX": xx,
        "MET_covXY": xy,
        "MET_covYY": yy,
    }


def triggers(rng: np.random.Generator, muon: ak.Array, tau: ak.Array) -> Columns:
    """Return the HLT branches, from the measured objects: the plateau efficiencies are 90 and 80 %."""
    good_muon = (muon.pt > 24) & muon.tightId & (muon.pfRelIso03_all < 0.15)
    good_tau = (tau.pt > 35) & (abs(tau.eta) < 2.1) & (tau.rawIso < 3.0)
    two_taus = ak.sum(good_tau, axis=1) >= 2
    return {
        "HLT_IsoMu24": ak.any(good_muon, axis=1) & (rng.random(len(muon)) < 0.9),
        "HLT_DoubleMediumIsoPFTau35_Trk1_eta2p1_Reg": two_taus & (rng.random(len(tau)) < 0.8),
    }


def measured_events(rng: np.random.Generator, particles: ak.Array) -> ak.Array:
    """Return measured events: one record an event, fields as FLAT and JAGGED."""
    visible = particles[(particles.status > 0) & ~is_neutrino(particles)]
    vertex = vertices(rng, len(particles))
    jet = jets(rng, particles, visible)
    objects = {
        "Muon": muons(rng, visible),
        "Electron": electrons(rng, visible),
        "Tau": taus(rng, particles, visible),
    }
    near_jet = {
        name: ak.with_field(values, nearest(values, jet, JET_RADIUS), "jetIdx") for name, values in objects.items()
    }
    flat = {
        **missing_momentum(rng, particles, visible, jet, vertex["PV_npvs"]),
        **vertex,
        **triggers(rng, objects["Muon"], objects["Tau"]),
    }
    return ak.zip(
        {
            **{name: stored(flat[name], dtype) for name, dtype in FLAT.items()},
            **{
                name: ak.zip({field: stored(values[field], dtype) for field, dtype in JAGGED[name].items()})
                for name, values in {**near_jet, "Jet": jet}.items()
            },
        },
        depth_limit=1,
    )


# --- Files -------------------------------------------------------------------------------------------


def stored(values: ak.Array, dtype: type[np.generic]) -> ak.Array:
    """Return the values in the type of their branch, (events,) or (events, var); float32 rounded to MANTISSA_BITS."""
    numbers = np.asarray(ak.to_numpy(ak.flatten(values, axis=None)), dtype=dtype)
    rounded = rounded_mantissa(numbers) if numbers.dtype == np.float32 else numbers
    return shaped(rounded, ak.Array(values))


def rounded_mantissa(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return finite values, rounded to MANTISSA_BITS bits of mantissa (as CMSSW's MiniFloatConverter)."""
    dropped = 23 - MANTISSA_BITS
    bits = values.view(np.uint32) + np.uint32(1 << (dropped - 1))
    return ((bits >> dropped) << dropped).view(np.float32)


def simulated(process: Process, n_events: int, seed: int) -> Iterator[ak.Array]:
    """Yield the measured events of a process, a cluster at a time."""
    pythia, rng = started(process, seed), np.random.default_rng(seed)
    for start in range(0, n_events, EVENTS_PER_CLUSTER):
        yield measured_events(rng, next_particles(pythia, min(EVENTS_PER_CLUSTER, n_events - start)))


def numbered(events: ak.Array, first: int) -> Columns:
    """Return the branches behind identifiers: run 1, luminosity blocks of 100 events, events from `first` on.

    They count positions in the file, so that they do not depend on the process.
    """
    event = np.arange(first, first + len(events))
    identifiers = {"run": np.ones_like(event), "luminosityBlock": 1 + (event - 1) // 100, "event": event}
    branches = {name: identifiers[name].astype(dtype) for name, dtype in IDENTIFIERS.items()}
    return branches | {name: events[name] for name in events.fields}


def write(path: Path, clusters: Iterator[ak.Array], first: int) -> None:
    """Write events to the TTree `Events` of a new file, one cluster of baskets for each array."""
    with uproot.recreate(path, compression=uproot.ZSTD(9)) as file:
        tree = None
        for events in clusters:
            branches = numbered(events, first)
            first += len(events)
            if tree is None:
                tree = file.mktree("Events", branches, title="H to tau tau, simulated")
            else:
                tree.extend(branches)


def write_unseen(folder: Path, n_events: int, seed: int, first: int) -> None:
    """Write `unseen.root`, half of its events from each process, in random order, and their labels."""
    processes = (GLUON_FUSION, VECTOR_BOSON_FUSION)
    n_each = n_events // 2
    clusters = [cluster for i, process in enumerate(processes) for cluster in simulated(process, n_each, seed + i)]
    order = np.random.default_rng(seed + 2).permutation(2 * n_each)
    labels = np.repeat([process.label for process in processes], n_each)[order]
    write(folder / "unseen.root", iter([ak.concatenate(clusters)[order]]), first)
    with (folder / "unseen_truth.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["entry", "label"])
        rows.writerows(enumerate(labels.tolist()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Simulate H → ττ from ggH and VBF, NanoAOD-like.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder (this script's)")
    parser.add_argument("--events", type=int, default=5000, help="of each process (5000)")
    parser.add_argument("--seed", type=int, default=125, help="it and the next four are used (125)")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for process, seed in ((GLUON_FUSION, options.seed), (VECTOR_BOSON_FUSION, options.seed + 1)):
        path = options.output / f"{process.name}_tautau.root"
        write(path, simulated(process, options.events, seed), first=1)
        sys.stdout.write(f"{path}: {options.events} events\n")
    write_unseen(options.output, options.events // 5, options.seed + 2, first=options.events + 1)
    sys.stdout.write(f"{options.output / 'unseen.root'}: {options.events // 5} events\n")


if __name__ == "__main__":
    main()
