"""Trees of one file as samples of one training, and predictions with its model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.platform.stores import open_store
from numpy.typing import NDArray
from support.jobs import MODEL

N = 400
FILES = "both.root:Signal\nboth.root:dir/Background\n"


def branches(seed: int, shift: float, events: int = N) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {"met": rng.normal(shift, 1, events).astype(np.float32), "x": rng.uniform(0, 9, events)}


SIGNAL, BACKGROUND = branches(1, 1.0), branches(2, 0.0)


def write(path: Path, trees: Mapping[str, Mapping[str, NDArray[Any]]]) -> Path:
    with uproot.recreate(path) as file:
        for name, values in trees.items():
            file.mktree(name, {branch: array.dtype for branch, array in values.items()}).extend(values)
    return path


def job(folder: Path, files: str = FILES, **params: Any) -> Path:
    folder.mkdir()
    write(folder / "both.root", {"Signal": SIGNAL, "dir/Background": BACKGROUND})
    (folder / "files.txt").write_text(files)
    (folder / "labels.txt").write_text("1\n0\n")
    (folder / "model.py").write_text(MODEL)
    (folder / "params.json").write_text(json.dumps({"redirector": "", "epochs": 1, "range_events": 150, **params}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of both trees."""
    path = tmp_path_factory.mktemp("trained")
    folder = job(path / "job", folds=2)
    assert main(["train", str(folder), "--name", "both", "--store", str(path / "store"), "--workers", "1"]) == 0
    return path


def prepared(folder: Path, out: Path, *more: str) -> pd.DataFrame:
    words = ["prepare", str(folder), "--store", str(out.parent / "store"), "--out", str(out), "--workers", "1", *more]
    assert main(words) == 0
    return pd.concat([pd.read_parquet(out / f"{split}.parquet") for split in ("training", "validation", "test")])


def test_two_trees_of_a_file_are_prepared_as_two_files_are(tmp_path: Path) -> None:
    rows = prepared(job(tmp_path / "both"), tmp_path / "out")
    assert sorted(set(rows["file"])) == [f"{tmp_path}/both/both.root:{name}" for name in ("Signal", "dir/Background")]
    values = {1: SIGNAL, 0: BACKGROUND}
    for label, expected in values.items():
        of_label = rows[rows["label"] == label].sort_values("entry")
        np.testing.assert_array_equal(of_label["entry"], np.arange(N))
        low, high = (function([each["met"] for each in values.values()]) for function in (np.min, np.max))
        np.testing.assert_allclose(of_label["met"], (expected["met"] - low) / (high - low), rtol=1e-5, atol=1e-6)
    splits = [rows[rows["label"] == label].sort_values("entry")["split"].astype(str) for label in (0, 1)]
    assert 0.1 < float(np.mean(splits[0].to_numpy() == splits[1].to_numpy())) < 0.8


def test_the_readme_of_prepared_events_reads_the_tree_of_each_file(tmp_path: Path) -> None:
    rows = prepared(job(tmp_path / "both"), tmp_path / "out").reset_index()
    (line,) = [line for line in (tmp_path / "out/_README.txt").read_text().splitlines() if "uproot.open" in line]
    row = rows.iloc[5]
    names = {"uproot": uproot, "address": row["file"], "entry": int(row["entry"])}
    exec(line.strip(), names)
    expected = SIGNAL if row["label"] else BACKGROUND
    assert names["branches"]["x"][0] == expected["x"][row["entry"]]  # type: ignore[index]


def test_a_tree_of_all_files_is_the_key_branch(tmp_path: Path) -> None:
    folder = job(tmp_path / "job", "a.root:Signal\nb.root:Signal\n")
    for number, name in enumerate("ab"):
        write(folder / f"{name}.root", {"Signal": branches(number, 0.0)})
    named = prepared(folder, tmp_path / "named")
    steps = set(open_store(f"{tmp_path}/store/local").keys("steps/prepare/"))
    (folder / "files.txt").write_text("a.root\nb.root\n")
    (folder / "params.json").write_text(json.dumps({"redirector": "", "range_events": 150, "branch": "Signal"}))
    pd.testing.assert_frame_equal(prepared(folder, tmp_path / "by_key"), named)
    assert set(open_store(f"{tmp_path}/store/local").keys("steps/prepare/")) == steps


def test_trees_are_samples_of_samples_json(tmp_path: Path) -> None:
    folder = job(tmp_path / "job")
    samples = {
        "sig": {"files": "both.root:Signal", "label": "signal", "cross_section": 2.0},
        "bkg": {"files": ["both.root:dir/Background"], "label": "background", "cross_section": 30.0},
    }
    (folder / "samples.json").write_text(json.dumps({"luminosity": "10/pb", "samples": samples}))
    rows = prepared(folder, tmp_path / "out")
    yields = rows.groupby("label")["weight"].sum()
    np.testing.assert_allclose([yields[0], yields[1]], [20.0, 300.0])


def predict(trained: Path, *words: object, code: int = 0) -> None:
    assert main(["predict", "both", *map(str, words), "--store", str(trained / "store")]) == code


def scores(trained: Path, out: Path, *files: object) -> pd.DataFrame:
    predict(trained, *files, "--out", out)
    return pd.read_parquet(out)


def test_a_model_of_two_trees_predicts_on_the_tree_that_is_named(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = trained / "job/both.root"
    of_both = scores(trained, tmp_path / "both.parquet", f"{both}:Signal", f"{both}:dir/Background")
    assert list(of_both.groupby("file")["entry"].count()) == [N, N]
    only = write(tmp_path / "only.root", {"Anything": SIGNAL})
    usual = write(tmp_path / "usual.root", {"Other": BACKGROUND, "Events": SIGNAL})
    of_only = scores(trained, tmp_path / "only.parquet", only)
    pd.testing.assert_frame_equal(scores(trained, tmp_path / "usual.parquet", usual), of_only)
    by_option = scores(
        trained, tmp_path / "option.parquet", only, usual.with_name("usual.root:Events"), "--tree", "Anything"
    )
    assert len(by_option) == 2 * N
    np.testing.assert_array_equal(by_option["score"][:N], of_only["score"])
    np.testing.assert_array_equal(by_option["score"][N:], of_only["score"])
    capfd.readouterr()
    predict(trained, both, code=1)
    assert "has no TTree 'Events'; it has: Signal, dir/Background" in capfd.readouterr().err
    predict(trained, f"{both}:Nothing", code=1)
    assert "has no TTree 'Nothing'" in capfd.readouterr().err


def test_scores_are_a_tree_or_an_ntuple_with_the_same_rows(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = f"{trained}/job/both.root:Signal"
    predict(trained, file, "--out", tmp_path / "tree.root")
    predict(trained, file, "--out", tmp_path / "ntuple.root", "--ntuple")
    columns = [uproot.open(tmp_path / f"{name}.root")["scores"].arrays(library="np") for name in ("tree", "ntuple")]
    for name in columns[0]:
        np.testing.assert_array_equal(columns[0][name], columns[1][name])
    assert len(columns[0]["score"]) == N
    capfd.readouterr()
    assert main(["inspect", str(tmp_path / "ntuple.root")]) == 0
    assert f"RNTuple 'scores': {N} entries in 1 cluster" in capfd.readouterr().out
    predict(trained, file, "--ntuple", code=1)
    assert "--ntuple needs --out FILE.root" in capfd.readouterr().err
    predict(trained, file, "--ntuple", "--out", tmp_path / "x.csv", code=1)
    assert "an RNTuple is written into a .root file" in capfd.readouterr().err


def test_events_of_a_fold_are_scored_by_their_own_network_under_any_name_of_their_tree(
    trained: Path, tmp_path: Path
) -> None:
    """Only events of the trees that were learned have a fold; the mean of both networks scores copies of them."""
    both = trained / "job/both.root"
    learned = scores(trained, tmp_path / "learned.parquet", f"{both}:Signal")
    copy = scores(trained, tmp_path / "copy.parquet", write(tmp_path / "copy.root", {"Signal": SIGNAL}))
    assert float(np.mean(learned["score"] != copy["score"])) > 0.9
    (tmp_path / "alias.root").write_bytes(both.read_bytes())
    same = scores(trained, tmp_path / "same.parquet", f"{tmp_path}/alias.root:Signal")
    pd.testing.assert_frame_equal(same, learned)


def test_the_report_and_the_status_name_the_trees(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = str(trained / "store")
    assert main(["status", "both-1", "--verify", "--store", store, "--json"]) == 0
    ledger = json.loads(capfd.readouterr().out)["ledger"]
    assert (ledger["holds"], ledger["files"], ledger["events"]) == (True, 2, 2 * N)
    assert main(["report", "both-1", "--store", store, "--out", str(trained / "report.html")]) == 0
    page = (trained / "report.html").read_text()
    assert "both.root:Signal" in page
    assert "both.root:dir/Background" in page


def test_inspect_shows_the_tree_that_is_named(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    both = trained / "job/both.root"
    assert main(["inspect", f"{both}:Signal"]) == 0
    text = capfd.readouterr().out
    assert "TTree 'Signal'" in text
    assert "Background" not in text
    assert main(["inspect", f"{both.parent}/*.root:Signal"]) == 0
    assert main(["inspect", f"{both}:None"]) == 1
    assert "has no tree 'None'; it has: Signal, dir/Background" in capfd.readouterr().err
