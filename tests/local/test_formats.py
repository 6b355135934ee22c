"""Folders whose data are tables: the same events give the same features, labels and weights as ROOT files."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hepfaas.cli import main
from support.tables import events, write

N = 150
PARAMS = {
    "selected_branches": ["met", "n", "ratio"],
    "new_branches": {"ratio": "met / (1 + abs(n))"},
    "cuts": ["met > 5"],
    "weight": "weight",
    "identifier": ["time"],
    "range_events": 40,
}


def folder_of(folder: Path, name: str, **params: object) -> Path:
    """Write a job with one file whose events have their own labels."""
    folder.mkdir()
    (path,) = write(folder, [name], events(N))
    (folder / "files.txt").write_text(f"{path.name}\n")
    (folder / "labels.txt").write_text("n > 0\n")
    (folder / "params.json").write_text(json.dumps({**PARAMS, **params}))
    return folder


def prepared(folder: Path) -> dict[str, list[object]]:
    """Return all prepared rows of a folder by the entry of their event; their sample follows from the file's hash."""
    assert main(["prepare", str(folder), "--store", str(folder / "store"), "--out", str(folder / "out")]) == 0
    rows = [row for path in (folder / "out").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    kept = [{key: value for key, value in row.items() if key not in ("file", "split")} for row in rows]
    return {"rows": sorted(kept, key=lambda row: row["entry"])}


def test_a_folder_of_tables_is_prepared_like_one_of_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = prepared(folder_of(tmp_path / "root", "tree.root"))
    assert 100 < len(expected["rows"]) < N
    for name in ("events.parquet", "events.avro", "events.json.gz", "events.csv"):
        assert prepared(folder_of(tmp_path / name, name)) == expected, name


def test_a_function_of_the_user_is_applied_to_each_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = prepared(folder_of(tmp_path / "expected", "events.jsonl", new_branches={"ratio": "2 * met"}))
    folder = folder_of(tmp_path / "job", "events.jsonl", preproc="hook.py", new_branches={})
    (folder / "hook.py").write_text("def preprocessing(record): return {**record, 'ratio': 2 * record['met']}")
    assert prepared(folder) == expected


def test_the_format_may_be_a_parameter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = prepared(folder_of(tmp_path / "csv", "events.csv"))
    folder = folder_of(tmp_path / "dat", "events.csv", dtype="csv")
    (folder / "events.csv").rename(folder / "events.dat")
    (folder / "files.txt").write_text("events.dat\n")
    assert prepared(folder) == expected


def test_two_files_of_different_columns_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "job", "events.csv")
    text = (folder / "events.csv").read_text()
    (folder / "renamed.csv").write_text(text.replace('"met"', '"MET"'))
    (folder / "files.txt").write_text("events.csv\nrenamed.csv\n")
    assert main(["prepare", str(folder), "--store", str(folder / "store"), "--out", str(folder / "out")]) == 1
    assert (
        "renamed.csv': new branch 'ratio': 'met / (1 + abs(n))' at column 1: there is no branch 'met'; closest: MET"
        in capsys.readouterr().err
    )
