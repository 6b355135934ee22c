"""The histograms of an evaluation as a ROOT file. Pure: equal values give equal bytes."""

from __future__ import annotations

import datetime
import hashlib
import io
import re
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import uproot
from uproot.writing import _cascade, identify, writable

from hepfaas.evaluation.branches import from_json
from hepfaas.evaluation.counts import distribution
from hepfaas.evaluation.part import PartCounts
from hepfaas.evaluation.tally import Floats, Tally
from hepfaas.runs.splits import HELD_BACK

BINS = 100
"""Bins of the histograms of scores, from 0 to 1."""

WRITTEN = datetime.datetime(2000, 1, 1)  # ROOT has local times
"""Time that the file names as that of its writing."""

Histogram = tuple[str, str, Floats, Floats, Floats]
"""Name, title, edges (bins + 1,), contents and variances, (bins,)."""


def histograms(counts: PartCounts, branches: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, bytes]:
    """Return the file 'histograms.root'.

    `scores/<sample>/<curve>_<class>` are the scores of events of a class; a curve is the score of a class, of the last
    one for two classes. `branches/<branch>/<class>` are the values of a branch, and `passing/<branch>/<class>` those of
    the events that pass the selection. Contents are sums of weights, or events without weights; the variances are in
    fSumw2. branches: of `branches.to_json`.
    """
    out = _Kept()
    listed = [*_scores(counts, names), *_branches(branches, names)]
    number = hashlib.sha256(repr([(name, title) for name, title, _, _, _ in listed]).encode()).digest()[:16]
    with _fixed_time(), uproot.recreate(out, uuid_function=lambda: uuid.UUID(bytes=number)) as file:
        for name, title, edges, contents, variances in listed:
            file[name] = _th1(name, title, edges, contents, variances)
    return {"histograms.root": out.content}


def _scores(counts: PartCounts, names: Sequence[str]) -> Iterator[Histogram]:
    edges = np.linspace(0, 1, BINS + 1)
    samples = {split.label: counts.scores.histograms[place] for place, split in enumerate(HELD_BACK)}
    for sample, tally in {**samples, "training": counts.training}.items():
        for curve, number in np.ndindex(tally.events.shape[:2]):
            signal = curve if len(tally.events) > 1 else len(names) - 1
            one: Tally = tally[curve, number]
            yield (
                f"scores/{sample}/{_safe(signal, names[signal])}_{_safe(number, names[number])}",
                f"score of {names[signal]}, events of {names[number]}",
                edges,
                distribution(one.yields, BINS),
                distribution(one.variances, BINS),
            )


def _branches(values: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[Histogram]:
    for place, branch in enumerate(from_json(values)):
        for number, name in enumerate(names):
            place_of = f"{_safe(place, branch.name)}/{_safe(number, name)}"
            title = f"{branch.name}, events of {name}"
            yield f"branches/{place_of}", title, branch.edges, branch.yields[number], branch.variances[number]
            passing = branch.passing[number], branch.passing_variances[number]
            yield f"passing/{place_of}", f"{title} that pass", branch.edges, *passing


def _safe(number: int, name: str) -> str:
    """Return a name that ROOT takes; the number keeps it different from others."""
    return f"{number}_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')[:60]}"


def _th1(name: str, title: str, edges: Floats, contents: Floats, variances: Floats) -> Any:
    centres = (edges[1:] + edges[:-1]) / 2
    total, squares = float(contents.sum()), float(variances.sum())
    axis = identify.to_TAxis(
        fName="xaxis", fTitle="", fNbins=len(contents), fXmin=edges[0], fXmax=edges[-1], fXbins=edges.astype(">f8")
    )
    return identify.to_TH1x(
        fName=name.rpartition("/")[2],
        fTitle=title,
        data=np.concatenate([[0.0], contents, [0.0]]).astype(">f8"),
        fEntries=total**2 / squares if squares else 0.0,
        fTsumw=total,
        fTsumw2=squares,
        fTsumwx=float((contents * centres).sum()),
        fTsumwx2=float((contents * centres**2).sum()),
        fSumw2=np.concatenate([[0.0], variances, [0.0]]).astype(">f8"),
        fXaxis=axis,
    )


class _Kept(io.BytesIO):
    """A file in memory whose content outlives it: uproot closes what it has written."""

    content = b""

    def close(self) -> None:
        if not self.closed:
            self.content = self.getvalue()
        super().close()


class _FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return WRITTEN


@contextmanager
def _fixed_time() -> Iterator[None]:
    """Let uproot write a fixed time instead of now, which it has no argument for."""
    modules = (_cascade, writable)
    before = [module.datetime for module in modules]
    for module in modules:
        module.datetime = types.SimpleNamespace(datetime=_FixedTime)
    try:
        yield
    finally:
        for module, original in zip(modules, before, strict=True):
            module.datetime = original
