"""Scores are written in every form alike, and a file is there whole or not at all."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas.datasets.summary import trees_of
from hepfaas.errors import RequestError
from hepfaas.scores import files
from hepfaas.scores.files import score_file
from numpy.typing import NDArray

FIRST: dict[str, NDArray[Any]] = {
    "file": np.zeros(2, dtype=np.int32),
    "entry": np.array([0, 1]),
    "event": np.array([2**40, 7], dtype=np.uint64),
    "score": np.array([0.1, 0.25], dtype=np.float32),
}
SECOND = {name: values[:1] for name, values in FIRST.items()}


def read_csv(path: Path) -> dict[str, list[str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def read_json(path: Path) -> dict[str, list[Any]]:
    rows = json.loads(path.read_text())
    return {name: [row[name] for row in rows] for name in rows[0]}


def read_root(path: Path) -> Any:
    with uproot.open(path) as file:
        return file["scores"].arrays(library="np")


READERS = {
    ".root": read_root,
    ".parquet": lambda path: pq.read_table(path).to_pydict(),
    ".csv": read_csv,
    ".json": read_json,
}


@pytest.mark.parametrize("ending", READERS)
def test_what_was_written_is_read_back(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"scores{ending}"
    with score_file(path) as write:
        write(FIRST)
        write(SECOND)
    columns = READERS[ending](path)
    for name, values in FIRST.items():
        expected = np.concatenate([values, SECOND[name]])
        np.testing.assert_array_equal(np.asarray(columns[name], dtype=expected.dtype), expected)
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", READERS)
def test_a_failure_on_the_way_leaves_the_old_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"scores{ending}"
    path.write_text("old")
    with pytest.raises(ValueError, match="entries|1-dimensional|shorter"), score_file(path) as write:
        write({**FIRST, "entry": np.array([[0, 1]])})
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_a_tree_and_an_ntuple_have_the_same_rows_and_classes_of_their_own(tmp_path: Path) -> None:
    for ntuple in (True, False):
        with score_file(tmp_path / f"{ntuple}.root", ntuple=ntuple) as write:
            write(FIRST)
            write(SECOND)
    written, expected = (read_root(tmp_path / f"{ntuple}.root") for ntuple in (True, False))
    for name in FIRST:
        assert written[name].dtype == FIRST[name].dtype
        np.testing.assert_array_equal(written[name], expected[name])
    with uproot.open(tmp_path / "True.root") as file:
        assert file.classnames() == {"scores;1": "ROOT::RNTuple"}
    (tree,) = trees_of(str(tmp_path / "True.root"))
    assert (tree.kind, tree.entries, [branch.name for branch in tree.branches]) == ("RNTuple", 3, list(FIRST))


def test_an_ntuple_has_few_clusters_whose_size_does_not_depend_on_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CLUSTER_BYTES", 24 * 100)
    columns = {"entry": np.arange(1_005), "event": np.arange(1_005) * 7, "score": np.linspace(0, 1, 1_005)}
    with score_file(tmp_path / "scores.root", ntuple=True) as write:
        for start in range(0, 1_005, 10):
            write({name: values[start : start + 10] for name, values in columns.items()})
    with uproot.open(tmp_path / "scores.root") as file:
        sizes = [one.num_entries for one in file["scores"].cluster_summaries]
        read = file["scores"].arrays()
    assert sizes == [100] * 10 + [5]
    for name, values in columns.items():
        np.testing.assert_array_equal(read[name], values)


@pytest.mark.parametrize("ntuple", [False, True])
def test_a_root_file_without_events_has_its_columns(tmp_path: Path, ntuple: bool) -> None:
    with score_file(tmp_path / "scores.root", ntuple=ntuple) as write:
        write({name: values[:0] for name, values in FIRST.items()})
    (tree,) = trees_of(str(tmp_path / "scores.root"))
    assert (tree.entries, [branch.name for branch in tree.branches]) == (0, list(FIRST))


def test_an_ntuple_goes_into_a_root_file_only(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in '\.parquet', and an RNTuple is written into a \.root file"):
        score_file(tmp_path / "x.parquet", ntuple=True).__enter__()


def test_no_events_give_an_empty_list(tmp_path: Path) -> None:
    with score_file(tmp_path / "scores.json"):
        pass
    assert json.loads((tmp_path / "scores.json").read_text()) == []


def test_an_unknown_ending_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in '\.txt'; scores are written as \.root, \.parquet"):
        score_file(tmp_path / "scores.txt").__enter__()
    with pytest.raises(RequestError, match=r"scores\.csv' cannot be written: No such file or directory"):
        score_file(tmp_path / "nowhere" / "scores.csv").__enter__()
