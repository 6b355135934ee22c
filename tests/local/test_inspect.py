"""`hepfaas inspect` on several files: each is shown alike, samples count odd values, differences are named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.summary import TreeSummary
from hepfaas.local.branch_differences import Difference, differences
from hypothesis import given
from hypothesis import strategies as st
from support import tables
from support.servers import XRootD

ENTRIES = 25_001
"""More than are in memory at once."""


def events(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, ENTRIES)
    values = rng.normal(50, 10, int(counts.sum())).astype(np.float32)
    values[::7], values[::11], values[::13] = -999, np.nan, np.inf
    met = rng.exponential(30, ENTRIES)
    met[5::1000], met[7::1000] = np.nan, -np.inf
    return {"met": met, "jets": ak.unflatten(values, counts), "event": np.arange(ENTRIES)}


def write(path: Path, trees: Mapping[str, Mapping[str, Any]]) -> Path:
    with uproot.recreate(path) as file:
        for name, branches in trees.items():
            file.mktree(name, {name: ak.type(ak.Array(values)).content for name, values in branches.items()}).extend(
                branches
            )
    return path


def inspect(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    assert main(["inspect", *map(str, words)]) == code
    out, err = capfd.readouterr()
    return out, err


@pytest.mark.parametrize("entries", [1, 9_999, 10_000, 20_001, 1_000_000])
def test_a_sample_counts_what_plain_numpy_counts_for_any_number_of_entries(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], entries: int
) -> None:
    path, branches = write(tmp_path / "a.root", {"Events": events(1)}), events(1)
    out, _ = inspect(capfd, path, "--sample", entries, "--json")
    (tree,) = json.loads(out)["files"][0]["trees"]
    first = min(entries, ENTRIES)
    assert tree["sample"]["entries"] == first
    counts = ak.to_numpy(ak.num(branches["jets"][:first]))
    for name in ("met", "jets"):
        values = ak.to_numpy(ak.flatten(branches[name][:first], axis=None))
        finite, shown = values[np.isfinite(values)], tree["sample"]["branches"][name]
        assert (shown["values"], shown["nan_or_infinite"]) == (len(values), len(values) - len(finite))
        if len(finite):
            assert (shown["low"], shown["high"]) == (finite.min(), finite.max())
        n_sentinels = int((values == -999).sum())
        is_seen = n_sentinels > 10
        assert shown["sentinels"] == ([{"value": -999, "count": n_sentinels}] if is_seen else [])
    shown = tree["sample"]["branches"]["jets"]
    assert (shown["most_values"], shown["empty_entries"]) == (counts.max(), (counts == 0).sum())


def test_the_text_has_a_column_for_each_count(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.root", {"Events": events(1)})
    text, _ = inspect(capfd, path, "--sample")
    lines = [line.split() for line in text.splitlines()]
    first = {name: values[:10_000] for name, values in events(1).items()}
    jets = ak.to_numpy(ak.flatten(first["jets"], axis=None))
    (row,) = [line for line in lines if line[:1] == ["jets"]]
    assert row[1:3] == ["jagged", "float32"]
    assert row[5] == "-999"
    assert row[7] == f"{(~np.isfinite(jets)).sum():,}"
    assert row[8:10] == ["3", f"{ak.sum(ak.num(first['jets']) == 0):,}"]
    assert row[10:] == ["-999", f"({(jets == -999).sum():,})"]


def test_files_and_wildcards_are_shown_alike_and_each_file_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, xrootd: XRootD
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.root", {"Events": {"x": np.arange(3.0)}})
    remote = xrootd.serve(tmp_path / "a.root", "inspected.root")
    text, _ = inspect(capfd, "b.root", "*.root", remote)
    shown = text.split("file ")[1:]
    assert [part.partition("\n")[0] for part in shown] == ["b.root", "a.root", remote]
    assert len({part.partition("\n")[2].strip() for part in shown}) == 1
    assert "differences" not in text
    pattern = remote.replace("inspected.root", "inspect*.root")
    out, _ = inspect(capfd, pattern, "--json")
    assert [file["file"] for file in json.loads(out)["files"]] == [remote]


def test_every_format_is_shown_alike(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    branches = tables.events(300)
    branches["met"][3] = np.nan
    branches["weight"][5::15] = -999
    paths = tables.write(tmp_path, list(tables.WRITERS), branches)
    out, _ = inspect(capfd, *paths, "--sample", "200", "--json")
    shown = {Path(file["file"]).name: file["trees"][0]["sample"] for file in json.loads(out)["files"]}
    assert list(shown) == list(tables.WRITERS)
    for name, sample in shown.items():
        assert sample == {**shown["tree.root"], "branches": sample["branches"]}
        for branch in sample["branches"]:
            assert sample["branches"][branch] == shown["tree.root"]["branches"][branch], (name, branch)
        assert set(sample["branches"]) - {"npt"} == set(branches) - ({"pt"} if "csv" in name else set())
    assert shown["events.csv"]["branches"]["weight"]["sentinels"] == [{"value": -999, "count": 13}]
    text, _ = inspect(capfd, tmp_path / "events.parquet", tmp_path / "events.csv")
    assert "\n\nParquet: 300 entries in 8 clusters, " in text
    assert f"branch 'pt' of the table: jagged float64 in {tmp_path}/events.parquet; absent in" in text


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.root", {"Events": {"x": np.arange(3.0)}})
    data = (tmp_path / "a.root").read_bytes()
    (tmp_path / "cut.root").write_bytes(data[: len(data) // 2])
    text, error = inspect(capfd, "cut.root", "none/*.root", "a.root", code=1)
    assert "file cut.root\n\ncannot be read: 'cut.root' is cut short" in text
    assert "file none/*.root\n\ncannot be read: no file matches 'none/*.root'" in text
    assert "TTree 'Events': 3 entries" in text
    assert error == "hepfaas: 2 of 3 files cannot be read: cut.root, none/*.root\n"
    out, _ = inspect(capfd, "cut.root", "a.root", "--json", code=1)
    cut, good = json.loads(out)["files"]
    assert ("is cut short" in cut["error"], cut["trees"]) == (True, [])
    assert (good["error"], len(good["trees"])) == (None, 1)


def test_an_only_file_that_cannot_be_read_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(capfd, "none.root", code=1) == ("", "hepfaas: file 'none.root' does not exist\n")


def test_a_server_that_does_not_answer_may_do_so_later(capfd: pytest.CaptureFixture[str]) -> None:
    gone = ["http://127.0.0.1:1/a.root", "http://127.0.0.1:1/b.root"]
    _, error = inspect(capfd, *gone, code=75)
    assert "hepfaas: 2 of 2 files cannot be read: " in error
    inspect(capfd, gone[0], "none.root", code=1)


def test_a_file_without_numbers_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with uproot.recreate(tmp_path / "texts.root") as file:
        file.mktree("Events", {"name": "string"}).extend({"name": ["a", "b"]})
    text, error = inspect(capfd, tmp_path / "texts.root", code=1)
    assert "TTree 'Events': 2 entries" in text
    assert "has nothing to read: no branch of its trees is a number" in error


@pytest.mark.parametrize("words", [("--sample", "a.root"), ("a.root", "--sample", "0"), ("a.root", "--sample", "-1")])
def test_a_sample_takes_a_number_of_entries(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", *words])
    assert "--sample" in capfd.readouterr().err


def test_what_differs_between_files_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    x = {"x": np.arange(2.0), "y": np.arange(2)}
    write(tmp_path / "a.root", {"Events": x, "Runs": {"n": np.arange(2)}})
    write(tmp_path / "b.root", {"Events": {**x, "x": np.arange(2, dtype=np.float32)}})
    write(tmp_path / "c.root", {"Events": {"x": np.arange(2.0)}})
    names = [tmp_path / f"{name}.root" for name in "abc"]
    text, _ = inspect(capfd, *names)
    a, b, c = names
    assert text.partition("differences between the files\n")[2].splitlines() == [
        f"branch 'x' of tree 'Events': flat float64 in {a}, {c}; flat float32 in {b}",
        f"branch 'y' of tree 'Events': flat int64 in {a}, {b}; absent in {c}",
        f"tree 'Runs': there in {a}; absent in {b}, {c}",
    ]
    out, _ = inspect(capfd, *names, "--json")
    assert json.loads(out)["differences"][1]["files"] == {"flat int64": [str(a), str(b)], "absent": [str(c)]}


def summary(branches: Mapping[str, str]) -> TreeSummary:
    numbers = tuple(Branch(name, False, type_, 8) for name, type_ in branches.items())
    return TreeSummary("t", "TTree", "", 1, 1, 8, 8, "none", numbers, ())


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["int8", "float32"])), min_size=1, max_size=5))
def test_a_branch_differs_if_and_only_if_two_files_have_not_the_same_of_it(files: list[dict[str, str]]) -> None:
    named = {str(number): [summary(branches)] for number, branches in enumerate(files)}
    different = {one.branch for one in differences(named)}
    assert different == {name for name in "xyz" if len({branches.get(name) for branches in files}) > 1}
    for one in differences(named):
        kinds = {name: kind for kind, names in one.files.items() for name in names}
        assert kinds == {
            str(number): f"flat {branches[one.branch]}" if one.branch in branches else "absent"
            for number, branches in enumerate(files)
        }


def test_files_of_other_trees_differ_in_their_trees_only() -> None:
    tree = summary({"x": "int8"})
    assert differences({"a": [tree], "b": []}) == [Difference("t", "", {"there": ["a"], "absent": ["b"]})]
