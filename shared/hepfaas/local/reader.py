"""`hepfaas reader`: the options of MLaaS4HEP's reader.py. It reads events of one file as a training does, and writes
the ranges of its branches and their histograms."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hepfaas.datasets.files import Locations
from hepfaas.datasets.listings import on_server
from hepfaas.errors import RequestError
from hepfaas.features.matrix import denormalise
from hepfaas.features.old_specs import old_specs
from hepfaas.features.spec import FeatureSpec
from hepfaas.jobs.texts import Texts
from hepfaas.local.given_files import GivenFiles
from hepfaas.local.prepare import Work
from hepfaas.local.progress import Progress
from hepfaas.local.workers import Workers
from hepfaas.platform.storage import Store, probe
from hepfaas.platform.terminal import visible
from hepfaas.runs import plan
from hepfaas.runs.params import REDIRECTOR, params_in
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.splits import Split
from hepfaas.steps.objects import open_part

PDFS = "pdfs"
MOST_DRAWN = 100_000
"""Events in the histograms."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Options of reader.py, with its defaults.

    fin: file. fout: gets the ranges. preproc, specs: paths. nan: feature of slots without a value. branch: name of the
    tree. identifier, branches, exclude_branches: names with commas, '' for the usual ones; exclude_branches: also the
    path of a list. nevts: events, -1: all. hists: write histograms. verbose: as of params.json.
    """

    fin: str
    fout: str = ""
    preproc: str = ""
    nan: float = float("nan")
    branch: str = "Events"
    identifier: str = ""
    branches: str = ""
    exclude_branches: str = ""
    nevts: int = 5
    specs: str = ""
    redirector: str = REDIRECTOR
    hists: bool = False
    verbose: int = 0


def location(options: Reader, place: Path) -> str:
    """Return the path or address of the file. Raises: RequestError if there is none."""
    found = Locations(on_server, options.redirector, place, inside=False).of(options.fin)
    if len(found) != 1:
        raise RequestError(f"--fin '{options.fin[:200]}' matches {len(found):,} files; name one")
    return found[0]


def read(options: Reader, place: Path, store: Store, workers: int) -> dict[str, Any]:
    """Read events of a file, write what the options want into `place`, and return what was read.

    Results in the store that a training on these events has made, or will make, are the same.
    """
    start = time.monotonic()
    probe(store)
    recipe, notes = _recipe(options, place)
    progress = Progress()
    for note in notes:
        progress.say(f"note: {note}")
    with progress, Workers(workers, store.url) as pool:
        prepared = Work(store, recipe, pool, progress, options.verbose).prepared()
    spec = FeatureSpec.from_json(json.loads(store.get(prepared.spec)))
    n_events = sum(sum(part.rows) for part in prepared.parts)
    files = []
    if options.fout:
        (place / options.fout).write_text(f"{json.dumps(old_specs(spec, {}), indent=1)}\n")
        files.append(str(place / options.fout))
    if options.hists:
        files += _histograms(prepared, spec, store, place / PDFS)
    n_flat = sum(branch.n_columns for branch in spec.branches if not branch.jagged)
    return {
        "file": recipe.files[0].url,
        "events": n_events,
        "branches": len(spec.branches),
        "flat_features": n_flat,
        "jagged_features": spec.n_features - n_flat,
        "files": files,
        "seconds": round(time.monotonic() - start, 2),
    }


def report_text(report: Mapping[str, Any]) -> str:
    """Return what was read as text."""
    written = "".join(f"\nwritten: {visible(name)}" for name in report["files"])
    return (
        f"read {report['events']:,} events of {visible(report['file'])}: {report['flat_features']:,} flat and "
        f"{report['jagged_features']:,} jagged features of {report['branches']:,} branches, in "
        f"{report['seconds']:.1f} s{written}"
    )


def _recipe(options: Reader, place: Path) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe that prepares the events, and notes."""
    values = {
        "nevts": options.nevts,
        "branch": options.branch,
        "identifier": options.identifier,
        "selected_branches": options.branches,
        "exclude_branches": options.exclude_branches,
        "nan": "" if math.isnan(options.nan) else options.nan,
    }
    given = GivenFiles(place)
    if given.has(options.exclude_branches):
        values["exclude_branches"] = given.file("exclude-branches", options.exclude_branches)
    preproc, specs = (
        given.file(option, value) if value else ""
        for option, value in (("preproc", options.preproc), ("specs", options.specs))
    )
    texts = given.above(Texts((), _no_file, lambda name: len(_no_file(name)), "this command"))
    params = params_in({name: value for name, value in values.items() if value != ""}, "the options")
    params = texts.completed(params, preproc, specs)
    recipe = Recipe(name="reader", files=(LabelledFile(location(options, place), 0),), code="", **params.recipe)
    ranges = replace(recipe.specs, events=())  # of all files of a training, of which this is one
    return replace(recipe, specs=ranges), params.notes


def _no_file(name: str) -> bytes:
    raise FileNotFoundError(name)


def _histograms(prepared: plan.Prepared, spec: FeatureSpec, store: Store, folder: Path) -> list[str]:
    """Write the histograms of the branches, in their units and as features, and return the paths."""
    from hepfaas.evaluation import branch_plots, branches  # matplotlib: only where pictures are drawn
    from hepfaas.evaluation.sample import Sample
    from hepfaas.steps.examine import by_branch, scaled_by_branch

    features = [np.zeros((0, spec.n_features), dtype=np.float32)]
    left = MOST_DRAWN
    for part in prepared.parts:
        stored = open_part(part.key, part.size_bytes, store)
        for number in (number for split in Split for number in stored.facts.batches(split)):
            rows = stored.prepared(number).features[:left]
            features.append(rows)
            left -= len(rows)
    joined = np.concatenate(features)
    n_events = len(joined)
    sample = Sample(
        branches=by_branch(denormalise(joined, spec), spec),
        scaled=scaled_by_branch(joined, spec),
        spectators={},
        probabilities=np.ones((n_events, 1)),
        labels=np.zeros(n_events, dtype=np.int64),
        weights=np.ones(n_events),
    )
    passed, names = np.ones(n_events, dtype=bool), [Path(next(url for url, _ in prepared.files.values())).stem]
    pictures = {
        **branch_plots.branches(branches.to_json(branches.branch_histograms(sample, passed)), names),
        **branch_plots.scaled(branches.to_json(branches.scaled_histograms(sample, passed)), names),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = {folder / name: data for name, data in pictures.items() if name.endswith(".pdf")}
    for path, data in written.items():
        path.write_bytes(data)
    return [str(path) for path in written]
