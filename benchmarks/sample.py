"""Files of any length, with baskets of any length, that repeat the events of the shipped sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from measured import CACHE

SAMPLE = Path(__file__).parents[1] / "examples" / "htautau" / "VBF_tautau.root"
COUNTERS = ("nMuon", "nElectron", "nTau", "nJet")


def multiplied(events: int, cluster: int, *, ntuple: bool = False) -> Path:
    """Return a file of this many events (a multiple of `cluster`) with `cluster` entries a basket; written once.
    ntuple: it has an RNTuple, not a TTree."""
    path = CACHE / f"{events}-{cluster}{'-ntuple' if ntuple else ''}.root"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        _write(part, _columns(), events, cluster, ntuple)
        part.rename(path)
    return path


def _columns() -> dict[str, Any]:
    with uproot.open(SAMPLE) as file:
        tree = file["Events"]
        arrays = tree.arrays([name for name in tree.keys() if name not in COUNTERS], how=dict)  # noqa: SIM118
    objects: dict[str, dict[str, Any]] = {}
    columns: dict[str, Any] = {}
    for name, branch in arrays.items():
        if branch.ndim == 2:
            objects.setdefault(name.partition("_")[0], {})[name.partition("_")[2]] = branch
        else:
            columns[name] = ak.to_numpy(branch)
    return {**columns, **{name: ak.zip(parts) for name, parts in objects.items()}}


def _write(path: Path, columns: dict[str, Any], events: int, cluster: int, ntuple: bool) -> None:
    """Write clusters of randomly drawn events, so that the file does not compress better than real data."""
    rng = np.random.default_rng(1)
    with uproot.recreate(path, compression=uproot.ZSTD(5)) as file:
        kinds = {name: c.dtype if isinstance(c, np.ndarray) else c.type.content for name, c in columns.items()}
        tree = file.mkrntuple("Events", kinds) if ntuple else file.mktree("Events", kinds)
        for _ in range(events // cluster):
            chosen = rng.integers(0, 5_000, cluster)
            tree.extend({name: column[chosen] for name, column in columns.items()})
