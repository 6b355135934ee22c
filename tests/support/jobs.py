"""Small jobs for tests of the service: a folder whose run takes seconds."""

import io
import json
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from hepfaas.client.bodies import write_folder

MODEL = """
import keras

def model(idim):
    net = keras.Sequential([keras.layers.Input((idim,)), keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.1),
                            keras.layers.Dense(1, "sigmoid")])
    net.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return net
"""
CLUSTER = 100
PARAMS = {"epochs": 2, "batch_size": 32, "range_events": 100}


def write_root(path: Path, seed: int, shift: float, events: int = 300) -> None:
    """Write a ROOT file with a flat branch, a jagged one of up to two values, and one that identifies the event."""
    chooser = np.random.default_rng(seed)
    with uproot.recreate(path) as file:
        file.mktree("Events", {"met": "float32", "lep_pt": "var * float32", "event": "int64"})
        for start in range(0, events, CLUSTER):
            count = min(CLUSTER, events - start)
            leptons = chooser.integers(0, 3, count)
            pt = chooser.exponential(30 + shift, leptons.sum()).astype("float32")
            file["Events"].extend(
                {
                    "met": chooser.normal(shift, 1, count).astype("float32"),
                    "lep_pt": ak.unflatten(pt, leptons),
                    "event": np.arange(start, start + count),
                }
            )


def small_job(folder: Path, seed: int = 1, events: int = 300, **params: object) -> Path:
    """Write a job with two small files; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_root(folder / "signal.root", seed, 1.0, events)
    write_root(folder / "background.root", seed + 1000, 0.0, events)
    (folder / "files.txt").write_text("signal.root\nbackground.root\n")
    (folder / "labels.txt").write_text("1\n0\n")
    (folder / "model.py").write_text(MODEL)
    (folder / "params.json").write_text(json.dumps({**PARAMS, **params}))
    return folder


def packed(folder: Path) -> bytes:
    """Return a job's folder as a client sends it."""
    out = io.BytesIO()
    write_folder(folder, out)
    return out.getvalue()
