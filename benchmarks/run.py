"""`make bench`: runs all benchmarks or those named; prints a table and writes it to .cache/bench/results.json."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict

from measured import CACHE

BENCHMARKS = (
    "prepare",
    "ntuple",
    "preprocess",
    "tables",
    "epoch",
    "jobs",
    "memory",
    "cold",
    "service",
    "predict",
    "predict_load",
)


def main(names: list[str]) -> None:
    """Measure and report. A ratio out of its bound is no failure, since the machine may be busy."""
    CACHE.mkdir(parents=True, exist_ok=True)
    results = []
    for name in names or BENCHMARKS:
        for ratio in importlib.import_module(name).measure():
            results.append({**asdict(ratio), "benchmark": name, "holds": ratio.holds})
            mark = "ok   " if ratio.holds else "short"
            line = f"{mark} {ratio.ratio:6.2f}  {ratio.bound:8} {ratio.subject}, against {ratio.against}"
            sys.stdout.write(f"{line}{f'  ({ratio.detail})' if ratio.detail else ''}\n")
            sys.stdout.flush()
    (CACHE / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
