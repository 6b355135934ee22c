"""Reads of real files, from disk and from a real XRootD server, and their errors."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Reading
from hepfaas.datasets.root_worker import _title
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
    assert {name: tree.kind for name, tree in trees.items()} == {
        "folder/events": "TTree",
        "other": "TTree",
        "ntuple": "RNTuple",
    }
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
        ("", "Events", "is a folder; name the files in it"),
        ("odd.root", "Events", "odd.root' has no TTree 'Events'; it has: .*folder/events, other"),
        ("odd.root", "text", "'text' in '.*odd.root' is of class TObjString; only TTrees and RNTuples are read"),
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


def test_a_host_without_an_address_is_away() -> None:
    with pytest.raises(UnavailableError, match="the server of 'root://nowhere.invalid//b.root' does not answer"):
        opened("root://nowhere.invalid//b.root", "Events")


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


ODD = {
    "uproot-leaflist.root": ({"leaflist.x", "leaflist.y", "leaflist.z"}, {}),
    "uproot-issue501.root": (set(), {"point": r"AsDtype"}),
    "uproot-issue-407.root": ({"branch.fDatime"}, {}),
    "uproot-issue-1229.root": (
        {"branch/TObject/fUniqueID", "branch/TObject/fBits"},
        {"branch/pointer": r"TFooMember\*"},
    ),
}
"""Files of uproot's tests: branches of numbers, and types of others."""


@pytest.mark.parametrize("name", ODD)
def test_an_odd_branch_costs_itself_and_not_the_file(name: str, data: Path) -> None:
    numbers, others = ODD[name]
    (tree,) = trees_of(str(data / name))
    assert {branch.name for branch in tree.branches} == numbers
    for branch, type_ in others.items():
        assert re.search(type_, dict(tree.left_out)[branch])
    assert tree.compression


def test_leaves_of_one_branch_are_read_like_branches(data: Path) -> None:
    path = str(data / "uproot-leaflist.root")
    file = opened(path, "tree")
    names = ["leaflist.z", "leaflist.x"]
    values = read(path, file.identity, "tree", branches=names, entries=EntryRange(1, 4))
    expected = uproot.open(path)["tree/leaflist"].array(library="np")[1:4]
    assert list(values) == names
    for leaf in ("z", "x"):
        np.testing.assert_array_equal(values[f"leaflist.{leaf}"], expected[leaf])


def test_numbers_that_are_stored_shorter_are_numbers(data: Path) -> None:
    path = str(data / "uproot-double32-float16.root")
    file = opened(path, "tree")
    types = {branch.name: branch.type for branch in file.branches}
    assert len(types) == 12
    assert (types["double32_3"], types["float16_16"]) == ("float64", "float32")
    values = read(path, file.identity, "tree", branches=list(types), entries=EntryRange(0, file.entries))
    tree = uproot.open(path)["tree"]
    for name, branch in values.items():
        expected = tree[name].array(library="np")
        found = branch.values.reshape(expected.shape) if isinstance(branch, Jagged) else branch
        np.testing.assert_array_equal(found, expected)


def test_branches_with_bad_baskets_are_named_with_the_line_that_leaves_them_out(data: Path) -> None:
    path = str(data / "uproot-small-dy-nooffsets.root")
    file = opened(path, "tree")
    names = [branch.name for branch in file.branches]
    with pytest.raises(RequestError, match=r'"exclude_branches": \["Jet_jetId", "Jet_pt"\]'):
        read(path, file.identity, "tree", branches=names, entries=EntryRange(0, file.entries))
    others = [name for name in names if not name.startswith("Jet_")]
    assert len(read(path, file.identity, "tree", branches=others, entries=EntryRange(0, file.entries))) == len(others)


def test_names_with_a_colon_are_names(tmp_path: Path) -> None:
    path = tmp_path / "colon.root"
    with uproot.recreate(path) as file:
        file["a:b"] = np.histogram([1.0, 2.0])
        file["folder/x:y"] = np.histogram([1.0])
        file.mktree("Events", {"met": "float64"}).extend({"met": np.array([1.0, 2.0])})
    assert [tree.name for tree in trees_of(str(path))] == ["Events"]
    assert opened(str(path), "Events").entries == 2
    with pytest.raises(RequestError, match="'a:b' in .* is of class TH1D; only TTrees and RNTuples are read"):
        opened(str(path), "a:b")


def test_a_file_without_a_tree_is_an_error_that_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "histogram.root"
    with uproot.recreate(path) as file:
        file["mass"] = np.histogram([1.0, 2.0])
    with pytest.raises(RequestError, match=r"has no TTree and no RNTuple; it has: mass \(TH1D\)"):
        trees_of(str(path))


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("missing pT [GeV]", "missing pT [GeV]"),
        ("\udcb5\n[GeV]", "  [GeV]"),  # uproot gives bytes that are not UTF-8 as surrogates, which plots cannot draw
        ("met/F", ""),
        ("pt[nMuon]/F", ""),
        ("x/D:y/I", ""),
        ("met", ""),
    ],
)
def test_titles_are_one_line_and_say_more_than_the_leaves(title: str, shown: str) -> None:
    assert _title(SimpleNamespace(name="met", title=title)) == shown
