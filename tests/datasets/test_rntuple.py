"""RNTuples are read like TTrees: the same values, ranges by clusters, other fields named."""

import random
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.datasets.summary import trees_of
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "unseen.root"
N = 300


def same(one: object, other: object) -> None:
    if isinstance(one, Jagged):
        assert isinstance(other, Jagged)
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.values, other.values)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as an RNTuple of four clusters."""
    path = tmp_path_factory.mktemp("rntuple") / "copy.root"
    events = uproot.open(SAMPLE)["Events"].arrays(library="ak")
    with uproot.recreate(path) as file:
        file["Events"] = events[:250]
        for start in range(250, 1000, 250):
            file["Events"].extend(events[start : start + 250])
    return path


def test_the_same_events_give_the_same_values(copy: Path) -> None:
    tree, ntuple = opened(str(SAMPLE), "Events"), opened(str(copy), "Events")
    described = [{branch.name: (branch.jagged, branch.type) for branch in file.branches} for file in (tree, ntuple)]
    assert described[0] == described[1]
    assert tree.entries == ntuple.entries == 1000
    names = list(described[0])
    for entries in (EntryRange(0, 1000), EntryRange(130, 777), EntryRange(500, 500)):
        values = [read(file.url, file.identity, "Events", branches=names, entries=entries) for file in (tree, ntuple)]
        for name in names:
            same(values[0][name], values[1][name])


def test_ranges_are_clusters(copy: Path) -> None:
    file = opened(str(copy), "Events")
    ranges = planned(file.baskets(["MET_pt"]), file.entries, 300)
    assert [(one.start, one.stop) for one in ranges] == [(0, 250), (250, 500), (500, 750), (750, 1000)]
    (summary,) = trees_of(str(copy))
    assert (summary.kind, summary.clusters, summary.entries) == ("RNTuple", 4, 1000)
    assert 0 < summary.compressed_bytes < summary.uncompressed_bytes


def test_records_and_arrays_are_branches_and_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "records.root"
    muons = ak.zip({"pt": ak.Array([[1.5, 2.5], [], [3.5]]), "charge": ak.Array([[1, -1], [], [1]])})
    columns = {
        "muons": muons,
        "vertex": ak.zip({"x": np.arange(3.0), "y": np.arange(3)}),
        "cells": ak.to_regular(ak.Array(np.arange(6.0).reshape(3, 2))),
        "name": ak.Array(["a", "bc", ""]),
        "tracks": ak.Array([[[1.0], []], [[2.0, 3.0]], []]),
    }
    with uproot.recreate(path) as file:
        file["Events"] = columns
    file = opened(str(path), "Events")
    forms = {branch.name: branch.jagged for branch in file.branches}
    assert forms == {"muons.pt": True, "muons.charge": True, "vertex.x": False, "vertex.y": False, "cells": True}
    assert set(dict(file.left_out)) == {"name", "tracks"}
    values = read(str(path), file.identity, "Events", branches=list(forms), entries=EntryRange(0, 3))
    np.testing.assert_array_equal(values["muons.pt"].values, [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(values["muons.charge"].counts, [2, 0, 1])
    np.testing.assert_array_equal(values["vertex.y"], [0, 1, 2])
    np.testing.assert_array_equal(values["cells"].counts, [2, 2, 2])
    np.testing.assert_array_equal(values["cells"].values, np.arange(6.0))
    with pytest.raises(RequestError, match="RNTuple 'Events' in .*; closest: muons.pt"):
        read(str(path), file.identity, "Events", branches=["muons.p"], entries=EntryRange(0, 3))


@pytest.mark.parametrize(
    ("name", "ntuple", "events", "numbers"),
    [
        ("ntpl001_staff_rntuple_v1-0-1-0.root", "Staff", 3354, 9),
        ("test_1jag_int_float_rntuple_v1-0-0-0.root", "ntuple", 100, 2),
    ],
)
def test_files_of_root_are_read(data: Path, name: str, ntuple: str, events: int, numbers: int) -> None:
    path = str(data / name)
    file = opened(path, ntuple)
    names = [branch.name for branch in file.branches]
    assert (file.entries, len(names)) == (events, numbers)
    values = read(path, file.identity, ntuple, branches=names, entries=EntryRange(0, events))
    expected = uproot.open(path)[ntuple].arrays()
    for branch in names:
        flat = ak.to_numpy(ak.flatten(expected[branch], axis=None))
        found = values[branch]
        np.testing.assert_array_equal(found.values if isinstance(found, Jagged) else found, flat)


def test_a_damaged_file_is_an_error_of_the_file(copy: Path, tmp_path: Path) -> None:
    chooser, whole = random.Random(7), copy.read_bytes()
    path = tmp_path / "damaged.root"
    errors: list[str] = []
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(30):
            damaged[chooser.randrange(100, len(damaged))] = chooser.randrange(256)
        path.write_bytes(damaged)
        errors += error_of(path)
    assert errors
    assert all(str(path) in error for error in errors)


def error_of(path: Path) -> list[str]:
    """Return the error of reading all branches of a file, none if they can be read."""
    try:
        file = opened(str(path), "Events")
        names = [branch.name for branch in file.branches]
        read(str(path), file.identity, "Events", branches=names, entries=EntryRange(0, file.entries))
    except RequestError as error:
        return [str(error)]
    return []
