"""`hepfaas prepare`: the events that a training would learn, in files that other programs read."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.local import matrix_files
from hepfaas.local.matrix_files import distinct
from hepfaas.platform.stores import open_store
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.steps.objects import open_part, result_of
from hepfaas.training.split import event_ids
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

N, CLUSTER = 3_000, 500
FORMATS = ("parquet", "npz", "hdf5")
SAMPLES = {
    "luminosity": 10.0,
    "samples": {
        "higgs": {"files": ["0.root"], "label": 1, "cross_section": 2.0, "sum_of_weights": 400.0, "weight": "w"},
        "top": {"files": ["1.root"], "label": 0, "cross_section": 30.0, "sum_of_weights": 500.0},
        "qcd": {"files": ["2.root"], "label": 0, "weight": "w * w"},
    },
}
PARAMS = {
    "range_events": CLUSTER,
    "branch": "events/tree",
    "selected_branches": "met, tag, Jet_*, ht, label",
    "identifier": ["event"],
    "cuts": ["nJet >= 1", "met > 20"],
    "new_branches": {"ht": "sum(Jet_pt)"},
    "spectators": ["m / 2", "nJet > 2"],
    "balance": True,
}


def write_file(path: Path, seed: int, event_type: str = "uint64") -> None:
    """Write events with jets, a weight, and a branch that has the name of a column."""
    generator = np.random.default_rng(seed)
    counts = generator.poisson(2.0, N)
    total = int(counts.sum())
    with uproot.recreate(path) as file:
        tree = {
            "met": generator.exponential(60, N).astype(np.float32),
            "tag": generator.normal(size=N),
            "label": generator.integers(0, 9, N).astype(np.int16),
            "m": generator.exponential(90, N).astype(np.float32),
            "w": generator.normal(1, 1, N),
            "event": np.arange(N).astype(event_type) * 2,
            "Jet": ak.zip(
                {
                    "pt": ak.unflatten(generator.exponential(50, total).astype(np.float32), counts),
                    "eta": ak.unflatten(generator.normal(0, 2, total).astype(np.float32), counts),
                }
            ),
        }
        kinds = {name: values.type.content if name == "Jet" else values.dtype for name, values in tree.items()}
        writer = file.mktree("events/tree", kinds)
        for start in range(0, N, CLUSTER):
            writer.extend({name: values[start : start + CLUSTER] for name, values in tree.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job of three samples, which has no model, and what the command wrote in each format."""
    path = tmp_path_factory.mktemp("place")
    (path / "job").mkdir()
    for number in range(3):
        write_file(path / "job" / f"{number}.root", number)
    (path / "job/samples.json").write_text(json.dumps(SAMPLES))
    (path / "job/params.json").write_text(json.dumps(PARAMS))
    for form in FORMATS:
        assert run(path, form, "--format", form, "--workers", "2") == 0
    return path


def run(place: Path, out: str, *more: str) -> int:
    """Run the command, in `place` with several workers and elsewhere with one, since each imports for a second."""
    words = ["prepare", str(place / "job"), "--store", str(place / "store"), "--out", str(place / out)]
    return main([*words, "--workers", "1", *more])


def table(place: Path, split: str = "training") -> pd.DataFrame:
    return pd.read_parquet(place / "parquet" / f"{split}.parquet")


def about(place: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((place / "parquet/_dataset.json").read_text())
    return values


def selected(place: Path, number: int) -> tuple[ak.Array, NDArray[np.bool_]]:
    """Return the events of a file, and which of them the cuts leave."""
    events = uproot.open(place / "job" / f"{number}.root")["events/tree"].arrays()
    return events, np.asarray((events["nJet"] >= 1) & (events["met"] > 20))


@pytest.mark.parametrize("split", [split.label for split in Split])
def test_files_of_all_formats_have_the_same_events(split: str, place: Path) -> None:
    rows, features = table(place, split), about(place)["features"]
    npz, hdf5 = np.load(place / f"npz/{split}.npz"), h5py.File(place / f"hdf5/{split}.h5")
    assert set(npz) == set(hdf5)
    for arrays in (npz, hdf5):
        np.testing.assert_array_equal(arrays["features"][:], rows[features].to_numpy(), strict=True)
        for name in ("entry", "label", "weight", "training_weight", "event", "m _over_ 2", "nJet > 2"):
            array = arrays[matrix_files.PLURAL.get(name, name)][:]
            np.testing.assert_array_equal(array, rows[name].to_numpy(), strict=True)
        np.testing.assert_array_equal(arrays["files"][:], rows["file"].cat.codes)
    assert npz["feature_names"].tolist() == hdf5["feature_names"].asstr()[:].tolist() == features
    assert npz["file_names"].tolist() == hdf5["file_names"].asstr()[:].tolist() == about(place)["files"]


def test_rows_are_those_that_a_training_reads(place: Path) -> None:
    store = open_store(f"{place}/store/local")
    lists = [result_of(key, store).get("parts", []) for key in store.keys("steps/sum/")]
    root = max(lists, key=len)
    assert len(root) == 3 * N // CLUSTER
    for split in Split:
        rows, start = table(place, split.label), 0
        for part in root:
            stored = open_part(part["key"], part["size_bytes"], store)
            for number in stored.facts.batches(split):
                batch, weights = stored.rows(number), stored.event_weights(number)
                here = rows.iloc[start : start + len(batch.labels)]
                np.testing.assert_array_equal(here[about(place)["features"]].to_numpy(), batch.features)
                np.testing.assert_array_equal(here["label"], batch.labels)
                np.testing.assert_array_equal(here["training_weight"], batch.weights)
                np.testing.assert_array_equal(here["weight"], weights)
                start += len(here)
        assert start == len(rows) > 0


def test_the_folder_is_one_table_of_all_selected_events_in_the_order_of_files_and_entries(place: Path) -> None:
    everything = pd.read_parquet(place / "parquet")
    assert len(everything) == sum(selected(place, number)[1].sum() for number in range(3))
    assert set(everything["split"]) == {"training", "validation", "test"}
    for number, url in enumerate(about(place)["files"]):
        _, passes = selected(place, number)
        entries = everything[everything["file"] == url]["entry"]
        np.testing.assert_array_equal(np.sort(entries), np.flatnonzero(passes))
    for split in Split:
        places = table(place, split.label)
        np.testing.assert_array_equal(np.lexsort((places["entry"], places["file"].cat.codes)), np.arange(len(places)))


def test_values_are_those_of_the_branches(place: Path) -> None:
    rows, everything = table(place), pd.read_parquet(place / "parquet")
    files = [selected(place, number) for number in range(3)]
    ht = np.concatenate([ak.to_numpy(ak.sum(events["Jet_pt"], axis=1))[passes] for events, passes in files])
    low, high = float(ht.min()), float(ht.max())
    for number, (events, _) in enumerate(files):
        here = rows[rows["file"] == about(place)["files"][number]]
        mine = events[here["entry"].to_numpy()]
        scaled = (ak.to_numpy(ak.sum(mine["Jet_pt"], axis=1)).astype(np.float64) - low) / (high - low)
        np.testing.assert_allclose(here["ht"], scaled, rtol=1e-5, atol=1e-6)
        second = ak.to_numpy(ak.fill_none(ak.pad_none(mine["Jet_eta"], 2)[:, 1], np.nan))
        np.testing.assert_array_equal(here["Jet_eta_1"] == 0, np.isnan(second))
        np.testing.assert_array_equal(here["event"], mine["event"], strict=False)
        np.testing.assert_array_equal(here["m _over_ 2"], mine["m"] / 2)
        np.testing.assert_array_equal(here["nJet > 2"], mine["nJet"] > 2)
        w = mine["w"]
        weights = [w * 2.0 * 1e4 / 400.0, np.full(len(mine), 30.0 * 1e4 / 500.0), w * w][number]  # 10/fb in 1/pb
        np.testing.assert_allclose(here["weight"], weights, rtol=1e-12)
        assert set(here["label"]) == {int(number == 0)}
    sums = everything.groupby("label")["training_weight"].sum()
    assert sums[0] == pytest.approx(sums[1], rel=0.1)
    assert about(place)["classes"] == {"0": "top + qcd", "1": "higgs"}
    assert json.loads(pq.read_schema(place / "parquet/test.parquet").metadata[b"hepfaas"]) == about(place)


def test_a_branch_with_the_name_of_a_column_gets_a_number(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(place, "again") == 0
    assert "note: 'label' is written as column 'label_2'" in capfd.readouterr().err
    rows = table(place)
    assert rows["label_2"].nunique() == 9
    assert "label" in [branch["name"] for branch in json.loads((place / "parquet/_spec.json").read_text())["branches"]]


def read_as_described(folder: Path) -> dict[str, Any]:
    """Return the variables that the Python of the README sets."""
    lines = [line for line in (folder / "_README.txt").read_text().splitlines() if line.startswith("    ")]
    assert len(lines) >= 5
    names: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in lines), names)
    return names


@pytest.mark.parametrize("form", FORMATS)
def test_the_lines_of_the_readme_read_the_events(form: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / form)
    names = read_as_described(place / form)
    rows = table(place)
    np.testing.assert_array_equal(names["x"], rows[about(place)["features"]].to_numpy())
    np.testing.assert_array_equal(names["y"], rows["label"])
    np.testing.assert_array_equal(names["weights"], rows["training_weight"])
    assert names["branches"]["event"].tolist() == [rows["event"][0]]


@pytest.mark.parametrize("form", ["parquet", "npz"])
def test_a_killed_command_leaves_no_folder_and_the_next_one_writes_the_same(form: str, place: Path) -> None:
    words = [
        "prepare",
        str(place / "job"),
        "--store",
        str(place / "store"),
        "--out",
        str(place / "new"),
        "--format",
        form,
        "--workers",
        "1",
    ]
    code = (
        "import os, signal, sys; from hepfaas import cli; from hepfaas.local.progress import Progress\n"
        "advance = Progress.advance\n"
        "def killed(self, events, *more):\n"
        "    advance(self, events, *more)\n"
        "    if self.phase == 'write' and self.events > 2_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Progress.advance = killed\n"
        f"cli.main({words})"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (place / "new").exists()
    assert (place / ".new.part").exists()
    assert main(words) == 0
    assert not (place / ".new.part").exists()
    assert contents(place / "new") == contents(place / form)
    shutil.rmtree(place / "new")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_is_not_empty_is_kept(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(place / "npz")
    assert run(place, "npz") == 1
    assert "is not empty; name another folder, or use --force to replace" in capfd.readouterr().err
    assert contents(place / "npz") == before
    (tmp_path / "thesis.tex").write_text("x")
    assert run(place, str(tmp_path), "--force") == 1
    assert "has 'thesis.tex', which `hepfaas prepare` does not write" in capfd.readouterr().err
    assert run(place, str(tmp_path / "thesis.tex")) == 1
    assert "is a file; --out takes a folder that is new or empty" in capfd.readouterr().err
    assert contents(tmp_path) == {"thesis.tex": b"x"}


def test_force_replaces_what_the_command_wrote(place: Path, tmp_path: Path) -> None:
    assert run(place, str(tmp_path)) == 0
    assert run(place, str(tmp_path), "--force", "--format", "npz") == 0
    assert contents(tmp_path) == contents(place / "npz")
    assert [path.name for path in tmp_path.parent.iterdir() if path.name.startswith(f".{tmp_path.name}")] == []


def test_a_folder_that_cannot_be_written_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(place, "job/0.root/new") == 1
    assert f"'{place}/job/0.root/new' cannot be written: Not a directory" in capfd.readouterr().err


def test_a_deleted_part_is_made_again(place: Path, tmp_path: Path) -> None:
    store = open_store(f"{place}/store/local")
    for key in list(store.keys("steps/prepare/"))[::5]:
        store.delete(key)
    assert run(place, str(tmp_path)) == 0
    assert contents(tmp_path) == contents(place / "parquet")


def changed(place: Path, tmp_path: Path, **params: Any) -> Path:
    """Return a place with the same files and another params.json."""
    (tmp_path / "job").mkdir()
    for path in (place / "job").iterdir():
        os.link(path, tmp_path / "job" / path.name)
    (tmp_path / "job/params.json").unlink()
    (tmp_path / "job/params.json").write_text(json.dumps({**PARAMS, **params}))
    return tmp_path


def test_cuts_that_no_event_passes_are_told(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = changed(place, tmp_path, cuts=["nJet >= 1", "met > 1e6"], balance=False)
    (other / "job/samples.json").unlink()
    (other / "job/files.txt").write_text("0.root\n1.root\n")
    (other / "job/labels.txt").write_text("0\n1\n")
    assert run(other, "out") == 1
    assert not (other / "out").exists()
    lines = capfd.readouterr().err.splitlines()
    assert "no event passes all cuts, so there is nothing to write; the cut flow shows the losses" in lines[-1]
    assert [line.split()[-1] for line in lines if line.startswith("met > 1e6")] == ["0"]


@pytest.fixture(scope="module")
def few(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another place, in which the command wrote three events, none of them a test event."""
    other = changed(place, tmp_path_factory.mktemp("few"), nevts=3, cuts=[], balance=False, split="m == m")
    for form in FORMATS:
        assert run(other, form, "--format", form) == 0
    return other


def test_a_sample_without_events_has_a_file_without_rows(few: Path) -> None:
    counts = []
    for split in Split:
        frame = pd.read_parquet(few / f"parquet/{split.label}.parquet")
        arrays = np.load(few / f"npz/{split.label}.npz"), h5py.File(few / f"hdf5/{split.label}.h5")
        shapes = [each["features"].shape for each in arrays]
        assert shapes == [(len(frame), len(about(few)["features"]))] * 2
        counts.append(len(frame))
    assert sum(counts) == len(pd.read_parquet(few / "parquet")) == 3
    assert 0 in counts


def test_names_may_be_longer_than_an_attribute_of_hdf5(tmp_path: Path) -> None:
    names = [f"{'long_' * 200}{number}" for number in range(100)]
    for label in (0, 1):
        with uproot.recreate(tmp_path / f"{label}.root") as file:
            tree = {name: np.arange(20) * (number + label) for number, name in enumerate(names)}
            file.mktree("Events", {name: values.dtype for name, values in tree.items()}).extend(tree)
    job = tmp_path / "job"
    job.mkdir()
    (job / "files.txt").write_text(f"{tmp_path}/0.root\n{tmp_path}/1.root\n")
    (job / "labels.txt").write_text("0\n1\n")
    (job / "params.json").write_text(json.dumps({"spectators": [" + ".join(names[:3])]}))
    for form in FORMATS:
        assert run(tmp_path, form, "--format", form) == 0
    features = json.loads((tmp_path / "npz/_dataset.json").read_text())["features"]
    assert sorted(features) == sorted(names)
    assert h5py.File(tmp_path / "hdf5/test.h5")["feature_names"].asstr()[:].tolist() == features
    assert np.load(tmp_path / "npz/test.npz")["feature_names"].tolist() == features
    assert set(features) < set(pd.read_parquet(tmp_path / "parquet").columns)


def test_a_run_without_weights_has_weights_of_one(place: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "files.txt").write_text(f"{place}/job/0.root\n{place}/job/1.root\n")
    (job / "labels.txt").write_text("5\n9\n")
    (job / "params.json").write_text(json.dumps({"branch": "events/tree"}))
    assert run(tmp_path, "out") == 0
    rows = pd.read_parquet(tmp_path / "out")
    assert set(rows["weight"]) == set(rows["training_weight"]) == {1.0}
    assert rows["training_weight"].dtype == np.float32
    assert set(rows["label"]) == {0, 1}
    assert json.loads((tmp_path / "out/_dataset.json").read_text())["classes"] == {"0": "0", "1": "1"}


def test_targets_of_a_regression_are_columns(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "files.txt").write_text(f"{place}/job/0.root\n{place}/job/1.root\n")
    (job / "params.json").write_text(json.dumps({"branch": "events/tree", "target": ["m", "2 * met"]}))
    assert run(tmp_path, "out") == 0
    rows, facts = pd.read_parquet(tmp_path / "out"), json.loads((tmp_path / "out/_dataset.json").read_text())
    assert "label" not in facts["columns"]
    assert list(facts["targets"]) == ["m", "2 * met"]
    for number, url in enumerate(facts["files"]):
        events, here = selected(place, number)[0], rows[rows["file"] == url]
        for column, values in (("m", events["m"]), ("2 * met", 2 * events["met"])):
            target = facts["targets"][column]
            unit = here[column].to_numpy() * target["deviation"] + target["mean"]
            np.testing.assert_allclose(unit, values[here["entry"].to_numpy()], rtol=1e-4, atol=1e-3)
    assert "m_2" not in rows
    monkeypatch.chdir(tmp_path / "out")
    assert read_as_described(tmp_path / "out")["y"].dtype == np.float32


def test_identifiers_may_have_the_names_of_our_columns(tmp_path: Path) -> None:
    job, generator = tmp_path / "job", np.random.default_rng(8)
    job.mkdir()
    ours = ("entry", "label", "weight", "features", "training_weight")
    branches = {name: generator.integers(100, 200, N).astype(np.int32) for name in ours}
    for number in range(2):
        with uproot.recreate(job / f"{number}.root") as file:
            file["events/tree"] = {"met": generator.normal(size=N), **branches}
    for name, lines in (("files.txt", "0.root\n1.root"), ("labels.txt", "1\n0")):
        (job / name).write_text(lines)
    params = {"branch": "events/tree", "identifier": list(ours)}
    (job / "params.json").write_text(json.dumps(params))
    assert run(tmp_path, "out") == 0
    rows = pd.read_parquet(tmp_path / "out")
    for number in range(2):
        mine = rows[rows["file"].str.endswith(f"{number}.root")].sort_values("entry")
        np.testing.assert_array_equal(mine["entry"], np.arange(N))
        assert set(mine["label"]) == {1 - number}
        assert set(mine["weight"]) == set(mine["training_weight"]) == {1.0}
        for name, values in branches.items():
            np.testing.assert_array_equal(mine[f"{name}_2"], values)
    store = open_store(f"{tmp_path}/store/local")
    for key in store.keys("steps/prepare/"):
        (part,) = prepared_parts(result_of(key, store))
        batch = open_part(key, part.size_bytes, store).rows(0)
        assert (set(batch.labels.tolist()), batch.weights) == ({part.label}, None)
        assert not set(batch.ids) - set(event_ids(part.file, np.arange(N)))


def test_identifiers_that_no_type_holds_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job"
    job.mkdir()
    write_file(job / "0.root", 0, "uint64")
    write_file(job / "1.root", 1, "int64")
    (job / "files.txt").write_text("0.root\n1.root\n")
    (job / "labels.txt").write_text("0\n1\n")
    (job / "params.json").write_text(json.dumps({"branch": "events/tree", "identifier": ["event"]}))
    assert run(tmp_path, "out") == 1
    message = "'event' is uint64 in some files and int64 in others, and no type holds both exactly"
    assert message in " ".join(capfd.readouterr().err.split())


@given(st.lists(st.text(max_size=6)), st.sets(st.text(max_size=6)))
def test_names_of_columns_are_distinct_and_printable(names: list[str], taken: set[str]) -> None:
    result = distinct(names, taken)
    assert len({*result, *taken}) == len(names) + len(taken)
    assert all(name.isprintable() and "/" not in name for name in result)
    plain = [name for name in names if name.isprintable() and "/" not in name]
    if len(plain) == len(names) == len(set(names)) and not taken & set(names):
        assert result == names
