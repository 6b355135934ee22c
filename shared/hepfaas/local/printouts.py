"""What a run on one machine prints with `verbose`: 1: rates, shapes, memory, epochs and the lines of model.py; 2: also
branches and ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from hepfaas.features.spec import FeatureSpec
from hepfaas.local.tables import size
from hepfaas.runs.results import Header, PreparedPart
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Prepare, Score, Step, Survey, Train

RATES, BRANCHES = 1, 2
"""Levels of `verbose`."""


class Printouts:
    """Lines of one run. say: prints one line. verbose: 0, 1 or 2."""

    def __init__(self, say: Callable[[str], None], verbose: int) -> None:
        self._say, self._verbose = say, verbose

    @property
    def has_rates(self) -> bool:
        """Return whether rates, shapes and memory are printed."""
        return self._verbose >= RATES

    def opened(self, urls: Sequence[str], headers: Sequence[Header]) -> None:
        """Print the size of each file, and the branches of the first."""
        if not self.has_rates:
            return
        for url, header in zip(urls, headers, strict=True):
            amount = f"{size(header.read_bytes)} in {len(header.inputs or header.features):,} branches"
            self._say(f"{url}: {header.entries:,} events in {len(header.ranges):,} ranges, {amount}")
        if self._verbose >= BRANCHES:
            first = headers[0]
            flat, jagged = ([name for name, is_jagged in first.features if is_jagged == kind] for kind in (False, True))
            for kind, names in (("flat", flat), ("jagged", jagged), ("identifier", first.identifiers)):
                self._say(f"{kind} branches: {', '.join(names) or 'none'}")

    def step(self, step: Step, seconds: float, events: int, size_bytes: float) -> None:
        """Print the rate of a step that read events."""
        if not self.has_rates or not isinstance(step, Survey | Prepare | Score):
            return
        rates = [f"{events / max(seconds, 1e-3):,.0f} events/s"]
        if size_bytes:
            rates.append(f"{size_bytes / 1e6 / max(seconds, 1e-3):,.1f} MB/s")
        place = ""
        if not isinstance(step, Score):
            place = f" of {PurePosixPath(step.url).name} from {step.entries[0]:,}"
        self._say(f"{step.kind}: {events:,} events{place} in {seconds:.2f} s, {', '.join(rates)}")

    def spec(self, spec: FeatureSpec) -> None:
        """Print the number of features, and the range of each branch."""
        if self.has_rates:
            self._say(f"{spec.n_features:,} features of {len(spec.branches):,} branches")
        if self._verbose >= BRANCHES:
            for branch in spec.branches:
                values = "no value" if branch.low is None else f"{branch.low:g} to {branch.high:g}"
                slots = f", up to {branch.width:,} values" if branch.jagged else ""
                self._say(f"{branch.name}: {values}{slots}, {branch.type}, scaling {branch.scaling}")

    def matrix(self, parts: Sequence[PreparedPart], n_features: int) -> None:
        """Print the shape of the matrix of each sample."""
        if self.has_rates:
            shapes = (f"{split.label} {sum(part.rows[split] for part in parts):,} × {n_features:,}" for split in Split)
            self._say(f"matrix: {', '.join(shapes)}")

    def trained(self, step: Train, n_epochs: int, result: Mapping[str, Any]) -> None:
        """Print loss and metrics after a segment, as Keras does after an epoch."""
        if self.has_rates:
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in result["metrics"].items())
            fold = "" if step.fold is None else f"fold {step.fold + 1}, "
            self._say(f"{fold}epoch {step.epoch + 1} of {n_epochs}, segment {step.segment + 1}: {metrics}")

    def lines(self, lines: Sequence[str]) -> None:
        """Print what model.py and Keras printed."""
        if self.has_rates:
            for line in lines:
                self._say(line)

    def memory(self) -> None:
        """Print the memory of this process and those that it started, and of the machine."""
        if self.has_rates:
            self._say(memory_line())


def memory_line() -> str:
    """Return the memory of this process and those that it started, and of the machine, in units of 10^6 bytes."""
    import psutil  # only for this line

    resident, processes = 0, [psutil.Process(), *psutil.Process().children(recursive=True)]
    for process in processes:
        try:
            resident += process.memory_info().rss
        except psutil.NoSuchProcess:  # it has ended
            continue
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return (
        f"memory: {resident / 1e6:,.0f} MB in {len(processes)} processes; {memory.available / 1e6:,.0f} of "
        f"{memory.total / 1e6:,.0f} MB are free; swap {swap.used / 1e6:,.0f} of {swap.total / 1e6:,.0f} MB"
    )
