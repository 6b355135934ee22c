"""`hepfaas train`: trains on a folder and publishes a model version, or shows what that would do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hepfaas.datasets.files import checked_name
from hepfaas.datasets.listings import on_server
from hepfaas.features.branches import BranchSurvey, total
from hepfaas.features.findings import findings
from hepfaas.features.preprocess import sources_of
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import Job, recipe_of
from hepfaas.local.loop import Loop
from hepfaas.local.progress import Progress
from hepfaas.local.tables import metrics_text, size, table
from hepfaas.local.workers import perform
from hepfaas.models import versions
from hepfaas.orchestration import records, remarks
from hepfaas.platform.storage import StagedStore, Store, probe
from hepfaas.platform.terminal import visible
from hepfaas.runs import epochs, plan, preparation
from hepfaas.runs.notes import on_labels
from hepfaas.runs.phases import Finished, Input, Ready
from hepfaas.runs.recipe import Recipe
from hepfaas.runs.results import Header
from hepfaas.runs.skipped import read_files, skipped_files
from hepfaas.runs.steps import Survey
from hepfaas.steps.objects import result_if_there, result_of

HISTOGRAMS = ("branches.pdf", "branches_scaled.pdf")
SAMPLE_FILES, SAMPLE_ENTRIES = 10, 10_000
"""Most files of which a dry run reads entries, and most entries of each."""


def train(
    folder: Path,
    names: Mapping[str, str],
    store: Store,
    workers: int,
    tags: Sequence[str] = (),
    verbose: int | None = None,
) -> dict[str, Any]:
    """Train on a folder, or continue its unfinished run, and return run, model, metrics and files. tags: of the run.
    verbose: None takes that of params.json."""
    remarks.check_tags(tags)
    probe(store)
    job = job_in(folder, names, inside=False, listing=on_server)
    return train_on(job, store, workers, tags, verbose)


def train_on(
    job: Job, store: Store, workers: int, tags: Sequence[str] = (), verbose: int | None = None
) -> dict[str, Any]:
    """Train on a job, as `train`."""
    start = time.monotonic()
    histograms = _folder_of_histograms(job)
    recipe = recipe_of(job, store)
    run = records.start(store, records.Request(recipe, time.time(), job.notes))
    remarks.tag(store, run, tags)
    progress = Progress()
    progress.say(f"run {run}: {len(recipe.files)} files, {recipe.epochs} epochs; store {store.url}")
    for note in job.notes:
        progress.say(f"note: {note}")
    model = Loop(store, run, workers, progress, job.params.verbose if verbose is None else verbose).finish()
    version = versions.Version(model["name"], model["version"])
    card = versions.card_of(store, version)
    folds = json.loads(store.get(version.prefix + versions.EVALUATION)).get("folds")
    headers = preparation.headers(
        recipe, f"{run}/{records.attempt_of(store, run)}", lambda key: result_if_there(key, store)
    )
    copied = _copied(version, model["files"], store, histograms, progress.say) if histograms else []
    return {
        "run": run,
        "model": str(version),
        "best_epoch": card["best_epoch"],
        **({"folds": folds} if folds else {}),
        "metrics": card["metrics"],
        "weights": card["weights"],
        "skipped_files": [one.to_json() for one in skipped_files(recipe, headers)],
        "files": [f"{store.url}/{version.prefix}{name}" for name in model["files"]],
        **({"histograms": copied} if histograms else {}),
        "seconds": round(time.monotonic() - start, 2),
    }


def _folder_of_histograms(job: Job) -> Path | None:
    """Return the folder that gets the histograms of the branches, None for none. Raises: RequestError if it is outside
    the job's folder."""
    return job.folder / checked_name(job.params.histograms) if job.folder and job.params.histograms else None


def _copied(
    version: versions.Version, files: Sequence[str], store: Store, folder: Path, say: Callable[[str], None]
) -> list[str]:
    """Copy the histograms of the branches into a folder; return their paths, none if it cannot be written."""
    names = [name for name in HISTOGRAMS if name in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(store.get(version.prefix + name))
    except OSError as error:
        say(f"note: the histograms cannot be written to '{folder}' ({error.strerror}); they are beside the model")
        return []
    return [str(folder / name) for name in names]


def report_text(report: Mapping[str, Any]) -> str:
    """Return the result of a training as text."""
    plots = "\n".join(f"  {visible(name)}" for name in report["files"] if name.endswith((".png", ".pdf")))
    return (
        f"{metrics_text(report)}, in {report['seconds']:.1f} s. Plots:\n{plots}\n"
        f"Next: hepfaas predict {report['model'].partition('/')[0]} FILE"
    )


def outlook(folder: Path, names: Mapping[str, str], store: Store) -> dict[str, Any]:
    """Return what training on a folder would read and do, and which results exist. Stores nothing."""
    staged = StagedStore(store)
    job = job_in(folder, names, inside=False, listing=on_server)
    recipe = recipe_of(job, staged)
    for level in preparation.open_levels(recipe, "dry-run"):
        for step in level:
            perform(step, staged)

    def results(key: str) -> dict[str, Any] | None:
        return result_if_there(key, staged)

    headers = preparation.headers(recipe, "dry-run", results)
    read = [header for _, header in read_files(recipe, headers)]
    skipped = skipped_files(recipe, headers)
    files = [
        {
            "file": file.name,
            "label": file.label,
            "events": file.entries,
            "ranges": len(file.ranges),
            "bytes": _size_bytes(file, opened),
        }
        for file, opened in zip(preparation.inputs(recipe, headers), read, strict=True)
    ]
    steps = _steps(recipe, files, plan.next_steps(recipe, "dry-run", results))  # before a sample is surveyed
    return {
        "name": recipe.name,
        "files": files,
        "skipped_files": [one.to_json() for one in skipped],
        "events": sum(file["events"] for file in files),
        "bytes": sum(file["bytes"] for file in files),
        "features": len(read[0].features),
        "left_out": [f"{name} ({why})" for name, why in read[0].left_out],
        "notes": [
            *job.notes,
            *(f"file '{one.file}' is skipped: {one.reason}" for one in skipped),
            *plan.empty_files(recipe, headers),
            *read[0].notes,
            *_findings(recipe, read[0], staged),
            *on_labels(recipe),
        ],
        "steps": steps,
    }


def _findings(recipe: Recipe, header: Header, staged: Store) -> list[str]:
    """Return notes on the values of the branches: from the whole survey if it exists, else from the first entries of
    some files."""

    def results(key: str) -> dict[str, Any] | None:
        return result_if_there(key, staged)

    known = plan.findings(recipe, "dry-run", results)
    if known is not None:
        return known
    firsts: dict[str, Survey] = {}
    for step in preparation.surveys(recipe, "dry-run", results):
        firsts.setdefault(step.file, step)
    files = list(firsts.values())
    sample = [_beginning(step) for step in files[:: max(1, -(-len(files) // SAMPLE_FILES))]]
    for step in sample:
        perform(step, staged)
    survey = total([BranchSurvey.from_json(result_of(step.key, staged)) for step in sample])
    events = sum(step.n_events for step in sample)
    sources = sources_of(recipe.preprocessing, header.inputs)
    return [f"in a sample of {events:,} events: {note}" for note in findings(survey.branches, sources)]


def _beginning(step: Survey) -> Survey:
    start, stop = step.entries
    return replace(step, entries=(start, min(stop, start + SAMPLE_ENTRIES)))


def outlook_text(outlook: Mapping[str, Any]) -> str:
    """Return an outlook as text."""
    files = table([{**file, "bytes": size(file["bytes"])} for file in outlook["files"]], "no file")
    steps = table(outlook["steps"], "nothing to do")
    notes = "".join(f"note: {visible(note)}\n" for note in outlook["notes"])
    names = ", ".join(map(visible, outlook["left_out"]))
    left_out = f"left out, without numbers: {names}\n" if names else ""
    amount = f"{outlook['events']:,} events, {size(outlook['bytes'])} uncompressed in {outlook['features']} branches"
    return f"{files}\n\n{amount}\n{left_out}{notes}\n{steps}\n\nNothing was stored."


_PHASES = ("survey", "prepare", "train", "score")


def _steps(recipe: Recipe, files: list[dict[str, Any]], coming: Ready | Finished) -> list[dict[str, Any]]:
    """Return the steps of each phase and the number of results that exist. After the next phase none is known."""
    ranges = sum(file["ranges"] for file in files)
    share = 0.8 * (1 - 1 / recipe.folds.number) if recipe.folds else 0.64
    rows = int(share * sum(file["events"] for file in files))
    segments = (
        recipe.epochs
        * len(recipe.fold_numbers)
        * epochs.n_segments(rows, recipe.segment_rows or epochs.usual_segment_rows(1), _n_chunks(recipe, rows, files))
    )
    totals = {
        "survey": ranges,
        "prepare": ranges,
        "train": segments,
        "score": ranges * len(recipe.fold_numbers),
    }
    order = ("open", "survey", "spec", "weigh", "prepare", "train", "export", "score", "examine", "evaluate", "publish")
    next_phase = len(order) if isinstance(coming, Finished) else order.index(coming.phase)
    table = []
    for phase in _PHASES:
        total = totals[phase]
        done = total if order.index(phase) < next_phase else 0
        if isinstance(coming, Ready) and coming.phase == phase:
            total, done = coming.total, coming.done
        table.append({"step": phase, "to do": total - done, "there": done})
    return table


def _n_chunks(recipe: Recipe, rows: int, files: Sequence[Mapping[str, Any]]) -> int:
    events = sum(file["events"] for file in files)
    count = min(-(-events // recipe.chunk_events), rows) if recipe.chunk_events else 0
    return count if count > 1 else 0


def _size_bytes(file: Input, header: Header) -> int:
    return int(header.read_bytes * file.entries / header.entries) if header.entries else 0
