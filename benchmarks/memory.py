"""Peak memory of a prepare step in files of ten thousand to a million events."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys

from hepfaas.platform.storage import open_store
from measured import CACHE, Ratio
from prepare import Case, case, to_store
from sample import multiplied

SIZES = (50_000, 200_000, 1_000_000)


def measure() -> list[Ratio]:
    """The largest file against the smallest."""
    found = {events: _peak_mb(events) for events in SIZES}
    told = ", ".join(f"{events:,} events {peak:.0f} MB" for events, peak in found.items())
    return [
        Ratio("peak memory, 1,000,000 events", "10,000 events", found[SIZES[-1]] / found[SIZES[0]], "<= 1.25", told),
        Ratio("the same", "1 GiB", found[SIZES[-1]] / 1074, "<= 1.0"),
    ]


def _peak_mb(events: int) -> float:
    multiplied(events, 1_000)
    done = subprocess.run(
        [sys.executable, __file__, str(events)], capture_output=True, text=True, check=True, timeout=600
    )
    return float(done.stdout)


def _first_range(one: Case) -> Case:
    return Case(**{**vars(one), "ranges": one.ranges[:1]})


if __name__ == "__main__":
    folder = CACHE / f"memory-{sys.argv[1]}"
    shutil.rmtree(folder, ignore_errors=True)
    prepared = case(multiplied(int(sys.argv[1]), 1_000), open_store(str(folder)))
    to_store(_first_range(prepared), 0)
    shutil.rmtree(folder)
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))
