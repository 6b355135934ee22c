"""An epoch through steps against Keras's `fit` and the best loop in memory; and what a train step costs beside."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.steps import Sum, Train
from hepfaas.steps import train
from hepfaas.steps.learning import Learners
from hepfaas.steps.objects import encoded, put_blob, result_of
from hepfaas.steps.train import COMPILED
from hepfaas.training.prepared import PreparedRows, part_of
from measured import CACHE, Ratio, seconds

ROWS, FEATURES, THREADS, ROUNDS, EPOCHS = 128_000, 800, 2, 3, 4
FILLED = 0.19
MODEL = Path(__file__).with_name("in_memory.py")


def measure() -> list[Ratio]:
    """All comparisons, the rivals in turn."""
    folder = CACHE / "epoch"
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(str(folder))
    code, data = _code(store), _data(store, ROWS)
    rounds = [_round(store, code, data, number) for number in range(ROUNDS)]
    later = {name: statistics.median(statistics.median(found[name][1:]) for found in rounds) for name in rounds[0]}
    first = {name: statistics.median(found[name][0] for found in rounds) for name in rounds[0]}
    step_s = _one_batch(store, code)
    shutil.rmtree(folder)
    speed = {name: f"{name} {ROWS / taken:,.0f} events/s" for name, taken in later.items() if taken}
    return [
        Ratio("epoch with XLA", "keras.Model.fit", later["fit"] / later["ours xla"], ">= 4.0", speed["ours xla"]),
        Ratio("epoch", "keras.Model.fit", later["fit"] / later["ours"], ">= 2.5", f"{speed['ours']}; {speed['fit']}"),
        Ratio("time of an epoch", "best loop in memory", later["ours"] / later["loop"], "<= 1.15", speed["loop"]),
        Ratio("with XLA", "best loop with XLA", later["ours xla"] / later["xla loop"], "<= 1.15", speed["xla loop"]),
        Ratio("first epoch", "best loop in memory", first["ours"] / later["loop"], "<= 1.5", _told(rounds, "ours")),
        Ratio(
            "with XLA", "best loop with XLA", first["ours xla"] / later["xla loop"], "<= 1.5", _told(rounds, "ours xla")
        ),
        Ratio("a warm train step of one batch", "0.15 s", step_s / 0.15, "<= 1.0", f"{step_s:.3f} s"),
    ]


def _told(rounds: list[dict[str, list[float]]], name: str) -> str:
    compiling = statistics.median(found[f"{name} compiling"][0] for found in rounds)
    return f"beside {compiling:.1f} s of compiling"


def _round(store: Store, code: str, data: str, number: int) -> dict[str, list[float]]:
    """Seconds of each epoch for each rival."""
    peers = subprocess.run(
        [sys.executable, str(MODEL), str(ROWS), str(FEATURES), str(THREADS)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        check=True,
        timeout=1200,
    )
    found: dict[str, list[float]] = json.loads(peers.stdout)
    for name, xla in (("ours", False), ("ours xla", True)):
        lines: list[str] = []
        taken = _epochs(store, code, data, xla, 2 * number + xla, EPOCHS, lines)
        compiling = sum(float(line.split()[-2]) for line in lines if line.startswith(COMPILED))
        found[name] = [taken[0] - compiling, *taken[1:]]
        found[f"{name} compiling"] = [compiling, 0]
    return found


def _epochs(store: Store, code: str, data: str, xla: bool, seed: int, epochs: int, lines: list[str]) -> list[float]:
    """Seconds of each train step, each of one epoch; the learner's start is not among them, as it is not for fit."""
    taken, before = [], None
    with Learners(lines.append) as learners:
        for epoch in range(epochs):
            step = Train(
                data=data,
                code=code,
                module=MODEL.name,
                n_features=FEATURES,
                labels=(0, 1),
                batch_size=100,
                seed=seed,
                threads=THREADS,
                xla=xla,
                before=before,
                epoch=epoch,
                segment=0,
                segment_rows=10**6,
                shuffle=True,
            )
            learners.holding(before, step, store)
            taken.append(seconds(lambda step=step: train.perform(step, store, learners, lambda rows: None)))
            before = step.key
    return taken


def _one_batch(store: Store, code: str) -> float:
    """Median seconds of warm steps: checkpoint in, one batch, checkpoint out."""
    return statistics.median(_epochs(store, code, _data(store, 100), False, 1, 12, [])[3:])


def _code(store: Store) -> str:
    model = MODEL.read_text().replace("def network(", "def model(")
    return put_blob(store, encoded({MODEL.name: put_blob(store, model.encode())}))


def _data(store: Store, rows: int) -> str:
    """Prepared parts with so many training rows, filled like jagged events, and a few of the other splits."""
    rng = np.random.default_rng(0)
    parts = []
    for label in (0, 1):
        for number in range(max(1, rows // 32_000)):
            count = min(rows // 2, 16_000)
            split = np.zeros(count + 20, dtype=np.uint8)
            split[:10], split[10:20] = 1, 2
            entries = (number * 100_000, number * 100_000 + len(split))
            features = rng.random((len(split), FEATURES), dtype=np.float32)
            features[rng.random((len(split), FEATURES)) > FILLED] = 0

            def events(some: slice, features: Any = features, start: int = entries[0]) -> PreparedRows:
                return PreparedRows(features[some], np.arange(some.start, some.stop) + start, {})

            key = f"steps/prepare/{rows}-{label}-{number}"
            store.create(key, memoryview(part_of(f"file{label}", entries, label, split, events)))
            parts += result_of(key, store)["parts"]
    root = Sum("prepare", tuple(part["key"] for part in parts))
    store.create(root.key, encoded({"parts": parts}))
    return root.key
