"""k-fold training: each event is scored by the network that has not learned it, and the served model is the mean."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.models.inference import INFERENCE, Graph
from hepfaas.models.versions import Version
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.folds import Folds
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.steps.objects import open_part, result_of
from hepfaas.training.split import folds_of
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

EXAMPLE = Path(__file__).parents[2] / "examples" / "htautau"
FILES = ("ggH_tautau.root", "VBF_tautau.root")
N_FOLDS = 3


DRAWN = pytest.param("drawn", marks=pytest.mark.slow)
FOLDS: dict[str, Any] = {"by": {"number": N_FOLDS, "by": "event"}, "drawn": N_FOLDS}
"""Value of the key by the name of the model."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, in which the sample is trained with folds by the event number."""
    path = tmp_path_factory.mktemp("place")
    folder = path / "job"
    folder.mkdir()
    for name in (*FILES, "files.txt", "labels.txt", "model.py"):
        shutil.copy(EXAMPLE / name, folder)
    train(path, "by")
    return path


def train(place: Path, name: str) -> None:
    """Train the model of this name, unless it was trained before."""
    if versions.newest(open_store(f"{place}/store/local"), name):
        return
    folder = place / "job"
    params = json.loads((EXAMPLE / "params.json").read_text()) | {"epochs": 2, "range_events": 2000}
    (folder / f"{name}.json").write_text(json.dumps({**params, "folds": FOLDS[name]}))
    words = ["train", str(folder), "--params", f"{name}.json", "--name", name, "--store", str(place / "store")]
    assert main(words) == 0


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return open_store(f"{place}/store/local")


def predicted(place: Path, model: str, file: Path) -> pd.DataFrame:
    out = place / f"{model}-{file.stem}.parquet"
    assert main(["predict", model, str(file), "--out", str(out), "--store", str(place / "store")]) == 0
    return pd.read_parquet(out).sort_values("entry", ignore_index=True)


def outputs_of(store: Store, name: str, features: NDArray[np.float32], graph: str) -> NDArray[np.float32]:
    outputs = N_FOLDS if graph == versions.FOLDS else 1
    data = store.get(Version(name, 1).prefix + graph)
    with INFERENCE.model(Graph(data, features.shape[1:], outputs)) as model:
        return model.predict(features)


def test_rows(store: Store, name: str) -> tuple[NDArray[Any], ...]:
    """Return the test rows of all folds: file, entry, label, fold and features."""
    card = versions.card_of(store, Version(name, 1))
    files, entries, labels, folds, features = [], [], [], [], []
    for fold in range(N_FOLDS):
        for part in prepared_parts(result_of(card["steps"]["data"], store), fold):
            stored = open_part(part.key, part.size_bytes, store)
            for number, _ in part.batches(Split.TEST):
                rows = stored.prepared(number)
                features.append(rows.features)
                entries.append(rows.entries)
                labels.append(rows.columns.get("label", np.full(len(rows), part.label)))
                files.append(np.full(len(rows), part.label))
                folds.append(np.full(len(rows), fold))
    joined = map(np.concatenate, (files, entries, labels, folds))
    return (*joined, np.concatenate(features))


test_rows.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["by", DRAWN])
def test_each_event_has_the_score_of_the_network_that_has_not_learned_it(place: Path, store: Store, name: str) -> None:
    train(place, name)
    files, entries, labels, folds, features = test_rows(store, name)
    assert len(files) == len({*zip(files, entries, strict=True)}) == 10_000
    each = outputs_of(store, name, features, versions.FOLDS)
    own = each[np.arange(len(folds)), folds]
    for number, file in enumerate(FILES):
        scores = predicted(place, name, place / "job" / file)
        mine = files == number
        np.testing.assert_array_equal(scores["score"].to_numpy()[entries[mine]], own[mine])
        events = uproot.open(place / "job" / file)["Events"]["event"].array().to_numpy()
        np.testing.assert_array_equal(scores["event"], events)  # an identifier stays one when it gives the fold
    if name == "by":
        for number, file in enumerate(FILES):
            events = uproot.open(place / "job" / file)["Events"]["event"].array().to_numpy()
            np.testing.assert_array_equal(folds[files == number], events[entries[files == number]] % N_FOLDS)
    evaluation = json.loads(store.get(Version(name, 1).prefix + versions.EVALUATION))
    test = evaluation["metrics"]["test"]
    assert test["events"] == 10_000
    assert test["auc"] == pytest.approx(roc_auc_score(labels, own), abs=1e-3)
    for fold, of_fold in enumerate(evaluation["folds"]):
        mine = folds == fold
        assert of_fold["metrics"]["events"] == mine.sum()
        assert of_fold["metrics"]["auc"] == pytest.approx(roc_auc_score(labels[mine], own[mine]), abs=1e-3)
        assert len(of_fold["history"]) == 2


def test_the_served_model_is_the_mean_of_all_networks(place: Path, store: Store) -> None:
    features = test_rows(store, "by")[-1][:500]
    each, mean = (outputs_of(store, "by", features, graph) for graph in (versions.FOLDS, versions.GRAPH))
    assert np.ptp(each, axis=1).max() > 0.01  # the networks differ
    np.testing.assert_allclose(mean[:, 0], each.mean(axis=1), atol=1e-6)
    card = versions.card_of(store, Version("by", 1))
    assert card["outputs"] == 1
    assert card["best_epoch"] is None


def test_files_of_others_get_the_network_of_their_fold_where_it_can_be_known(place: Path, store: Store) -> None:
    unseen = EXAMPLE / "unseen.root"
    events = uproot.open(unseen)["Events"].arrays(library="ak")
    without = place / "without.root"
    with uproot.recreate(without) as file:
        file.mktree("Events", {name: events[name].type.content for name in events.fields if name != "event"})
        file["Events"].extend({name: events[name] for name in events.fields if name != "event"})
    by, mean = (predicted(place, "by", file)["score"] for file in (unseen, without))
    assert (by != mean).any()
    folds = events["event"].to_numpy() % N_FOLDS
    assert by.mean() == pytest.approx(mean.mean(), abs=0.02)
    assert len(np.unique(folds)) == N_FOLDS


@pytest.mark.slow
def test_the_fold_of_a_drawn_event_depends_on_file_entry_and_seed_alone(place: Path, store: Store) -> None:
    train(place, "drawn")
    rule = versions.card_of(store, Version("drawn", 1))["folds"]
    _, entries, _, folds, _ = test_rows(store, "drawn")
    parts = result_of(versions.card_of(store, Version("drawn", 1))["steps"]["data"], store)["parts"]
    identity = next(part["file"] for part in parts if part["label"] == 0)
    assert set(rule["files"]) == {part["file"] for part in parts}
    mine = test_rows(store, "drawn")[0] == 0
    np.testing.assert_array_equal(folds_of(identity, entries[mine], 21, Folds(N_FOLDS)), folds[mine])


@pytest.mark.parametrize("name", ["by", DRAWN])
def test_the_ledger_counts_each_fold_and_the_report_shows_them(
    place: Path, store: Store, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    train(place, name)
    run = f"{name}-1"
    assert main(["status", run, "--verify", "--json", "--store", str(place / "store")]) == 0
    status = json.loads(capfd.readouterr().out)
    assert status["ledger"]["holds"]
    assert (status["ledger"]["training_events"], status["ledger"]["epochs"]) == pytest.approx((16_000, 6), rel=0.02)
    assert [(row["fold"], row["epoch"]) for row in status["epochs"]] == [(f, e) for f in (1, 2, 3) for e in (1, 2)]
    page = place / f"{name}.html"
    assert main(["report", run, "--out", str(page), "--store", str(place / "store")]) == 0
    text = page.read_text()
    assert "fold 3: 2 epochs" in text
    assert "test auc" in text
    recipe = records.request_of(store, run).recipe
    assert recipe.folds.number == N_FOLDS  # type: ignore[union-attr]


@pytest.mark.slow
def test_runs_with_and_without_folds_are_compared(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(place, "drawn")
    capfd.readouterr()
    assert main(["compare", "by-1", "drawn-1", "--store", str(place / "store")]) == 0
    shown = capfd.readouterr().out
    assert "2, 2, 2" in shown
    assert "folds" in shown


def test_events_that_the_cuts_reject_and_files_without_events_have_no_score(place: Path) -> None:
    folder = place / "cut"
    shutil.copytree(place / "job", folder)
    params = json.loads((folder / "by.json").read_text()) | {"epochs": 1, "nevts": 2000, "cuts": {"met": "MET_pt < 20"}}
    (folder / "params.json").write_text(json.dumps(params))
    assert main(["train", str(folder), "--name", "cut", "--store", str(place / "store")]) == 0
    events = uproot.open(EXAMPLE / "unseen.root")["Events"].arrays(library="ak")
    types = {name: events[name].type.content for name in events.fields}
    for name, chosen in (("none", events[:0]), ("rejected", events[events["MET_pt"] > 20])):
        path = place / f"{name}.root"
        with uproot.recreate(path) as file:
            file.mktree("Events", types)
            if len(chosen):
                file["Events"].extend({field: chosen[field] for field in chosen.fields})
        scores = predicted(place, "cut", path)
        assert len(scores) == len(chosen)
        assert {"event", "score"} <= set(scores.columns)
        assert scores["score"].isna().all()
