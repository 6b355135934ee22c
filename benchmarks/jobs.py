"""Whole jobs: `hepfaas train` against a plain training script, each as one process from start to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import CACHE, Ratio, in_turn, seconds
from sample import multiplied

EXAMPLE = Path(__file__).parents[1] / "examples" / "htautau"
SCRIPT = Path(__file__).with_name("notebook.py")
LARGE_EVENTS, LARGE_EPOCHS, CLUSTER, ROUNDS = 200_000, 3, 10_000, 3


def measure() -> list[Ratio]:
    """Compare on the sample, and on files of 200,000 events in all."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        epochs = json.loads((EXAMPLE / "params.json").read_text())["epochs"]
        large = _large(Path(folder) / "large")
        return [
            _compared(f"`hepfaas train` on the sample, {epochs} epochs", EXAMPLE, epochs, "<= 0.70"),
            _compared(f"on {LARGE_EVENTS:,} events, {LARGE_EPOCHS} epochs", large, LARGE_EPOCHS, "<= 0.50"),
        ]


def _compared(subject: str, folder: Path, epochs: int, bound: str) -> Ratio:
    taken = in_turn(ROUNDS, ours=lambda: _ours(folder), script=lambda: _script(folder, epochs))
    detail = f"{taken['ours']:.1f} s; {taken['script']:.1f} s"
    return Ratio(subject, "the script benchmarks/notebook.py", taken["ours"] / taken["script"], bound, detail=detail)


def _ours(folder: Path) -> float:
    """Return the seconds of a run in a new store."""
    with tempfile.TemporaryDirectory(dir=CACHE) as store:
        return _timed([sys.executable, "-m", "hepfaas", "train", str(folder), "--store", store])


def _script(folder: Path, epochs: int) -> float:
    with tempfile.TemporaryDirectory(dir=CACHE) as out:
        return _timed([sys.executable, str(SCRIPT), str(folder), str(epochs), out])


def _timed(command: list[str]) -> float:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return seconds(lambda: subprocess.run(command, env=environment, capture_output=True, check=True, timeout=1200))


def _large(folder: Path) -> Path:
    """Return a folder like the sample's with more events."""
    folder.mkdir()
    file = multiplied(LARGE_EVENTS // 2, CLUSTER)
    for name in ("a.root", "b.root"):
        shutil.copy(file, folder / name)
    with (folder / "b.root").open("ab") as other:
        other.write(b"\0")  # two equal files are refused
    (folder / "files.txt").write_text("a.root\nb.root\n")
    (folder / "labels.txt").write_text("0\n1\n")
    shutil.copy(EXAMPLE / "model.py", folder)
    params = json.loads((EXAMPLE / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps({**params, "epochs": LARGE_EPOCHS}))
    return folder
