"""The first prediction of a cold process, against a process that only imports the same libraries and opens the file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import awkward as ak
import uproot
from hepfaas.cli import main
from measured import CACHE, Ratio, in_turn, seconds

EXAMPLE = Path(__file__).parents[1] / "examples" / "htautau"
BARE = "import sys, uproot, ai_edge_litert.interpreter; uproot.open(sys.argv[1])['Events']"


def measure() -> list[Ratio]:
    """Compare the time beyond the bare process, and the memory."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        store, event = f"{folder}/store", Path(folder) / "event.root"
        _one_event(event)
        sys.stdout, stdout = open(os.devnull, "w"), sys.stdout  # noqa: PTH123, SIM115  # hides the training's report
        main(["train", str(EXAMPLE), "--store", store])
        sys.stdout.close()
        sys.stdout = stdout
        ours = [sys.executable, "-m", "hepfaas", "predict", "htautau", str(event), "--store", store]
        bare = [sys.executable, "-c", BARE, str(event)]
        taken = in_turn(7, ours=lambda: seconds(lambda: _run(ours)), bare=lambda: seconds(lambda: _run(bare)))
        memory = _memory_mb(ours)
        imports = _run([sys.executable, "-X", "importtime", *ours[1:]]).stderr
    above = taken["ours"] - taken["bare"]
    return [
        Ratio(
            "cold predict of one event, above",
            "0.3 s",
            above / 0.3,
            "<= 1.0",
            detail=f"{above:.2f} + {taken['bare']:.2f} s",
        ),
        Ratio("its peak memory", "200 MB", memory / 200, "<= 1.0", detail=f"{memory:.0f} MB"),
        Ratio("modules of TensorFlow it imports", "one", float(imports.count(" tensorflow")), "<= 0"),
    ]


def _one_event(path: Path) -> None:
    with uproot.open(EXAMPLE / "unseen.root") as source, uproot.recreate(path) as file:
        arrays = source["Events"].arrays(entry_stop=1, how=dict)
        counters = {f"n{name.partition('_')[0]}" for name, branch in arrays.items() if branch.ndim == 2}
        objects = {name[1:]: {} for name in counters}  # type: dict[str, dict[str, Any]]
        columns: dict[str, Any] = {}
        for name, branch in arrays.items():
            if branch.ndim == 2:
                objects[name.partition("_")[0]][name.partition("_")[2]] = branch
            elif name not in counters:
                columns[name] = branch
        columns |= {name: ak.zip(parts) for name, parts in objects.items()}
        file.mktree("Events", {name: branch.type.content for name, branch in columns.items()}).extend(columns)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def _memory_mb(command: list[str]) -> float:
    program = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
    program += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    return int(_run([sys.executable, "-c", program, *command]).stdout) / 1000
