"""The same recipe gives the same weights, bit for bit, in any process and any order of its steps."""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.datasets import root_worker
from hepfaas.datasets.opened import OpenedFile
from hepfaas.datasets.ranges import EntryRange
from hepfaas.local.loop import Loop
from hepfaas.local.progress import Progress
from hepfaas.local.workers import perform
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.schedule import Schedule
from hepfaas.runs.steps import Step, Train
from hepfaas.steps.learning import Learners
from hepfaas.steps.objects import encoded, put_blob, result_if_there, result_of
from hepfaas.views.overview import status, verified

MODEL = b"""
import keras
def model(idim):
    layers = keras.layers
    net = keras.Sequential([
        keras.Input((idim,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.3),
        layers.Dense(1, activation="sigmoid")])
    net.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return net
"""
CALLBACKS = (
    MODEL
    + b"""
class Counting(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.waited = 0
    def on_epoch_end(self, epoch, logs=None):
        self.waited += 1
        self.model.optimizer.learning_rate = 1e-3 / self.waited
        self.model.stop_training = self.waited == 3
def callbacks():
    return [Counting(), keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=0.1)]
"""
)
OPTIONS: dict[str, Any] = {
    "epochs": 12,
    "patience": 2,
    "min_delta": 0.03,
    "learning_rate": 0.01,
    "learning_rate_schedule": Schedule(name="reduce_on_plateau", patience=1, min_delta=0.1, factor=0.5),
    "class_weight": ((0, 1.0), (1, 3.0)),
}
OTHER_MODEL = MODEL.replace(b"Dense(16", b"Dense(8")
EVENTS = 30_000
LEARNER_KINDS = ("train", "export")

InOrder = Callable[[Sequence[Step]], Sequence[Step]]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return a recipe of two files whose epochs have two segments."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(4)
    for label, name in enumerate(("background", "signal")):
        with uproot.recreate(folder / f"{name}.root") as file:
            tree = file.mktree("Events", {"met": np.float32, "pt": "var * float32", "flag": np.bool_})
            for _ in range(5):
                n = EVENTS // 5
                counts = rng.integers(0, 4, n)
                pt = ak.unflatten(rng.exponential(20 + 10 * label, counts.sum()).astype(np.float32), counts)
                met = rng.normal(10 + 5 * label, 6, n).astype(np.float32)
                tree.extend({"met": met, "pt": pt, "flag": rng.random(n) < 0.5})
    files = tuple(LabelledFile(str(folder / f"{name}.root"), n) for n, name in enumerate(("background", "signal")))
    return Recipe("same", files, code="", epochs=2, batch_size=500, segment_rows=32_000, range_events=6_000)


def with_code(store: Store, recipe: Recipe, code: bytes = MODEL) -> Recipe:
    return dataclasses.replace(recipe, code=put_blob(store, encoded({"model.py": put_blob(store, code)})))


def done(
    store: Store, recipe: Recipe, in_order: InOrder, forgetful: bool = False, kept: Learners | None = None
) -> list[Step]:
    """Do a run in this process, its ready steps in a chosen order, and return the steps.

    forgetful: each step of the learner has a process of its own. kept: where a process is kept for the next run.
    """
    learners = kept or Learners(lambda line: None)
    steps: list[Step] = []
    for ready in phases(store, recipe, in_order, learners):
        steps += ready
        if forgetful:
            learners.close()
    if not kept:
        learners.close()
    return steps


def phases(store: Store, recipe: Recipe, in_order: InOrder, learners: Learners) -> Iterator[Sequence[Step]]:
    """Do a run in this process, and yield the steps that were ready together after they are done."""
    while isinstance(coming := plan.next_steps(recipe, "run", lambda key: result_if_there(key, store)), plan.Ready):
        steps = in_order(coming.steps)
        for step in steps:
            tools: dict[str, Any] = {"learners": learners} if step.kind in LEARNER_KINDS else {}
            if step.kind == "train":
                tools["on_rows"] = lambda rows: None
            perform(step, store, **tools)
        yield steps


def weights(steps: Sequence[Step], store: Store) -> str:
    (export,) = (step for step in steps if step.kind == "export")
    return str(result_of(export.key, store)["weights"])


def kinds(steps: Sequence[Step]) -> list[str]:
    return [step.kind for step in steps]


@pytest.fixture(scope="module")
def kept() -> Iterator[Learners]:
    """The learner process of the first run."""
    with Learners(lambda line: None) as learners:
        yield learners


@pytest.fixture(scope="module")
def first(recipe: Recipe, kept: Learners, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Step], Store]:
    store = open_store(str(tmp_path_factory.mktemp("first")))
    steps = done(store, with_code(store, recipe), lambda steps: steps, kept=kept)
    return weights(steps, store), steps, store


def test_a_run_has_epochs_of_two_segments(first: tuple[str, list[Step], Store]) -> None:
    assert kinds(first[1]).count("train") == 4
    assert kinds(first[1]).count("prepare") == 10


@pytest.mark.slow
@pytest.mark.parametrize("how", ["reversed", "random", "a process for each step"])
def test_the_order_and_the_process_change_nothing(
    how: str, recipe: Recipe, first: tuple[str, list[Step], Store], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    chooser = random.Random(8)
    orders: dict[str, InOrder] = {"reversed": lambda s: s[::-1], "random": lambda s: chooser.sample(s, len(s))}
    steps = done(store, with_code(store, recipe), orders.get(how, lambda s: s), forgetful=how not in orders)
    assert weights(steps, store) == first[0]
    assert {step.key for step in steps} == {step.key for step in first[1]}


def with_options(store: Store, recipe: Recipe, code: bytes) -> Recipe:
    options: dict[str, Any] = {"epochs": 12} if code == CALLBACKS else OPTIONS
    return with_code(store, dataclasses.replace(recipe, **options), code)


@pytest.mark.slow
@pytest.mark.parametrize("code", [MODEL, CALLBACKS], ids=["options", "callbacks"])
def test_a_training_that_its_results_end_is_the_same_in_any_process(
    code: bytes, recipe: Recipe, tmp_path: Path
) -> None:
    """Early stopping, plateaus, class weights, and the user's own callbacks."""
    one, other, third = (open_store(str(tmp_path / name)) for name in ("one", "other", "third"))
    steps = done(one, with_options(one, recipe, code), lambda steps: steps)
    trained = [step for step in steps if isinstance(step, Train)]
    assert len(trained) == 2 * 3 if code == CALLBACKS else 2 * 3 <= len(trained) < 2 * 12
    rates = [result_of(step.key, one)["learning_rate"] for step in trained]
    assert len(set(rates)) > 1
    forgetful = done(other, with_options(other, recipe, code), lambda steps: steps, forgetful=True)
    assert [step.key for step in forgetful] == [step.key for step in steps]
    assert weights(forgetful, other) == weights(steps, one)
    run = records.start(third, records.Request(with_options(third, recipe, code), 0.0))
    Loop(third, run, 2, Progress()).finish()
    (key,) = third.keys("steps/export/")
    assert result_of(key, third)["weights"] == weights(steps, one)
    assert verified(third, run).holds
    assert verified(third, run).epochs == len(trained) // 2
    seen = status(third, run)
    assert seen.history is not None
    assert (len(seen.history), seen.error) == (len(trained) // 2, None)


@pytest.mark.slow
def test_a_training_by_chunks_is_the_same_in_any_process_and_passes_over_each_event(
    recipe: Recipe, tmp_path: Path
) -> None:
    """9 chunks of 7,000 events, each for two epochs one after the other, in rounds of two segments."""
    by_chunks = dataclasses.replace(recipe, chunk_events=7_000)
    one, other, third = (open_store(str(tmp_path / name)) for name in ("one", "other", "third"))
    steps = done(one, with_code(one, by_chunks), lambda steps: steps)
    trained = [step for step in steps if isinstance(step, Train)]
    assert {(step.chunks, step.passes) for step in trained} == {(9, 2)}
    assert len(trained) == 2 * 2
    forgetful = done(other, with_code(other, by_chunks), lambda steps: steps, forgetful=True)
    assert weights(forgetful, other) == weights(steps, one)
    run = records.start(third, records.Request(with_code(third, by_chunks), 0.0))
    Loop(third, run, 2, Progress()).finish()
    (key,) = third.keys("steps/export/")
    assert result_of(key, third)["weights"] == weights(steps, one)
    assert verified(third, run).holds
    store = open_store(str(tmp_path / "one"))
    rows = [result_of(step.key, store)["rows"] for step in trained]
    assert sum(rows) == 2 * verified(third, run).training_events


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(
    workers: int, recipe: Recipe, first: tuple[str, list[Step], Store], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    run = records.start(store, records.Request(with_code(store, recipe), 0.0))
    Loop(store, run, workers, Progress()).finish()
    (key,) = store.keys("steps/export/")
    assert result_of(key, store)["weights"] == first[0]


@pytest.mark.slow
def test_the_kind_of_store_changes_nothing(recipe: Recipe, first: tuple[str, list[Step], Store], s3_url: str) -> None:
    store = open_store(s3_url)
    run = records.start(store, records.Request(with_code(store, recipe), 0.0))
    Loop(store, run, 2, Progress()).finish()
    (key,) = store.keys("steps/export/")
    assert result_of(key, store)["weights"] == first[0]


def test_another_model_reads_a_header_and_no_event(recipe: Recipe, first: tuple[str, list[Step], Store]) -> None:
    steps = done(first[2], with_code(first[2], recipe, OTHER_MODEL), lambda steps: steps)
    assert set(kinds(steps)) == {"train", "export", "score", "sum", "examine", "evaluate", "publish"}


def test_more_epochs_train_those_that_are_missing(
    recipe: Recipe, kept: Learners, first: tuple[str, list[Step], Store]
) -> None:
    longer = dataclasses.replace(with_code(first[2], recipe), epochs=5)
    trained = takewhile(lambda steps: "export" not in kinds(steps), phases(first[2], longer, lambda s: s, kept))
    assert kinds(list(chain.from_iterable(trained))) == ["train"] * 3 * 2


@pytest.mark.slow
def test_the_cut_into_ranges_changes_no_spec(
    recipe: Recipe, first: tuple[str, list[Step], Store], tmp_path: Path
) -> None:
    def columns(store: Store, steps: Sequence[Step]) -> tuple[Any, Any]:
        (spec,) = (step for step in steps if step.kind == "spec")
        return result_of(spec.key, store)["columns"], result_of(spec.key, store)["events"]

    store = open_store(str(tmp_path))
    whole = dataclasses.replace(with_code(store, recipe), range_events=EVENTS, epochs=1)
    steps = done(store, whole, lambda steps: steps)
    assert kinds(steps).count("survey") == 2
    assert columns(store, steps) == columns(first[2], first[1])


@pytest.mark.slow
def test_a_deleted_part_is_made_again(recipe: Recipe, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    coded = with_code(store, recipe)
    run = records.start(store, records.Request(coded, 0.0))
    Loop(store, run, 1, Progress()).finish()
    for key in [next(store.keys("steps/prepare/")), *store.keys("steps/export/"), *store.keys("steps/publish/")]:
        store.delete(key)
    for key in store.keys("steps/score/"):
        store.delete(key)
    for key in list(store.keys("steps/sum/")):
        if "threshold" in str(result_of(key, store)) or "histograms" in str(result_of(key, store)):
            store.delete(key)
    again = records.start(store, records.Request(coded, 1.0))
    assert Loop(store, again, 1, Progress()).finish()["version"] == 1
    assert len(list(store.keys("steps/prepare/"))) == 10


SAMPLE = Path(__file__).parents[2] / "examples" / "htautau"


def identity_before(file: Any) -> str:
    """Return the identity as it was before version 2 of `open`: of size, UUID and keys."""
    keys = [file.key(name) for name in file.iterkeys(recursive=True)]
    facts = [(k.fName, k.fClassName, k.fCycle, k.fSeekKey, k.fNbytes, k.fObjlen, k.fDatime) for k in keys]
    text = repr((int(file.file.source.num_bytes), file.file.uuid.hex, facts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def opened_before(url: str, tree: str, reading: object, *form: object, or_only: bool = False) -> OpenedFile:
    """Return the header as it was read before."""
    with uproot.open({url: None}, handler=uproot.MemmapSource) as file:
        branches, left_out, edges = root_worker.branches_of(file[tree])
        identity, size = identity_before(file), int(file.file.source.num_bytes)
        return OpenedFile(
            identity=identity,
            fingerprint=identity,
            url=url,
            tree=tree,
            entries=int(file[tree].num_entries),
            size_bytes=size,
            branches=branches,
            left_out=left_out,
            edges=edges,
        )


def read_before(
    url: str, identity: str, tree: str, branches: Sequence[str], entries: EntryRange, reading: object, layout: str
) -> dict[str, ak.Array]:
    """Return branches as they were read before."""
    with uproot.open({url: None}, handler=uproot.MemmapSource) as file:
        assert identity_before(file) == identity
        arrays: dict[str, ak.Array] = file[tree].arrays(
            list(branches), entry_start=entries.start, entry_stop=entries.stop, library="ak", how=dict, array_cache=None
        )
        return arrays


@pytest.mark.slow
def test_with_the_identity_of_before_the_weights_are_those_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights follow from the steps and from what is read for them, so they are compared with those of files that
    are identified and read as before."""
    files = tuple(LabelledFile(str(SAMPLE / f"{name}_tautau.root"), n) for n, name in enumerate(("ggH", "VBF")))
    recipe = Recipe("same", files, code="", epochs=2, batch_size=100, segment_rows=4_000, range_events=2_000)
    stores = [open_store(str(tmp_path / name)) for name in ("now", "before", "new")]
    runs = []
    for store in stores:
        with monkeypatch.context() as patch:
            if store is stores[0]:
                patch.setattr(
                    "hepfaas.datasets.opened.identity_of", lambda source, fingerprint, url, reading: fingerprint
                )
            if store is stores[1]:
                patch.setattr("hepfaas.steps.open.opened", opened_before)
                patch.setattr("hepfaas.steps.events.read", read_before)
            runs.append(done(store, with_code(store, recipe), lambda steps: steps))
    keys = [{step.key for step in steps if step.kind in ("survey", "spec", "prepare", "train")} for steps in runs]
    assert keys[0] == keys[1]
    hashes = [weights(steps, store) for steps, store in zip(runs, stores, strict=True)]
    assert hashes[0] == hashes[1]
    assert hashes[2] != hashes[0]
    assert not keys[2] & {key for key in keys[0] if "/train/" in key or "/prepare/" in key}
