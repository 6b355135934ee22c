"""`hepfaas predict`: a published model and ROOT files go in, scores come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.score_files import Columns, score_file
from hepfaas.models import versions
from hepfaas.models.litert import LiteRtModel
from hepfaas.platform.storage import Store
from hepfaas.steps.predict import Scores, predicted

SHOWN = 10
"""Events shown where no file is written."""


def predict(store: Store, name: str, files: Sequence[str], tree: str | None, out: Path | None) -> dict[str, Any]:
    """Scores all events of the files, in their order, and writes them to `out` if it is given.

    Gives model, events, mean score, and the scores of the first events. Raises: RequestError; UnavailableError.
    """
    published = versions.load(store, name)
    model = LiteRtModel(published.graph)
    summary = _Summary(_score_names(published.card))
    with _written(out) as write:
        for number, url in enumerate(files):
            for some in predicted(published, model, url, tree or published.card["recipe"]["tree"]):
                write(summary.added(number, some))
    return {"model": str(published.version), "out": str(out) if out else None, **summary.values()}


def summary_text(summary: Mapping[str, Any]) -> str:
    """What a person reads."""
    from hepfaas.local.tables import table

    lines = [f"model {summary['model']}: {summary['events']:,} events"]
    lines += [f"mean {name}: {mean:.4f}" for name, mean in summary["mean"].items()]
    if summary["n_surplus"]:
        lines.append(
            f"note: {summary['n_surplus']:,} events have more values in a branch than any training event had; "
            "the last of them were left out"
        )
    if summary["out"]:
        lines.append(f"scores are in {summary['out']}")
    elif summary["first"]:
        lines += ["", table(summary["first"], ""), f"... of {summary['events']:,}; --out FILE writes all of them"]
    return "\n".join(lines)


class _Summary:
    """What is told of the scores, without keeping them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._events = self._n_surplus = 0
        self._sums = np.zeros(len(names))
        self._first: list[dict[str, Any]] = []

    def added(self, file: int, some: Scores) -> Columns:
        """The columns to write for some events, counted on the way."""
        scores = {name: some.scores[:, place] for place, name in enumerate(self._names)}
        self._events += len(some.entries)
        self._n_surplus += some.n_surplus
        self._sums += some.scores.sum(axis=0, dtype=np.float64)
        columns: dict[str, NDArray[Any]] = {
            "file": np.full(len(some.entries), file, dtype=np.int32),
            "entry": some.entries,
            **some.identifiers,
            **scores,
        }
        for row in range(min(SHOWN - len(self._first), len(some.entries))):
            self._first.append({name: values[row].item() for name, values in columns.items()})
        return columns

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        means = self._sums / max(1, self._events)
        return {
            "events": self._events,
            "mean": dict(zip(self._names, means.tolist(), strict=True)),
            "n_surplus": self._n_surplus,
            "first": self._first,
        }


def _score_names(card: Mapping[str, Any]) -> list[str]:
    if card["outputs"] == 1:
        return ["score"]
    return [f"score_{output}" for output in range(card["outputs"])]


@contextmanager
def _written(out: Path | None) -> Iterator[Callable[[Columns], None]]:
    if out is None:
        yield lambda columns: None
    else:
        with score_file(out) as write:
            yield write
