"""Counts of made-up scores, a sample of events, and all files that an evaluation draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hepfaas.evaluation import branches
from hepfaas.evaluation.correlations import correlations
from hepfaas.evaluation.drawings import Pictures, drawings_of, drawn
from hepfaas.evaluation.part import PartCounts, part_counts
from hepfaas.evaluation.report import report_of
from hepfaas.evaluation.sample import Sample
from hepfaas.evaluation.sculpting import sculpting
from hepfaas.runs.plot_labels import PlotLabels

EVENTS = 3_000
HISTORY = [{"loss": 1 / n, "val_loss": 1.1 / n, "auc": 1 - 1 / n, "val_auc": 1 - 1.1 / n} for n in range(1, 5)]


def measured(classes: int, *, weighted: bool = False, seed: int = 3) -> tuple[PartCounts, dict[str, Any]]:
    """Return counts, and the values of an examine step."""
    rng = np.random.default_rng(seed)
    labels, splits = rng.integers(0, classes, EVENTS), rng.choice(3, EVENTS, p=[0.4, 0.2, 0.4])
    probabilities = rng.dirichlet(np.ones(classes), EVENTS)
    scores = probabilities[:, 1:] if classes == 2 else probabilities
    weights = rng.exponential(1, EVENTS) * np.where(rng.random(EVENTS) < 0.2, -1, 1)
    counts = part_counts(
        scores.astype(np.float32),
        labels,
        splits,
        rows=tuple(np.bincount(splits).tolist()),
        logits=False,
        weights=weights if weighted else None,
        unit=2.0**-31,
    )
    jets = rng.normal(size=(EVENTS, 3)) + labels[:, None]
    jets[rng.random(jets.shape) < 0.3] = np.nan
    values = {
        "MET": rng.exponential(40, (EVENTS, 1)),
        "Jet_pt_$of$_a_very_long_collection_of_objects": jets,
        "Jet_n": jets,
    }
    sample = Sample(
        branches=values,
        scaled=values,
        spectators={"mass": rng.normal(90, 10, EVENTS)},
        probabilities=probabilities,
        labels=labels,
        weights=weights if weighted else np.ones(EVENTS),
    )
    passed = branches.selection(sample, 0.5)
    names = [f"class_{number}" for number in range(classes)]
    groups = [
        {"name": name, "kind": kind, "fall": 0.1, "spread": 0.01}
        for name, kind in (("MET", "branch"), ("Jet", "collection"))
    ]
    return counts, {
        "branches": branches.to_json(branches.branch_histograms(sample, passed)),
        "scaled": branches.to_json(branches.scaled_histograms(sample, passed)),
        "sculpting": sculpting(sample, [0.5] * (1 if classes == 2 else classes)),
        "correlations": correlations(sample, names),
        "importance": {"events": 10, "auc": 0.8, "groups": groups},
    }


def all_drawn(classes: int, names: list[str], *, weighted: bool = False) -> Pictures:
    """Return all files of an evaluation by name."""
    counts, examined = measured(classes, weighted=weighted)
    drawings = drawings_of(report_of(counts, names), counts, examined, [(HISTORY, 3)], names=names, labels=PlotLabels())
    return {name: data for drawing in drawings for name, data in drawn(drawing).items()}
