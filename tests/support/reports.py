"""Trainings that have completed, for tests of reports and comparisons: written into a store without training."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from hepfaas.evaluation.part import part_counts
from hepfaas.evaluation.report import report_of
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store
from hepfaas.runs import preparation
from hepfaas.runs.opened import joined
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.steps.objects import encoded, put_blob
from hepfaas.training.checkpoint import to_bytes

RECIPE = Recipe(
    "job", (LabelledFile("root://h//data/a.root", 0), LabelledFile("root://h//data/b.root", 1)), "", epochs=3
)
CODE = {"model.py": "def model(idim):\n    return build(idim, rate=0.001)\n"}
PNG = b"\x89PNG\r\n\x1a\n"


class Scores:
    """Scores of events with two classes; better the larger the separation."""

    def __init__(self, separation: float = 1.0, events: int = 4_000, seed: int = 3) -> None:
        chooser = np.random.default_rng(seed)
        self.labels = chooser.integers(0, 2, events)
        self.splits = chooser.choice(3, events, p=[0.64, 0.16, 0.2])
        logits = chooser.normal(size=events) + separation * (2 * self.labels - 1)
        self.scores = (1 / (1 + np.exp(-logits)))[:, None].astype(np.float32)
        self.weights = chooser.exponential(0.5, events)

    def report(self, names: Sequence[str]) -> dict[str, Any]:
        """Return metrics and curves, as `evaluate` stores them."""
        rows = tuple(np.bincount(self.splits, minlength=3).tolist())
        counts = part_counts(
            self.scores, self.labels, self.splits, rows=rows, logits=False, weights=self.weights, unit=2.0**-30
        )
        return report_of(counts, names)


def complete(
    store: Store,
    recipe: Recipe = RECIPE,
    *,
    scores: Scores | None = None,
    code: Mapping[str, str] = CODE,
    names: Sequence[str] = ("background", "signal"),
    cuts: Sequence[str] = ("one lepton",),
    branches: Sequence[str] = ("met", "lep_pt"),
    notes: Sequence[str] = (),
    pictures: Mapping[str, bytes] | None = None,
    opened: bool = True,
) -> str:
    """Write a run that has completed, with its model version; return the name of the run."""
    manifest = put_blob(
        store, json.dumps({name: put_blob(store, text.encode()) for name, text in code.items()}).encode()
    )
    recipe = replace(recipe, code=manifest)
    run = records.create(store, records.Request(recipe, 1000.0, tuple(notes), submitter={"name": "Ada"}))
    identities = [hashlib.sha256(file.url.encode()).hexdigest() for file in recipe.files]
    if opened:
        common = {"entries": 3_000, "ranges": [[0, 3_000]], "features": [["met", False]], "identifiers": []}
        headers = [{"identity": each, "fingerprint": each, "left_out": [], **common} for each in identities]
        store.create(preparation.open_levels(recipe, f"{run}/1")[-1][0].key, encoded(joined(headers)))
    spec = FeatureSpec(tuple(FeatureBranch(name, jagged=False, low=0.0, high=250.0, width=1) for name in branches))
    flow = [
        {"sample": name, "events": [3_000, 2_000], "weights": [300.5, 210.25], "uncertainties": [12.0, 9.0]}
        for name in names
    ]
    history = [
        {"loss": 0.7 - epoch / 10, "val_loss": 0.71 - epoch / 10, "accuracy": 0.5 + epoch / 10} for epoch in range(3)
    ]
    evaluation = {
        **(scores or Scores()).report(names),
        "cut_flow": {"cuts": ["all events", *cuts], "samples": flow},
        "history": history,
        "best_epoch": 3,
    }
    values = asdict(recipe)
    del values["files"]
    checkpoint = "steps/train/" + hashlib.sha256(run.encode()).hexdigest()
    learned = {"optimizer": "adam", "learning_rate": 0.001}
    store.create(checkpoint, to_bytes({"model/w": np.zeros(2, dtype=np.float32)}, learned))
    version = versions.claim(store, recipe.name, f"steps/publish/{run}")
    card = {
        "name": version.name,
        "version": version.number,
        "n_features": spec.n_features,
        "recipe": json.loads(json.dumps(values)),
        "data": [
            {"file": identity, "label": file.label, "events": 2_000, "split": [1_280, 320, 400]}
            for identity, file in zip(identities, recipe.files, strict=True)
        ],
        "labels": [0, 1],
        "parameters": 12_345,
        "weights": "ab" * 32,
        "versions": {"tensorflow": "2.21.0"},
        "processor": "a processor",
        "metrics": evaluation["metrics"],
        "best_epoch": 3,
        "steps": {"checkpoint": checkpoint},
    }
    files = {
        versions.SPEC: encoded(spec.to_json()),
        versions.EVALUATION: encoded(evaluation),
        **(pictures or {"roc.png": PNG, "roc.pdf": b"%PDF"}),
    }
    versions.publish(store, version, card, files)
    records.end(store, run, 1, records.End("completed", 1060.0, model=str(version)))
    return run
