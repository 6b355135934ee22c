"""Reads of real files, from disk and from a real XRootD server, and their errors."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.datasets.root import opened, read
from hepfaas.datasets.summary import trees_of
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.features.jagged import Jagged
from support.servers import XRootD

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "ggH_tautau.root"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A file with branches of many kinds, in a folder of the file, in two clusters."""
    path = tmp_path / "odd.root"
    columns: dict[str, Any] = {
        "flag": np.array([True, False, True]),
        "big": np.array([2**63, 1, 2], dtype=np.uint64),
        "double": np.array([0.5, 1.5, np.nan]),
        "vector": np.arange(6, dtype=np.float32).reshape(3, 2),
        "pt": ak.Array([[1.0, 2.0], [], [3.0]]),
        "name": ["a", "b", "c"],
    }
    with uproot.recreate(path) as file:
        tree = file.mktree(
            "folder/events",
            {
                **{k: v.dtype for k, v in list(columns.items())[:3]},
                **{"vector": np.dtype((np.float32, (2,))), "pt": "var * float32", "name": str},
            },
        )
        tree.extend(columns)
        tree.extend(columns)
        file.mktree("other", {"x": np.int64}).extend({"x": np.arange(3)})
        file.mkrntuple("ntuple", {"x": np.arange(3)})
        file["text"] = "hello"
    return path


def test_a_file_tells_its_branches_of_numbers_and_names_the_others(odd: Path) -> None:
    file = opened(str(odd), "folder/events")
    assert [(branch.name, branch.jagged, branch.type) for branch in file.branches if branch.name != "npt"] == [
        ("flag", False, "bool"),
        ("big", False, "uint64"),
        ("double", False, "float64"),
        ("vector", True, "float32"),
        ("pt", True, "float32"),
    ]
    assert [name for name, _ in file.left_out] == ["name"]
    assert (file.entries, file.size_bytes) == (6, odd.stat().st_size)
    assert file.baskets(["pt", "big"])[0].edges == (0, 3, 6)


def test_what_is_read_is_what_was_written(odd: Path) -> None:
    file = opened(str(odd), "folder/events")
    arrays = read(
        str(odd), file.identity, "folder/events", branches=["flag", "big", "vector", "pt"], entries=EntryRange(2, 5)
    )
    assert arrays["flag"].tolist() == [True, True, False]
    assert arrays["big"].tolist() == [2, 2**63, 1]
    assert arrays["vector"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert arrays["pt"].tolist() == [[3], [1, 2], []]


def test_a_copy_is_the_same_file_and_another_is_not(odd: Path, tmp_path: Path) -> None:
    shutil.copy(odd, tmp_path / "copy.root")
    identity = opened(str(odd), "folder/events").identity
    assert opened(str(tmp_path / "copy.root"), "folder/events").identity == identity
    assert opened(str(SAMPLE), "Events").identity != identity


def test_a_changed_file_is_an_error(odd: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.root"
    shutil.copy(odd, path)
    identity = opened(str(path), "folder/events").identity
    shutil.copy(SAMPLE, path)
    with pytest.raises(RequestError, match="changed.root' has changed since the run opened it; start again"):
        read(str(path), identity, "folder/events", branches=["pt"], entries=EntryRange(0, 1))


@pytest.mark.parametrize(
    ("name", "tree", "entries", "flat", "jagged"),
    [
        ("uproot-HZZ.root", "events", 2421, 28, 23),
        ("uproot-Zmumu.root", "events", 2304, 19, 0),
        ("nanoAOD_2015_CMS_Open_Data_ttbar.root", "Events", 200, None, None),
    ],
)
def test_files_of_experiments_are_read_whole(
    name: str, tree: str, entries: int, flat: int | None, jagged: int | None, data: Path
) -> None:
    url = str(data / name)
    file = opened(url, tree)
    names = [branch.name for branch in file.branches]
    arrays = read(url, file.identity, tree, branches=names, entries=EntryRange(0, entries))
    assert file.entries == entries
    assert {len(branch) for branch in arrays.values()} == {entries}
    for branch in file.branches:
        assert isinstance(arrays[branch.name], Jagged) == branch.jagged
    if flat is not None:
        assert sum(not branch.jagged for branch in file.branches) == flat
        assert sum(branch.jagged for branch in file.branches) == jagged


def test_a_summary_has_every_tree(odd: Path) -> None:
    trees = {tree.name: tree for tree in trees_of(str(odd))}
    assert set(trees) == {"folder/events", "other"}
    assert (trees["folder/events"].entries, trees["folder/events"].clusters) == (6, 2)
    assert "ZSTD" in trees_of(str(SAMPLE))[0].compression


def broken(path: Path, how: str) -> Path:
    """Return a damaged copy of the sample."""
    data = bytearray(SAMPLE.read_bytes())
    if how == "cut in half":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = bytearray()
    elif how == "text":
        data = bytearray(b"this is no ROOT file, but long enough to be taken for one " * 100)
    elif how == "header only":
        data = data[:60]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut in half", r"is cut short: it has 521,996 of its 1,043,992 bytes; copy it again"),
        ("empty", r"is not a complete ROOT file: .*; copy it again"),
        ("text", r"is not a complete ROOT file: not a ROOT file"),
        ("header only", r"(is not a complete ROOT file|is cut short)"),
    ],
)
def test_a_broken_file_is_an_error(how: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        opened(str(broken(tmp_path / "x.root", how)), "Events")


def test_a_damaged_basket_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    data = bytearray(SAMPLE.read_bytes())
    with uproot.open(SAMPLE) as file:
        seek = int(file["Events"]["Muon_pt"].member("fBasketSeek")[1])
    data[seek + 90 : seek + 130] = b"\xff" * 40
    path.write_bytes(data)
    file = opened(str(path), "Events")
    with pytest.raises(RequestError, match=r"x.root' is not a complete ROOT file: .*; copy it again"):
        read(str(path), file.identity, "Events", branches=["Muon_pt"], entries=EntryRange(0, 5000))


@pytest.mark.parametrize(
    ("path", "tree", "message"),
    [
        ("nowhere.root", "Events", "file '.*nowhere.root' does not exist"),
        ("", "Events", "is a folder; name the ROOT files in it"),
        ("odd.root", "Events", "odd.root' has no TTree 'Events'; it has: .*folder/events, other"),
        ("odd.root", "ntuple", "'ntuple' in '.*odd.root' is of class ROOT::RNTuple; only TTrees are read"),
        ("odd.root", "text", "'text' in '.*odd.root' is of class TObjString; only TTrees are read"),
    ],
)
def test_the_error_of_a_wrong_tree_lists_the_trees(path: str, tree: str, message: str, odd: Path) -> None:
    with pytest.raises(RequestError, match=message):
        opened(str(odd.parent / path), tree)


def test_the_error_of_a_missing_branch_lists_the_closest(odd: Path) -> None:
    identity = opened(str(odd), "folder/events").identity
    with pytest.raises(RequestError, match=r"has no branch 'dubble'; closest: double"):
        read(str(odd), identity, "folder/events", branches=["dubble"], entries=EntryRange(0, 1))


def test_the_error_of_another_protocol_lists_the_supported_ones() -> None:
    with pytest.raises(RequestError, match=r"addresses of files are root://, s3://, http\(s\):// or dav\(s\)://"):
        opened("ftp://host/x.root", "Events")


def test_a_remote_file_is_the_local_one(xrootd: XRootD) -> None:
    url = xrootd.serve(SAMPLE)
    local, remote = opened(str(SAMPLE), "Events"), opened(url, "Events")
    assert remote.identity == local.identity
    assert remote.branches == local.branches
    names = [branch.name for branch in local.branches]
    local_arrays, remote_arrays = (
        read(where, local.identity, "Events", branches=names, entries=EntryRange(500, 3500))
        for where in (str(SAMPLE), url)
    )
    assert all(local_arrays[name].tolist() == remote_arrays[name].tolist() for name in names)


def test_a_file_missing_on_its_server_is_an_error(xrootd: XRootD) -> None:
    with pytest.raises(RequestError, match="file 'root://.*nothing.root' does not exist"):
        opened(xrootd.url("nothing.root"), "Events")


def test_a_broken_file_on_a_server_is_an_error(xrootd: XRootD, tmp_path: Path) -> None:
    url = xrootd.serve(broken(tmp_path / "half.root", "cut in half"))
    with pytest.raises(RequestError, match=r"half.root' is cut short"):
        opened(url, "Events")


@pytest.mark.timeout(180)
def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match=r"the server of 'root://127.0.0.1:1//x.root' does not answer"):
        opened("root://127.0.0.1:1//x.root", "Events")


def test_a_server_that_stops_during_a_read_is_unavailable() -> None:
    by_ranges = Reading(hashed_bytes=0)
    with XRootD() as server:
        url = server.serve(SAMPLE)
        identity = opened(url, "Events", by_ranges).identity
        read(url, identity, "Events", branches=["Muon_pt"], entries=EntryRange(0, 1000), reading=by_ranges)
    with pytest.raises(UnavailableError, match="does not answer"):
        read(url, identity, "Events", branches=["Jet_pt"], entries=EntryRange(0, 1000), reading=by_ranges)


def test_only_the_room_datasets_reads_with_uproot_and_two_others_write() -> None:
    root = Path(__file__).parents[2] / "shared" / "hepfaas"
    result = subprocess.run(["grep", "-rlE", r"^\s*(import|from) uproot", str(root)], capture_output=True, text=True)
    assert {Path(line).parent.name for line in result.stdout.split()} == {"datasets", "evaluation", "scores"}
    written = [path for room in ("evaluation", "scores") for path in (root / room).glob("*.py")]
    assert not [path for path in written if "uproot.open" in path.read_text()]


def test_a_branch_has_the_title_that_a_file_gives_it_and_none_that_names_its_leaf(data: Path) -> None:
    file = opened(str(data / "nanoAOD_2015_CMS_Open_Data_ttbar.root"), "Events")
    titles = {branch.name: branch.title for branch in file.branches}
    assert titles["LHEPart_phi"] == "Phi of LHE particles"
    assert titles["run"] == ""
    assert max(map(len, titles.values())) <= 100
    assert {branch.title for branch in opened(str(data / "uproot-HZZ.root"), "events").branches} == {""}
