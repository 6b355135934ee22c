"""Scores are written in every form alike, and a file is there whole or not at all."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas.errors import RequestError
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


def test_no_events_give_an_empty_list(tmp_path: Path) -> None:
    with score_file(tmp_path / "scores.json"):
        pass
    assert json.loads((tmp_path / "scores.json").read_text()) == []


def test_an_unknown_ending_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in '\.txt'; scores are written as \.root, \.parquet"):
        score_file(tmp_path / "scores.txt").__enter__()
    with pytest.raises(RequestError, match=r"scores\.csv' cannot be written: No such file or directory"):
        score_file(tmp_path / "nowhere" / "scores.csv").__enter__()
