"""Peak memory of a prepare step on files of ten thousand to a million events."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from hepfaas.platform.stores import open_store
from hepfaas.runs import steps
from hepfaas.steps import prepare
from measured import CACHE, Ratio
from prepare import case
from sample import multiplied

SIZES = (10_000, 100_000, 1_000_000)


def measure() -> list[Ratio]:
    """Compare the largest file with the smallest."""
    peaks = {events: _peak_mb(events) for events in SIZES}
    detail = ", ".join(f"{events:,} events {peak:.0f} MB" for events, peak in peaks.items())
    return [
        Ratio(
            "peak memory, 1,000,000 events",
            "10,000 events",
            peaks[SIZES[-1]] / peaks[SIZES[0]],
            "<= 1.25",
            detail=detail,
        ),
        Ratio("the same", "1 GiB", peaks[SIZES[-1]] / 1074, "<= 1.0"),
    ]


def _peak_mb(events: int) -> float:
    """Return the peak memory of a process that performs only the first prepare step of the file."""
    folder = CACHE / f"memory-{events}"
    shutil.rmtree(folder, ignore_errors=True)
    one = case(multiplied(events, 5_000), open_store(str(folder)))
    step = steps.Prepare(
        file=one.identity,
        tree="Events",
        entries=tuple(one.ranges[0]),
        spec=one.columns,
        label=0,
        split_seed=21,
        url=one.url,
    )
    command = [sys.executable, __file__, str(folder), json.dumps(step.to_json())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    shutil.rmtree(folder)
    return float(done.stdout)


if __name__ == "__main__":
    prepare.perform(steps.step_from_json(json.loads(sys.argv[2])), open_store(sys.argv[1]))  # type: ignore[arg-type]
    # Not getrusage: its value starts with the memory of the parent process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sys.stdout.write(str(int(status["VmHWM"].split()[0]) / 1000))
