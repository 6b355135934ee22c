"""Warnings about branch values are shown before training: by inspect, the dry run, the status and the log."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import recipe_of
from hepfaas.local.workers import perform
from hepfaas.orchestration import records
from hepfaas.orchestration.records import Entry
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan
from hepfaas.runs.phases import Ready
from hepfaas.steps.objects import result_if_there
from hepfaas.views import overview
from hepfaas.views.following import follow_log

SENTINEL = (
    "-999 is far from all other values of btag (25 % of its values); if it stands for a missing value, declare it"
)
EMPTY = (
    'no event has a finite value of bad, so the model learns nothing from it; leave it out: "exclude_branches": ["bad"]'
)
MODEL = """
import keras
def model(idim):
    network = keras.Sequential([keras.Input((idim,)), keras.layers.Dense(1, activation="sigmoid")])
    network.compile("adam", "binary_crossentropy")
    return network
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        with uproot.recreate(folder / f"{name}.root") as file:
            btag = np.where(np.arange(400) % 4, rng.uniform(0, 1, 400), -999).astype(np.float32)
            branches = {"btag": btag, "bad": np.full(400, np.nan, np.float32), "genWeight": rng.normal(size=400)}
            file.mktree("Events", {name: branch.dtype for name, branch in branches.items()}).extend(branches)
    (folder / "files.txt").write_text("a.root\nb.root\n")
    (folder / "labels.txt").write_text("0\n1\n")
    (folder / "model.py").write_text(MODEL)
    (folder / "params.json").write_text(json.dumps({"redirector": "", "exclude_branches": ["gen*"]}))
    return folder


def shown(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    return capfd.readouterr().out


def test_inspect_shows_the_values_of_a_sample(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = shown(capfd, "inspect", folder / "a.root", "--sample")
    assert f'note: in the first 400 entries, {SENTINEL}: "missing": {{"btag": -999}}' in text
    assert f"note: in the first 400 entries, {EMPTY}" in text
    (file,) = json.loads(shown(capfd, "inspect", folder / "a.root", "--sample", "--json"))["files"]
    (tree,) = file["trees"]
    bad = {"low": None, "high": None, "values": 400, "nan_or_infinite": 400}
    assert tree["sample"]["branches"]["bad"] == {**bad, "empty_entries": 0, "most_values": 1, "sentinels": []}
    assert tree["sample"]["branches"]["btag"]["low"] == -999
    assert "note" not in shown(capfd, "inspect", folder / "a.root")


def test_inspect_says_nothing_of_identifiers_and_of_trees_with_a_few_entries(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with uproot.recreate(tmp_path / "nano.root") as file:
        for tree, size in (("Events", 20), ("Runs", 1)):
            branches = {"run": np.ones(size, np.uint32), "sumw": np.full(size, 7.0)}
            file.mktree(tree, {name: branch.dtype for name, branch in branches.items()}).extend(branches)
    text = shown(capfd, "inspect", tmp_path / "nano.root", "--sample")
    assert "TTree 'Runs': 1 entry in 1 cluster, " in text
    (note,) = [line for line in text.splitlines() if line.startswith("note")]
    assert "all values are equal in sumw (7)" in note


def test_a_dry_run_tells_it_from_a_sample(folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = shown(capfd, "train", folder, "--dry-run", "--store", tmp_path)
    assert f"note: in a sample of 800 events: {SENTINEL}" in text
    assert f"note: in a sample of 800 events: {EMPTY}" in text
    assert "'gen*' of exclude_branches leaves out 1 of 3 branches: genWeight" in text
    assert [line.split() for line in text.splitlines() if line.startswith("survey")] == [["survey", "2", "0"]]


def test_a_dry_run_names_the_source_of_a_new_branch_empty_files_and_names_without_a_branch(
    folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job = tmp_path / "job"
    shutil.copytree(folder, job)
    with uproot.recreate(job / "c.root") as file:
        file.mktree("Events", {"btag": "f4", "bad": "f4", "genWeight": "f8"})
    (job / "files.txt").write_text("a.root\nb.root\nc.root\n")
    (job / "labels.txt").write_text("0\n1\n1\n")
    params = {
        "redirector": "",
        "selected_branches": ["best"],
        "new_branches": {"best": "max(btag, -999)"},
    }
    params |= {"missing": {"btg*": -999}, "remove": ["Muon_*"], "spectators": ["+bad"]}
    (job / "params.json").write_text(json.dumps(params))
    text = shown(capfd, "train", job, "--dry-run", "--store", tmp_path)
    assert "-999 is far from all other values of best (25 % of its values)" in text
    assert 'declare it for the branches that best is computed from: "missing": {"btag": -999}' in text
    assert f"note: 1 of 3 files has no event: {job}/c.root" in text
    assert f"note: 'btg*' of missing matches no branch of TTree 'Events' in '{job}/a.root'" in text
    assert "+bad" not in text
    assert f"note: 'Muon_*' of remove matches no branch of TTree 'Events' in '{job}/a.root'" in text


def test_status_log_and_a_later_dry_run_tell_it_from_all_events(
    folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = open_store(f"{tmp_path}/store/local")
    run = records.start(store, records.Request(recipe_of(job_in(folder, {}, inside=False), store), 1000.0))

    def results(key: str) -> dict[str, Any] | None:
        return result_if_there(key, store)

    recipe = records.request_of(store, run).recipe
    while isinstance(coming := plan.next_steps(recipe, f"{run}/1", results), Ready) and coming.phase != "prepare":
        for step in coming.steps:
            perform(step, store)
            records.log(store, run, Entry(1001.0, step.kind, step.key, 0.1))
    notes = overview.status(store, run).notes
    assert notes is not None
    assert [note.partition(":")[0] for note in notes[1:]] == [SENTINEL, EMPTY.partition(":")[0]]
    log = "".join(follow_log(store, run))
    assert f"          note: {SENTINEL}" in log
    assert f"          note: {EMPTY}" in log
    assert f"note: {SENTINEL}" in shown(capfd, "log", run, "--store", f"{tmp_path}/store")
    assert f"note: {SENTINEL}" in shown(capfd, "train", folder, "--dry-run", "--store", f"{tmp_path}/store")
