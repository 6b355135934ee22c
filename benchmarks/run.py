"""`make bench`: all benchmarks, or those named: a table, and the same as JSON in .cache/bench/results.json."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict

from measured import CACHE

SUBJECTS = ("prepare", "epoch", "memory", "cold", "service", "predict", "predict_load")


def main(subjects: list[str]) -> None:
    """Measures and tells; a ratio out of its bound is told, not raised: a machine may be busy."""
    CACHE.mkdir(parents=True, exist_ok=True)
    results = []
    for subject in subjects or SUBJECTS:
        for found in importlib.import_module(subject).measure():
            results.append({**asdict(found), "subject": subject, "holds": found.holds})
            mark = "ok   " if found.holds else "short"
            line = f"{mark} {found.ratio:6.2f}  {found.bound:8} {found.what}, against {found.against}"
            sys.stdout.write(f"{line}{f'  ({found.detail})' if found.detail else ''}\n")
            sys.stdout.flush()
    (CACHE / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
