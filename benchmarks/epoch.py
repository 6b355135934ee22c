"""An epoch in train steps, against Keras's `fit` and the best loop in memory, and the overhead of a train step."""

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
    """Make all comparisons; the rivals are measured in turn."""
    folder = CACHE / "epoch"
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(str(folder))
    code, data = _code(store), _data(store, ROWS)
    others = [_against_fit(store, kind, data) for kind in ("dropout", "norm")]
    rounds = [_round(store, code, data, number) for number in range(ROUNDS)]
    later = {name: statistics.median(statistics.median(times[name][1:]) for times in rounds) for name in rounds[0]}
    first = {name: statistics.median(times[name][0] for times in rounds) for name in rounds[0]}
    step_s = _one_batch(store, code)
    shutil.rmtree(folder)
    speed = {name: f"{name} {ROWS / epoch_s:,.0f} events/s" for name, epoch_s in later.items() if epoch_s}
    return [
        Ratio(
            "epoch with XLA", "keras.Model.fit", later["fit"] / later["ours xla"], ">= 4.0", detail=speed["ours xla"]
        ),
        Ratio(
            "epoch",
            "keras.Model.fit",
            later["fit"] / later["ours"],
            ">= 2.5",
            detail=f"{speed['ours']}; {speed['fit']}",
        ),
        Ratio(
            "time of an epoch", "best loop in memory", later["ours"] / later["loop"], "<= 1.15", detail=speed["loop"]
        ),
        Ratio(
            "with XLA", "best loop with XLA", later["ours xla"] / later["xla loop"], "<= 1.15", detail=speed["xla loop"]
        ),
        Ratio(
            "first epoch",
            "best loop in memory",
            first["ours"] / later["loop"],
            "<= 1.5",
            detail=_compiling(rounds, "ours"),
        ),
        Ratio(
            "with XLA",
            "best loop with XLA",
            first["ours xla"] / later["xla loop"],
            "<= 1.5",
            detail=_compiling(rounds, "ours xla"),
        ),
        *others,
        Ratio("a warm train step of one batch", "0.15 s", step_s / 0.15, "<= 1.0", detail=f"{step_s:.3f} s"),
    ]


def _against_fit(store: Store, kind: str, data: str) -> Ratio:
    """Compare epochs of a network with dropout or batch normalisation; XLA is used as in a long training."""
    ours, fit = [], []
    for number in range(ROUNDS):
        fit += _in_memory(kind)["fit"][1:]
        code = _code(store, kind)
        ours += _epochs(store, code, data, xla=None, seed=number, epochs=EPOCHS, lines=[])[1:]
    ratio = statistics.median(fit) / statistics.median(ours)
    detail = f"{ROWS / statistics.median(ours):,.0f} events/s"
    return Ratio(f"epoch with {kind}", "keras.Model.fit", ratio, ">= 1.0", detail=detail)


def _in_memory(kind: str) -> dict[str, list[float]]:
    """Return the seconds of each epoch of the alternatives."""
    done = subprocess.run(
        [sys.executable, str(MODEL), str(ROWS), str(FEATURES), str(THREADS), kind],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        check=True,
        timeout=1200,
    )
    times: dict[str, list[float]] = json.loads(done.stdout)
    return times


def _compiling(rounds: list[dict[str, list[float]]], name: str) -> str:
    compile_s = statistics.median(times[f"{name} compiling"][0] for times in rounds)
    return f"plus {compile_s:.1f} s of compiling"


def _round(store: Store, code: str, data: str, number: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch for each rival."""
    times = _in_memory("plain")
    for name, xla in (("ours", False), ("ours xla", True)):
        lines: list[str] = []
        epochs = _epochs(store, code, data, xla=xla, seed=2 * number + xla, epochs=EPOCHS, lines=lines)
        compile_s = sum(float(line.split()[-2]) for line in lines if line.startswith(COMPILED))
        times[name] = [epochs[0] - compile_s, *epochs[1:]]
        times[f"{name} compiling"] = [compile_s, 0]
    return times


def _epochs(
    store: Store, code: str, data: str, *, xla: bool | None, seed: int, epochs: int, lines: list[str]
) -> list[float]:
    """Return the seconds of train steps of one epoch each, as for `fit` without the learner's start and its check of
    the fresh network."""
    times, before = [], None
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
            learners.holding(before, step, store).is_checked = True
            times.append(seconds(lambda step=step: train.perform(step, store, learners, lambda rows: None)))
            before = step.key
    return times


def _one_batch(store: Store, code: str) -> float:
    """Return the median seconds of a warm step: checkpoint in, one batch, checkpoint out."""
    times = _epochs(store, code, _data(store, 100), xla=False, seed=1, epochs=12, lines=[])
    return statistics.median(times[3:])


def _code(store: Store, kind: str = "plain") -> str:
    model = (
        MODEL.read_text().replace("def network(", "def model(").replace('kind: str = "plain"', f'kind: str = "{kind}"')
    )
    return put_blob(store, encoded({MODEL.name: put_blob(store, model.encode())}))


def _data(store: Store, rows: int) -> str:
    """Store prepared parts with this many training rows, filled like jagged events, and a few of the other splits."""
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

            def events(rows: slice, features: Any = features, start: int = entries[0]) -> PreparedRows:
                return PreparedRows(features[rows], np.arange(rows.start, rows.stop) + start, {})

            key = f"steps/prepare/{rows}-{label}-{number}"
            store.create(
                key, memoryview(part_of(file=f"file{label}", entries=entries, label=label, split=split, events=events))
            )
            parts += result_of(key, store)["parts"]
    root = Sum("prepare", tuple(part["key"] for part in parts))
    store.create(root.key, encoded({"parts": parts}))
    return root.key
