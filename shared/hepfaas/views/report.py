"""Everything that is known of a training: its run, data, recipe, model and evaluation, read from the store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hepfaas.errors import MissingError, NotThereError, RequestError
from hepfaas.features.spec import FeatureSpec
from hepfaas.models import versions
from hepfaas.models.versions import Version
from hepfaas.orchestration import records, remarks
from hepfaas.orchestration.remarks import Note
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store, is_name
from hepfaas.runs import plan, preparation
from hepfaas.runs.differences import Setting, settings
from hepfaas.runs.ledger import Ledger
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.results import Header
from hepfaas.runs.skipped import Skipped, skipped_files
from hepfaas.runs.splits import Split
from hepfaas.steps.objects import code_files, result_if_there
from hepfaas.views import overview

MOST_RUNS = 2_000
"""Runs of a model that are searched for the one that published a version."""

MOST_CODE_BYTES = 500_000
"""Size of the code files that are read."""


@dataclass(frozen=True)
class File:
    """One file of a training. entries: events in it, None if it is not known; split: selected events of each split."""

    identity: str
    name: str
    sample: str
    label: int | None
    entries: int | None
    split: tuple[int, ...]

    @property
    def events(self) -> int:
        """Selected events."""
        return sum(self.split)


@dataclass(frozen=True)
class Trained:
    """Optimizer settings of the trained model. rate: learning rate of the published epoch. rates: of each epoch, ()
    if the results of the steps are not in the store any more, or an earlier release has named them otherwise."""

    optimizer: str
    rate: float | None
    rates: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A training and its model version. run: '' if it is not known any more; then files have no names, and there is no
    ledger. evaluation: the values of evaluation.json. code: text of the code files. pictures: names of PNG and PDF
    files of the version. skipped: files that could not be read and were left out. A model that was uploaded has no
    evaluation, spec, code and files."""

    version: Version
    card: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    spec: FeatureSpec | None
    code: Mapping[str, str]
    files: Sequence[File]
    pictures: Sequence[str]
    run: str = ""
    created: float | None = None
    ended: float | None = None
    submitter: str = ""
    tags: Sequence[str] = ()
    notes: Sequence[Note] = ()
    messages: Sequence[str] = ()
    trained: Trained | None = None
    ledger: Ledger | None = None
    skipped: Sequence[Skipped] = ()

    @property
    def is_trained(self) -> bool:
        """True if the model was trained by hepfaas."""
        return "recipe" in self.card

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe without its files, as JSON values; {} if the model was not trained here."""
        return dict(self.card.get("recipe", {}))

    @property
    def settings(self) -> list[Setting]:
        """The settings of the recipe, those with other values than the default first."""
        return settings(self.recipe) if self.is_trained else []

    @property
    def classes(self) -> list[str]:
        """The names of the classes; none of a regression."""
        if self.card.get("targets"):
            return []
        for metrics in self.card["metrics"].values():
            if report := metrics.get("classification"):
                return [str(each["name"]) for each in report["classes"]]
        return [f"label {label}" for label in self.card["labels"]]

    def events_of(self, split: int, files: Sequence[File]) -> int | None:
        """Return the number of events of a split in some of the files; None for the training and validation events of a
        run with folds, which each network has of its own."""
        if self.card.get("folds") and split != Split.TEST:
            return None
        return sum(file.split[split] for file in files)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        values: dict[str, Any] = {
            "run": self.run or None,
            "model": str(self.version),
            "created": None if self.created is None else utc(self.created),
            "tags": list(self.tags),
            "user_notes": [note.to_json() for note in self.notes],
            "notes": list(self.messages),
            "metrics": self.card["metrics"],
            "cut_flow": self.evaluation.get("cut_flow"),
            "history": self.evaluation.get("history"),
            "folds": self.evaluation.get("folds"),
            "optimizer": self.trained.optimizer if self.trained else None,
            "settings": {each.name: list(each.value) for each in self.settings if not each.is_default},
            "parameters": self.card["parameters"],
            "weights": self.card.get("weights"),
            "skipped_files": [one.to_json() for one in self.skipped] or None,
        }
        known = {name: value for name, value in values.items() if value is not None}
        return {**known, "best_epoch": self.card["best_epoch"]}


def named(store: Store, name: str) -> Report:
    """Return the report of '<run>', '<model>/<version>' or '<model>' (its newest version).

    Raises: RequestError if there is none, or the run published no model.
    """
    first, slash, number = name.partition("/")
    if not is_name(first) or (slash and not is_name(number)):
        raise NotThereError(f"there is no run or model '{name[:100]}'")
    if not slash and records.is_there(store, name) and not records.is_deleted(store, name):
        return of_run(store, name)
    try:
        return of_version(store, versions.find(store, first, number))
    except NotThereError as error:
        if slash:
            raise
        finding = f"has no run and no model '{name}'"
        text = f"store {store.url} {finding}; `hepfaas runs` and `hepfaas models` list them, --url names a service"
        outside = f"the store {finding}; GET /v1/runs and GET /v1/models list them"
        raise NotThereError(text, outside=outside) from error


def version_of(store: Store, run: str) -> Version:
    """Return the model version that a run published. Raises: NotThereError if there is none."""
    end = records.last_end(store, run)
    if end is None or not end.model:
        state = (end.refused or f"it is {end.state}") if end else "it is under way"
        if isinstance(records.request_of(store, run).recipe, Prediction):
            state = f"it is a prediction; GET /v1/runs/{run}/scores returns its scores"
        raise NotThereError(f"run '{run}' has published no model: {state}")
    name, _, number = end.model.rpartition("/")
    version = Version(name, int(number))
    if not versions.is_there(store, version):
        raise NotThereError(f"model version '{version}' of run '{run}' was deleted; GET /v1/models lists the others")
    return version


def of_run(store: Store, run: str) -> Report:
    """Return the report of a run. Raises: RequestError if there is no such run, or it published no model."""
    return _report(store, version_of(store, run), run)


def of_version(store: Store, version: Version) -> Report:
    """Return the report of a published model version."""
    return _report(store, version, _run_of(store, version))


def _report(store: Store, version: Version, run: str) -> Report:
    card = versions.card_of(store, version)
    trained = "recipe" in card
    if trained:
        card["recipe"].pop("files", None)  # of earlier releases
    request = records.request_of(store, run) if run else None
    recipe = request.recipe if request and isinstance(request.recipe, Recipe) else None
    end = records.last_end(store, run) if run else None
    return Report(
        version=version,
        card=card,
        evaluation=json.loads(store.get(version.prefix + versions.EVALUATION)) if trained else {},
        spec=FeatureSpec.from_json(json.loads(store.get(version.prefix + versions.SPEC))) if trained else None,
        code=_code(store, str(card["recipe"]["code"])) if trained else {},
        files=_files(store, card, recipe, run),
        pictures=[name for name in versions.files_of(store, version) if name.endswith((".png", ".pdf"))],
        run=run,
        created=request.created if request else None,
        ended=end.time if end else None,
        submitter=str(request.submitter.get("name") or request.submitter.get("subject") or "") if request else "",
        tags=remarks.tags_of(store, run) if run else (),
        notes=remarks.notes_of(store, run) if run else (),
        messages=_messages(request.notes if request else (), card),
        trained=_trained(store, card, recipe, run),
        ledger=_ledger(store, recipe, run) if recipe else None,
        skipped=skipped_files(recipe, _headers(store, recipe, run)) if recipe else (),
    )


def _run_of(store: Store, version: Version) -> str:
    """Return the run that published a version, '' if it was deleted."""
    runs = (run for _, run in records.newest(store) if run.rpartition("-")[0] == version.name)
    for run in itertools.islice(runs, MOST_RUNS):
        end = records.last_end(store, run)
        if end and end.model == str(version):
            return run
    return ""


def _messages(notes: Iterable[str], card: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the notes of a run, each once, and how outputs become scores."""
    score = str(card.get("score", ""))
    return tuple(dict.fromkeys([*notes, *map(str, card.get("notes", ())), *([score] if score else [])]))


def _code(store: Store, manifest: str) -> dict[str, str]:
    """Return the text of the code files, as far as they are small; none if they were removed."""
    try:
        files = code_files(manifest, store)
    except MissingError:
        return {}
    texts, left = {}, MOST_CODE_BYTES
    for name, data in sorted(files.items()):
        is_text = len(data) <= left and b"\0" not in data
        texts[name] = data.decode("utf-8", "replace") if is_text else f"({len(data):,} bytes)"
        left -= min(len(data), left)
    return texts


def _files(store: Store, card: Mapping[str, Any], recipe: Recipe | None, run: str) -> list[File]:
    """Return the files of a version; with names and samples if the run and its opened files are known."""
    known: dict[str, tuple[LabelledFile, int]] = {}
    if recipe:
        pairs = zip(_headers(store, recipe, run), recipe.files, strict=False)
        known = {header.identity: (file, header.entries) for header, file in pairs}
        names = dict(zip(recipe.labels, recipe.classes, strict=True))
    files = []
    for values in card["data"]:
        identity, split, label = str(values["file"]), tuple(values["split"]), values["label"]
        if identity in known:
            file, entries = known[identity]
            sample = file.sample or names[file.label]
            files.append(
                File(identity, file.address, sample, None if recipe and recipe.label else label, entries, split)
            )
        else:
            files.append(File(identity, "", "", None if label < 0 else label, None, split))
    return files


def _trained(store: Store, card: Mapping[str, Any], recipe: Recipe | None, run: str) -> Trained | None:
    """Return what the learner has recorded; None if it was removed."""
    checkpoint = card.get("steps", {}).get("checkpoint")
    published = result_if_there(checkpoint, store) if checkpoint else None
    if not published:
        return None
    rates: list[float | None] = []
    if recipe:
        with suppress(RequestError, MissingError):
            chains = plan.chains_of(recipe, _attempt(store, run), _results(store))
            results = [result_if_there(segments[-1].key, store) for chain in chains[:1] for segments in chain]
            rates = [each.get("learning_rate") for each in results if each]
    return Trained(str(published.get("optimizer", "")), published.get("learning_rate"), rates)


def _ledger(store: Store, recipe: Recipe, run: str) -> Ledger | None:
    with suppress(RequestError, MissingError):
        return overview.counted(store, run, recipe)
    return None


def _headers(store: Store, recipe: Recipe, run: str) -> list[Header]:
    """Return the header of each file; none if they are not in the store any more."""
    return preparation.headers(recipe, _attempt(store, run), _results(store))


def _attempt(store: Store, run: str) -> str:
    return f"{run}/{records.attempt(store, run).number}"


def _results(store: Store) -> Any:
    return lambda key: result_if_there(key, store)


def short_name(file: File) -> str:
    """Return the last part of a file's address, or the begin of its identity."""
    return PurePosixPath(file.name).name if file.name else file.identity.removeprefix("address-")[:12]
