"""Missing values, object cuts, new branches and cuts give what plain Python gives, event by event."""

import math
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
import vector
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged, Values, values_and_counts
from hepfaas.features.preprocess import inputs_of, is_named, jaggedness, preprocessed
from hepfaas.features.spec import FeatureBranch, FeatureSpec, InputBranch
from hepfaas.features.vectors import preprocessing_bytes, vectors_of
from hepfaas.runs.preprocessing import Cut, Missing, NewBranch, ObjectCut, Preprocessing
from hepfaas.runs.preprocessing_keys import preprocessing_from
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

AVAILABLE = (
    "run",
    "MET_pt",
    "nJet",
    "Jet_pt",
    "Jet_eta",
    "Jet_id",
    "nMuon",
    "Muon_pt",
    "Muon_eta",
    "Muon_phi",
    "Muon_mass",
)


def jagged(lists: list[list[float]], type_: str = "float32") -> Jagged:
    counts = np.array([len(values) for values in lists], dtype=np.int64)
    return Jagged(np.array([value for values in lists for value in values], dtype=type_), counts)


def lists(branch: Values) -> list[Any]:
    values, counts = values_and_counts(branch)
    return values.tolist() if counts is None else Jagged(values, counts).tolist()


def of(**keys: Any) -> Preprocessing:
    return preprocessing_from(keys, "params.json")


def same(one: Mapping[str, Values], other: Mapping[str, Values]) -> None:
    assert list(one) == list(other)
    for name in one:
        for left, right in zip(values_and_counts(one[name]), values_and_counts(other[name]), strict=True):
            assert (left is None) == (right is None)
            if left is not None and right is not None:
                assert left.dtype == right.dtype
                assert left.tobytes() == right.tobytes()


def test_without_preprocessing_the_branches_come_back_untouched() -> None:
    arrays: dict[str, Values] = {"x": np.arange(3)}
    result = preprocessed(arrays, Preprocessing())
    assert result.arrays is arrays
    assert result.passed is None
    assert result.flow is None


def test_what_is_not_needed_is_not_imported() -> None:
    code = """
import sys, numpy as np
from hepfaas.features.preprocess import preprocessed
from hepfaas.runs.preprocessing import *
preprocessed({"x": np.arange(3)}, Preprocessing())
print(any(name.startswith("hepfaas.expressions") for name in sys.modules))
flat = Preprocessing(missing=(Missing("*", -1.0),), new=(NewBranch("y", "log(x)"),), cuts=(Cut("c", "y > 0.5"),))
print(preprocessed({"x": np.arange(1.0, 4.0)}, flat).passed.tolist(), "awkward" in sys.modules, "vector" in sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "False\n[False, True, True] False False\n"


numbers = st.floats(-100, 100, width=32) | st.sampled_from([-999.0, 0.0, 30.0, math.nan])


@given(st.lists(st.tuples(numbers, st.lists(numbers, max_size=3)), max_size=10))
def test_declared_missing_values_become_nan(events: list[tuple[float, list[float]]]) -> None:
    arrays: dict[str, Values] = {
        "met": np.array([met for met, _ in events], dtype=np.float32),
        "Jet_btag": jagged([btags for _, btags in events]),
        "other": np.array([met for met, _ in events], dtype=np.float32),
    }
    result = preprocessed(arrays, of(missing={"*btag*": -999, "met": [-999, 30]})).arrays
    for got, wanted, declared in [
        (lists(result["met"]), [met for met, _ in events], (-999, 30)),
        ([b for btags in lists(result["Jet_btag"]) for b in btags], [b for _, btags in events for b in btags], (-999,)),
        (lists(result["other"]), [met for met, _ in events], ()),
    ]:
        np.testing.assert_array_equal(got, [math.nan if value in declared else value for value in wanted])


@pytest.mark.parametrize(
    ("type_", "value", "becomes"),
    [
        ("int8", -1, "float32"),
        ("int16", -999, "float32"),
        ("uint16", 65535, "float32"),
        ("int32", -999, "float64"),
        ("int64", -999, "float64"),
        ("float16", -999, "float16"),
        ("float32", -999, "float32"),
        ("float64", -999.5, "float64"),
        ("int8", -999, "int8"),
        ("uint32", -999, "uint32"),
        ("uint64", -999, "uint64"),
        ("int32", -999.5, "int32"),
        ("bool", 1, "bool"),
        ("float16", 1e6, "float16"),
        ("float32", 1e300, "float32"),
    ],
)
def test_the_type_does_not_depend_on_whether_the_value_occurs(type_: str, value: float, becomes: str) -> None:
    for values in ([0, 1], []):
        arrays: dict[str, Values] = {"x": np.array(values, dtype=type_), "y": jagged([values], type_)}
        result = preprocessed(arrays, of(missing=value)).arrays
        assert [values_and_counts(branch)[0].dtype.name for branch in result.values()] == [becomes, becomes]
        assert lists(result["x"]) == values


def test_a_missing_value_is_compared_in_the_type_of_the_branch() -> None:
    values = np.array([-999.9, 1], dtype=np.float32)
    assert math.isnan(lists(preprocessed({"x": values}, of(missing=-999.9)).arrays["x"])[0])


def test_the_arrays_that_were_given_are_not_changed() -> None:
    values = np.array([-999, 1], dtype=np.float32)
    preprocessed({"x": values}, of(missing=-999, cuts=["x > 0"]))
    assert values.tolist() == [-999, 1]


jets = st.lists(st.tuples(st.sampled_from([10.0, 30.0, 31.0, math.nan]), st.floats(-4, 4, width=32)), max_size=4)


@given(st.lists(st.tuples(jets, st.integers(0, 3)), max_size=10))
def test_object_cuts_drop_objects_of_the_collection_together(
    events: list[tuple[list[tuple[float, float]], int]],
) -> None:
    arrays: dict[str, Values] = {
        "nJet": np.array([len(jets) for jets, _ in events], dtype=np.uint32),
        "Jet_pt": jagged([[pt for pt, _ in jets] for jets, _ in events]),
        "Jet_eta": jagged([[eta for _, eta in jets] for jets, _ in events]),
        "Jet_count": np.array([7] * len(events), dtype=np.int32),
        "Jets_pt": jagged([[1.0, 2.0]] * len(events)),
        "Muon_pt": jagged([[5.0] * n for _, n in events]),
        "nMuon": np.array([n for _, n in events], dtype=np.int32),
    }
    result = preprocessed(arrays, of(objects={"Jet": "Jet_pt > 30 and abs(Jet_eta) < 2.5"})).arrays
    kept = [[(pt, eta) for pt, eta in jets if pt > 30 and abs(eta) < 2.5] for jets, _ in events]
    assert lists(result["Jet_pt"]) == [[pt for pt, _ in jets] for jets in kept]
    assert lists(result["Jet_eta"]) == [[eta for _, eta in jets] for jets in kept]
    assert lists(result["nJet"]) == [len(jets) for jets in kept]
    assert result["nJet"].dtype == np.uint32  # type: ignore[union-attr]
    untouched = ("Jet_count", "Jets_pt", "Muon_pt", "nMuon")
    same({name: result[name] for name in untouched}, {name: arrays[name] for name in untouched})


def test_steps_apply_in_their_order() -> None:
    arrays: dict[str, Values] = {
        "nJet": np.array([3, 1, 2], dtype=np.int32),
        "Jet_pt": jagged([[50, -999, 20], [40], [10, 60]]),
        "MET_pt": np.array([10, 20, 30], dtype=np.float32),
    }
    steps = Preprocessing(
        missing=(Missing("Jet_*", -999.0),),
        objects=(ObjectCut("Jet", "not (Jet_pt < 15)"),),
        new=(NewBranch("ht", "sum(Jet_pt)", False), NewBranch("ratio", "MET_pt / ht")),
        cuts=(Cut("jets", "nJet >= 1"), Cut("ratio", "ratio > 0.3")),
    )
    result = preprocessed(arrays, steps)
    assert lists(result.arrays["Jet_pt"]) == [[50, 20], [40], [60]]
    assert lists(result.arrays["ht"]) == [70, 40, 60]
    assert result.flow is not None
    assert result.flow.tolist() == [1, 2, 2]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=12))
def test_the_flow_names_the_first_cut_that_rejects(events: list[tuple[bool, bool, bool]]) -> None:
    columns = np.array(events, dtype=bool).reshape(-1, 3)
    result = preprocessed({name: columns[:, i] for i, name in enumerate("abc")}, of(cuts=["a", "b", "c"]))
    assert result.passed is not None
    assert result.flow is not None
    assert result.flow.dtype == np.uint8
    assert result.passed.tolist() == [all(event) for event in events]
    assert result.flow.tolist() == [[*event, False].index(False) for event in events]


def test_the_flow_has_room_for_the_most_cuts() -> None:
    result = preprocessed({"x": np.array([0.0, 254.5, 300.0])}, of(cuts=[f"x > {i}" for i in range(255)]))
    assert result.flow is not None
    assert result.flow.tolist() == [0, 255, 255]
    assert result.passed is not None
    assert result.passed.tolist() == [False, True, True]


def test_nan_and_zero_do_not_pass() -> None:
    arrays: dict[str, Values] = {
        "x": np.array([math.nan, 0, -2, math.inf]),
        "Jet_x": jagged([[math.nan], [], [1], [0]]),
    }
    for cut, passed in {
        "x != 1": [False, True, True, True],
        "x": [False, False, True, True],
        "all(Jet_x != 1)": [False, True, False, True],
        "any(Jet_x >= 0)": [False, False, True, True],
    }.items():
        result = preprocessed(arrays, of(cuts=[cut])).passed
        assert result is not None
        assert result.tolist() == passed, cut


def test_a_mass_is_that_of_the_library_vector(data: Path) -> None:
    keys = {
        "objects": {"Jet": "Jet_pt > 20"},
        "new_branches": {"m_jj": "mass(Jet[0], Jet[1])", "Jet_px": "Jet_pt * cos(Jet_phi)"},
        "cuts": ["nJet >= 2"],
    }
    with uproot.open(data / "nanoAOD_2015_CMS_Open_Data_ttbar.root") as file:
        tree = file["Events"]
        inputs = inputs_of(of(**keys), ["MET_pt", "m_jj"], tree.keys())
        arrays = tree.arrays(inputs, how=dict)
    assert set(inputs) == {"MET_pt", "nJet", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"}
    result = preprocessed(arrays, of(**keys))
    jets = vector.zip({part: arrays[f"Jet_{part}"] for part in ("pt", "eta", "phi", "mass")})
    jets = jets[jets.pt > 20]
    n_jets = ak.to_numpy(ak.num(jets))
    assert result.passed is not None
    assert result.passed.tolist() == (n_jets >= 2).tolist()
    assert 10 < result.passed.sum() < 190
    pairs = jets[n_jets >= 2]
    m_jj, _ = values_and_counts(result.arrays["m_jj"])
    np.testing.assert_allclose(m_jj[n_jets >= 2], (pairs[:, 0] + pairs[:, 1]).mass, rtol=1e-3)
    assert np.isnan(m_jj[n_jets < 2]).all()
    px, counts = values_and_counts(result.arrays["Jet_px"])
    np.testing.assert_allclose(px, ak.ravel(jets.px), rtol=1e-5)
    np.testing.assert_array_equal(counts, n_jets)


def test_inputs_are_what_is_used_and_in_the_order_of_the_file() -> None:
    keys = {
        "missing": {"run": -1},
        "objects": {"Jet": "Jet_id > 0"},
        "new_branches": {"m_ll": "mass(Muon[0], Muon[1])", "twice": "2 * m_ll"},
        "cuts": ["nMuon >= 2 and twice > 20"],
        "remove": ["Jet_id"],
    }
    inputs = inputs_of(of(**keys), ["twice", "Jet_eta"], AVAILABLE)
    assert inputs == ("Jet_eta", "Jet_id", "nMuon", "Muon_pt", "Muon_eta", "Muon_phi", "Muon_mass")
    assert inputs_of(Preprocessing(), ["MET_pt", "run"], AVAILABLE) == ("run", "MET_pt")


TYPES = {"x": (False, "float32"), "i": (False, "uint8"), "Jet_pt": (True, "float64"), "Jet_id": (True, "int16")}


@pytest.mark.parametrize(
    ("expression", "is_jagged"),
    [
        ("x + 1", False),
        ("Jet_pt > 20", True),
        ("x * Jet_pt", True),
        ("sum(Jet_pt)", False),
        ("Jet_pt[0]", False),
        ("Jet_pt[Jet_id > 0]", True),
        ("3", False),
        ("any(Jet_id)", False),
        ("i", False),
        ("sort(Jet_pt)", True),
    ],
)
def test_jaggedness_is_known_without_events(expression: str, is_jagged: bool) -> None:
    keys = of(new_branches={"y": expression, "z": "2 * y"}, cuts=["x > 1"], missing=-1)
    assert jaggedness(keys, TYPES) == {"y": is_jagged, "z": is_jagged}
    arrays: dict[str, Values] = {
        name: jagged([[2, 1], [], [3]], type_) if many else np.array([1, 2, 3], dtype=type_)
        for name, (many, type_) in TYPES.items()
    }
    branch = preprocessed(arrays, keys).arrays["y"]
    values, counts = values_and_counts(branch)
    assert (counts is not None) == is_jagged
    assert len(branch) == 3
    assert values.dtype.kind in "biuf"


X: NDArray[np.float32] = np.array([1, 2], dtype=np.float32)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (of(cuts=["Jet_pt > 20"]), "cut 'Jet_pt > 20' has one value for each object; .*write any"),
        (
            of(cuts={"hard": "Jet_Pt > 20"}),
            "cut 'hard': 'Jet_Pt > 20' at column 1: .* no branch 'Jet_Pt'; closest: Jet_pt",
        ),
        (of(cuts=["all(x > 1)"]), "cut: .*needs a jagged value; this has one number for each event"),
        (of(objects={"Jet": "x > 1"}), "objects 'Jet': the condition has one value for each event"),
        (of(objects={"Jot": "Jet_pt > 1"}), "objects 'Jot': no branch begins with 'Jot_'; closest: Jet"),
        (
            of(objects={"Jet": "Mu_pt > 1"}),
            "objects 'Jet': in event 1 of these, branch 'Jet_pt' has 0 values and .* 1;",
        ),
        (of(new_branches={"x": "2"}), "new branch 'x': the events have a branch of this name already"),
        (of(new_branches={"y": "Jet"}), "new branch 'y': 'Jet' at column 1: there is no branch 'Jet'"),
        (of(new_branches={"y": "Jet_pt + Mu_pt"}), "new branch 'y': .*different numbers of objects"),
        (of(new_branches={"y": "z", "z": "x"}), "new branch 'y': 'z' at column 1: there is no branch 'z'"),
        (of(new_branches={"y": "vector(x, x)"}), "new branch 'y': .*the result is a vector"),
        (
            Preprocessing(new=(NewBranch("y", "sum(Jet_pt)", True),)),
            "new branch 'y' is declared jagged, and 'sum\\(Jet_pt\\)' is flat; change its type to 'flat'",
        ),
        (Preprocessing(new=(NewBranch("y", "2 * Jet_pt", False),)), "declared flat, and .* is jagged; change its type"),
    ],
)
def test_an_error_names_the_entry_and_what_it_needs(preprocessing: Preprocessing, message: str) -> None:
    arrays: dict[str, Values] = {"x": X, "Jet_pt": jagged([[1, 2], []]), "Mu_pt": jagged([[1, 2], [3]])}
    with pytest.raises(RequestError, match=message):
        preprocessed(arrays, preprocessing)


@pytest.mark.parametrize(
    ("keys", "features", "message"),
    [
        ({"cuts": ["nMuons > 1"]}, [], "cut: 'nMuons > 1' at column 1: there is no branch 'nMuons'; closest: nMuon"),
        ({"objects": {"Tau": "nMuon > 1"}}, [], "objects 'Tau': no branch begins with 'Tau_'"),
        (
            {"new_branches": {"MET_pt": "2 * run"}},
            [],
            "new branch 'MET_pt': the file has a branch of this name already",
        ),
        ({}, ["Jet_Pt"], "there is no branch 'Jet_Pt'; closest: Jet_pt"),
    ],
)
def test_a_missing_branch_is_an_error_before_anything_is_read(
    keys: dict[str, Any], features: list[str], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        inputs_of(of(**keys), features, AVAILABLE)


def test_patterns_match_whole_names() -> None:
    assert is_named("Jet_btag", "*btag*")
    assert is_named("Jet_pt", "Jet_pt")
    assert is_named("odd[0]", "odd[0]")
    assert is_named("Jet_a", "Jet_[ab]")
    assert not is_named("Jet_pt", "jet_pt")
    assert not is_named("Jet_pt", "pt")


KEYS = of(
    missing={"Jet_pt": -999, "nJet": 4},
    objects={"Jet": "Jet_pt > 20 or isnan(Jet_pt)"},
    new_branches={"ht": "sum(Jet_pt)", "lead": "Jet_pt[0]", "Jet_log": "log(Jet_pt)", "best": "argmax(Jet_pt)"},
    cuts=["nJet >= 1", "ht > 50 or lead > 40", "all(Jet_log > 3)"],
)


@given(st.lists(st.lists(numbers, max_size=4), max_size=12), st.data())
def test_slices_give_the_same_as_the_whole(events: list[list[float]], data: st.DataObject) -> None:
    arrays: dict[str, Values] = {
        "nJet": np.array([len(jets) for jets in events], dtype=np.int32),
        "Jet_pt": jagged(events),
    }
    cut = data.draw(st.integers(0, len(events)))
    whole = preprocessed(arrays, KEYS)
    assert whole.flow is not None
    for part in (slice(0, cut), slice(cut, len(events))):
        some = preprocessed({name: branch[part] for name, branch in arrays.items()}, KEYS)
        assert some.flow is not None
        assert some.flow.tobytes() == whole.flow[part].tobytes()
        for name, branch in whole.arrays.items():
            values, counts = values_and_counts(branch)
            expected = Jagged(values, counts)[part] if counts is not None else values[part]
            same({name: some.arrays[name]}, {name: expected})


@given(st.lists(st.lists(numbers, max_size=4), min_size=1, max_size=12))
def test_the_form_of_a_jagged_branch_does_not_matter(events: list[list[float]]) -> None:
    branch = jagged(events)
    counts: dict[str, Values] = {"nJet": np.array([len(jets) for jets in events], dtype=np.int32)}
    one = preprocessed({**counts, "Jet_pt": branch}, KEYS)
    other = preprocessed({**counts, "Jet_pt": ak.unflatten(branch.values, branch.counts)}, KEYS)
    same(one.arrays, other.arrays)
    assert one.flow is not None
    assert other.flow is not None
    assert one.flow.tolist() == other.flow.tolist()


def test_events_in_blocks_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    counts = random.poisson(3.0, 300)
    arrays: dict[str, Values] = {
        "met": random.exponential(50, 300),
        "Jet_pt": Jagged(random.exponential(40, int(counts.sum())).astype(np.float32), counts),
    }
    preprocessing = of(new_branches={"ht": "sum(Jet_pt)", "x": "exp(-Jet_pt / 50)"}, cuts=["met > 30 and ht > 20"])
    spec = FeatureSpec(
        (
            FeatureBranch("ht", jagged=False, low=0.0, high=500.0, width=1),
            FeatureBranch("x", jagged=True, low=0.0, high=1.0, width=4),
        ),
        preprocessing=preprocessing,
        read=(InputBranch("met", False, "float64"), InputBranch("Jet_pt", True, "float32")),
    )
    whole = vectors_of(arrays, spec, ["met", "ht * 2"])
    monkeypatch.setattr("hepfaas.features.vectors.BLOCK_VALUES", 7)
    parts = vectors_of(arrays, spec, ["met", "ht * 2"])
    assert whole.selected is not None
    assert parts.selected is not None
    assert 0 < whole.selected.sum() < 300
    assert whole.n_surplus > 0
    assert parts.selected.tobytes() == whole.selected.tobytes()
    assert parts.features.tobytes() == whole.features.tobytes()
    assert parts.n_surplus == whole.n_surplus
    assert [parts.spectators[name].tobytes() for name in whole.spectators] == [
        values.tobytes() for values in whole.spectators.values()
    ]
    nothing = vectors_of({name: branch[0:0] for name, branch in arrays.items()}, spec)
    assert nothing.features.shape == (0, 5)


def test_the_limit_of_time_ends_a_single_long_expression() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 100:
            raise RequestError("too long")

    with pytest.raises(RequestError, match="too long"):
        preprocessed({"x": np.ones(3)}, of(new_branches={"y": "+".join(["x * x"] * 100)}), check)
    assert calls == 101


def test_new_branches_take_memory_for_a_block_of_events_only() -> None:
    arrays: dict[str, Values] = {"x": np.ones(1_000_000)}
    spec = FeatureSpec(
        (FeatureBranch("y199", jagged=False, low=0.0, high=500.0, width=1),),
        preprocessing=of(new_branches={f"y{number}": f"x + {number}" for number in range(200)}),
        read=(InputBranch("x", False, "float64"),),
    )
    tracemalloc.start()
    try:
        vectors_of(arrays, spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    features = arrays["x"].size * 4  # type: ignore[union-attr]
    longest = arrays["x"].nbytes * 3  # type: ignore[union-attr]
    assert peak < 2 * features + preprocessing_bytes(arrays, spec) + longest < 200 * arrays["x"].nbytes / 10  # type: ignore[union-attr]
