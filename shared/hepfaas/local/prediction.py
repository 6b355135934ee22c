"""`hepfaas predict`: scores of the events in ROOT files by a published model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hepfaas.datasets.files import file_and_tree
from hepfaas.models import versions
from hepfaas.models.inference import INFERENCE
from hepfaas.models.networks import networks_of
from hepfaas.models.served import graph_of
from hepfaas.platform.storage import Store
from hepfaas.platform.terminal import visible
from hepfaas.scores.files import SCORE, Columns, score_file
from hepfaas.steps.predict import predicted, with_events

SHOWN = 10
"""Events that a summary shows."""


def predict(
    store: Store,
    name: str,
    files: Sequence[str],
    tree: str | None,
    out: Path | None,
    *,
    ntuple: bool = False,
    dtype: str = "",
) -> dict[str, Any]:
    """Compute the scores of all events of the files, in their order, and write them to `out` unless it is None.

    files: paths and addresses, also with a tree as 'data.root:Signal'. tree: of the other files; None: that of the
    training, or the only tree of a file without it. ntuple: write an RNTuple. dtype: format of the
    files, '' for that of their names.

    Return model, number of events, mean score, and the scores of the first events.
    Raises: RequestError; UnavailableError.
    """
    published = versions.load(store, name)
    n_surplus = 0

    def scores() -> Iterator[Columns]:
        nonlocal n_surplus
        for number, url in enumerate(files):
            file, own_tree = file_and_tree(url)
            for chunk in predicted(published, networks, file, own_tree or tree or "", dtype=dtype):
                n_surplus += chunk.n_surplus
                yield {"file": np.full(len(chunk.entries), number, dtype=np.int32), **chunk.columns}

    with networks_of(published, graph_of(published), store, INFERENCE) as networks:
        summary = written(with_events(scores()), out, ntuple=ntuple)
    return {"model": str(published.version), **summary, "n_surplus": n_surplus}


def written(scores: Iterable[Columns], out: Path | None, *, ntuple: bool = False) -> dict[str, Any]:
    """Write scores to `out`, unless it is None, as they arrive. ntuple: as an RNTuple.

    Return number of events, how many have no score (the model's cuts reject them), mean score of the others, and the
    scores of the first events.
    """
    summary = _Summary()
    with _written(out, ntuple) as write:
        for columns in scores:
            summary.add(columns)
            write(columns)
    return {"out": str(out) if out else None, **summary.values()}


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return a summary as text."""
    from hepfaas.local.tables import table

    lines = [f"model {visible(summary['model'])}: {summary['events']:,} events"]
    lines += [f"mean {visible(name)}: {mean:.4f}" for name, mean in summary["mean"].items()]
    if summary.get("without_score"):
        lines.append(f"note: {summary['without_score']:,} events have no score: the model's cuts reject them")
    if summary.get("n_surplus"):
        lines.append(
            f"note: {summary['n_surplus']:,} events have more values in a branch than any training event had; "
            "the last of these values were left out"
        )
    if summary["out"]:
        lines.append(f"scores are in {visible(summary['out'])}")
    elif summary["first"]:
        lines += ["", table(summary["first"], ""), f"... of {summary['events']:,}; write all with --out FILE"]
    return "\n".join(lines)


class _Summary:
    """Sums over scores, and the first of them."""

    def __init__(self) -> None:
        self._events = self._n_without = 0
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._first: list[dict[str, Any]] = []

    def add(self, columns: Columns) -> None:
        """Add the scores of a chunk."""
        count = len(columns["entry"])
        self._events += count
        scores = {name: values for name, values in columns.items() if SCORE.fullmatch(name)}
        for name, values in scores.items():
            self._sums[name] += float(np.nansum(values, dtype=np.float64))
        self._n_without += int(np.isnan(next(iter(scores.values()))).sum())
        for row in range(min(SHOWN - len(self._first), count)):
            self._first.append({name: _json_value(values[row].item()) for name, values in columns.items()})

    def values(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        mean = {name: total / max(1, self._events - self._n_without) for name, total in self._sums.items()}
        return {"events": self._events, "without_score": self._n_without, "mean": mean, "first": self._first}


def _json_value(value: Any) -> Any:
    """Return a value as JSON has it: null for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def _written(out: Path | None, ntuple: bool) -> Iterator[Callable[[Columns], None]]:
    if out is None:
        yield lambda columns: None
    else:
        with score_file(out, ntuple=ntuple) as write:
            yield write
