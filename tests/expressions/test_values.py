"""The values of expressions, computed a second time by NumPy, awkward and vector."""

import itertools
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
import vector
from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.features.jagged import Jagged, values_and_counts
from hypothesis import given, settings
from hypothesis import strategies as st

EVENTS = 500
generator = np.random.default_rng(7)
COUNTS = generator.integers(0, 5, EVENTS)
JETS = generator.integers(0, 4, EVENTS)


def objects(values: np.ndarray[Any, Any], counts: np.ndarray[Any, Any] = COUNTS) -> ak.Array:
    return ak.unflatten(values, counts)


def of(counts: np.ndarray[Any, Any], low: float, high: float) -> ak.Array:
    return objects(generator.uniform(low, high, counts.sum()), counts)


A: dict[str, Any] = {
    "MET_pt": generator.exponential(30, EVENTS).astype(np.float32),
    "MET_phi": generator.uniform(-np.pi, np.pi, EVENTS).astype(np.float32),
    "nMuon": COUNTS.astype(np.uint32),
    "x": generator.normal(0, 2, EVENTS),
    "y": generator.normal(0, 2, EVENTS),
    "n": generator.integers(-5, 6, EVENTS),
    "event": generator.integers(0, 2**63, EVENTS).astype(np.uint64),
    "flags": generator.integers(0, 256, EVENTS).astype(np.uint8),
    "HLT": generator.random(EVENTS) > 0.5,
    "Muon_pt": of(COUNTS, 0, 100),
    "Muon_eta": of(COUNTS, -2.5, 2.5),
    "Muon_phi": of(COUNTS, -np.pi, np.pi),
    "Muon_mass": objects(np.full(COUNTS.sum(), 0.10566)),
    "Muon_charge": objects(generator.choice([-1, 1], COUNTS.sum())),
    "Muon_mva": objects(generator.normal(0, 1, COUNTS.sum()).astype(np.float32)),
    "Muon_tight": objects(generator.random(COUNTS.sum()) > 0.5),
    "Jet.pt": of(JETS, 0, 100),
    "Jet.eta": of(JETS, -5, 5),
    "Jet.phi": of(JETS, -np.pi, np.pi),
    "Jet.e": of(JETS, 10_000, 20_000),
    "weird name/with:chars": generator.normal(0, 1, EVENTS),
}


def vectors_of(kind: str, **parts: ak.Array) -> ak.Array:
    return ak.zip(parts, with_name=kind, behavior=vector.backends.awkward.behavior)


MUON = vectors_of("Momentum4D", **{part: A[f"Muon_{part}"] for part in ("pt", "eta", "phi", "mass")})
JET = vectors_of("Momentum4D", pt=A["Jet.pt"], eta=A["Jet.eta"], phi=A["Jet.phi"], energy=A["Jet.e"])
MET = vectors_of("Momentum2D", pt=A["MET_pt"].astype(float), phi=A["MET_phi"].astype(float))


def padded(array: ak.Array, at: int) -> ak.Array:
    """Return the object at a position, None if there is none."""
    return ak.pad_none(array, 2, axis=1)[:, at]


def value(text: str) -> Any:
    expression = parse(text, "test")
    return expression.evaluate({name: A[name] for name in expression.branches(A)}, EVENTS)


def same(found: Any, wanted: Any) -> None:
    """Compare values; None and NaN are the same."""
    if isinstance(found, ak.Array):
        wanted = ak.Array(wanted)
        assert ak.num(found).tolist() == ak.num(wanted).tolist()
        found, wanted = ak.flatten(found), ak.flatten(wanted)
    if isinstance(wanted, ak.Array):
        wanted = ak.fill_none(wanted, np.nan) if wanted.layout.is_option else wanted
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


M, x, y, n, met = A["Muon_pt"], A["x"], A["y"], A["n"], A["MET_pt"]
AGAINST_AWKWARD: dict[str, Callable[[], Any]] = {
    "MET_pt": lambda: met,
    "1e3": lambda: np.full(EVENTS, 1e3),
    "x + y * 2 - 1": lambda: x + y * 2 - 1,
    "-x ** 2": lambda: -(x**2),
    "2 ** -1 ** 2": lambda: np.full(EVENTS, 0.5),
    "x / y": lambda: x / y,
    "n // 3": lambda: n // 3,
    "n % 3": lambda: n % 3,
    "x // y + x % y": lambda: x // y + x % y,
    "n ** 3": lambda: n**3,
    "event % 2": lambda: A["event"] % 2,
    "nMuon - 3": lambda: A["nMuon"].astype(int) - 3,
    "20 < MET_pt <= 50": lambda: (met > 20) & (met <= 50),
    "50 >= MET_pt > 20 > 1": lambda: (met > 20) & (met <= 50),
    "x > 0 and y > 0 or n == 1": lambda: ((x > 0) & (y > 0)) | (n == 1),
    "x > 0 && y > 0 || n == 1": lambda: ((x > 0) & (y > 0)) | (n == 1),
    "(x > 0) & (y > 0) | (n == 1)": lambda: ((x > 0) & (y > 0)) | (n == 1),
    "x > 0 & y > 0 | n == 1": lambda: ((x > 0) & (y > 0)) | (n == 1),
    "x > 0 and (y > 0 or n == 1)": lambda: (x > 0) & ((y > 0) | (n == 1)),
    "not x > 0": lambda: ~(x > 0),
    "!(x > 0) and ~(y > 0)": lambda: ~(x > 0) & ~(y > 0),
    "!HLT": lambda: ~A["HLT"],
    "HLT & (x > 0)": lambda: A["HLT"] & (x > 0),
    "(flags & 4) == 4": lambda: (A["flags"] & 4) == 4,
    "flags >> 3 & 1": lambda: A["flags"] >> 3 & 1,
    "flags << 8 | 1": lambda: A["flags"].astype(int) << 8 | 1,
    "~flags": lambda: ~A["flags"].astype(int),
    "n and x > 0": lambda: (n != 0) & (x > 0),
    "(x > 0) + (y > 0)": lambda: (x > 0).astype(int) + (y > 0),
    "where(x > 0, x, 0)": lambda: np.where(x > 0, x, 0),
    "x if x > 0 else y if y > 0 else -1": lambda: np.where(x > 0, x, np.where(y > 0, y, -1)),
    "max(x, y, 0)": lambda: np.maximum(np.maximum(x, y), 0),
    "min(x, 1) + minimum(x, y) - maximum(x, y)": lambda: np.minimum(x, 1) + np.minimum(x, y) - np.maximum(x, y),
    "clip(x, -1, 1)": lambda: np.clip(x, -1, 1),
    "np.sqrt(abs(x)) + math.log(2) + numpy.exp(-y)": lambda: np.sqrt(abs(x)) + np.log(2) + np.exp(-y),
    "TMath::Abs(x) + TMath::Pi()": lambda: abs(x) + np.pi,
    "pi * e": lambda: np.full(EVENTS, np.pi * np.e),
    'branch("weird name/with:chars") * 2': lambda: A["weird name/with:chars"] * 2,
    "get('weird name/with:chars')": lambda: A["weird name/with:chars"],
    "hypot(x, y) + atan2(y, x)": lambda: np.hypot(x, y) + np.arctan2(y, x),
    "Muon_pt * 2 + x": lambda: M * 2 + x,
    "Muon_pt > MET_pt": lambda: met < M,
    "Muon_pt > 20 and MET_pt > 20": lambda: (M > 20) & (met > 20),
    "Jet.pt": lambda: A["Jet.pt"],
    "sqrt(Jet.pt)": lambda: np.sqrt(A["Jet.pt"]),
    "Muon_pt[0]": lambda: padded(M, 0),
    "Muon_pt[1] - Muon_pt[0]": lambda: padded(M, 1) - padded(M, 0),
    "Muon_pt[-1]": lambda: ak.firsts(M[:, ::-1]),
    "first(Muon_pt) + last(Muon_pt)": lambda: ak.firsts(M) + ak.firsts(M[:, ::-1]),
    "Muon_charge[0] * Muon_charge[1]": lambda: padded(A["Muon_charge"], 0) * padded(A["Muon_charge"], 1),
    "Muon_charge[0] != Muon_charge[1]": lambda: ak.fill_none(
        padded(A["Muon_charge"], 0) != padded(A["Muon_charge"], 1), False
    ),
    "Muon_tight[0]": lambda: ak.fill_none(padded(A["Muon_tight"], 0), False),
    "not Muon_tight[0]": lambda: ak.fill_none(~padded(A["Muon_tight"], 0), False),
    "Muon_pt[argmax(Muon_mva)]": lambda: ak.firsts(M[ak.argmax(A["Muon_mva"], axis=1, keepdims=True)]),
    "Muon_pt[argsort(Muon_mva)]": lambda: M[ak.argsort(A["Muon_mva"], axis=1)],
    "Muon_pt[Muon_mva > 0]": lambda: M[A["Muon_mva"] > 0],
    "Muon_pt[Muon_mva > x]": lambda: M[A["Muon_mva"] > x],
    "sum(Muon_pt[Muon_pt > 20 and Muon_tight])": lambda: ak.sum(M[(M > 20) & A["Muon_tight"]], axis=1),
    "sum(Muon_mva)": lambda: ak.sum(A["Muon_mva"], axis=1),
    "sum(Muon_pt > 20)": lambda: ak.sum(M > 20, axis=1),
    "ak.sum(Muon_charge)": lambda: ak.sum(A["Muon_charge"], axis=1),
    "max(Muon_pt)": lambda: ak.max(M, axis=1),
    "min(Muon_pt)": lambda: ak.min(M, axis=1),
    "max(Muon_charge)": lambda: ak.max(A["Muon_charge"], axis=1),
    "mean(Muon_pt)": lambda: ak.mean(M, axis=1),
    "mean(Muon_mva)": lambda: ak.mean(A["Muon_mva"], axis=1),
    "argmax(Muon_pt)": lambda: ak.argmax(M, axis=1),
    "argmin(Muon_pt)": lambda: ak.argmin(M, axis=1),
    "any(Muon_pt > 50)": lambda: ak.any(M > 50, axis=1),
    "all(Muon_pt > 50)": lambda: ak.all(M > 50, axis=1),
    "len(Muon_pt) + num(Muon_pt) + count(Muon_pt)": lambda: 3 * ak.num(M),
    "sort(Muon_pt)": lambda: ak.sort(M, axis=1),
    "argsort(Muon_pt)": lambda: ak.argsort(M, axis=1),
}


@pytest.mark.parametrize("text", AGAINST_AWKWARD)
def test_the_values_are_those_of_numpy_and_awkward(text: str) -> None:
    same(value(text), AGAINST_AWKWARD[text]())


LEAD, SECOND = padded(MUON, 0), padded(MUON, 1)
AGAINST_VECTOR: dict[str, Callable[[], Any]] = {
    "mass(Muon[0], Muon[1])": lambda: (LEAD + SECOND).mass,
    "mass(Muon[0] + Muon[1])": lambda: (LEAD + SECOND).mass,
    "mass(Muon[0] - Muon[1])": lambda: (LEAD - SECOND).mass,
    "pt(Muon[0], Muon[1])": lambda: (LEAD + SECOND).pt,
    "eta(Muon[0], Muon[1])": lambda: (LEAD + SECOND).eta,
    "phi(Muon[0], Muon[1])": lambda: (LEAD + SECOND).phi,
    "energy(Muon[0], Jet[0])": lambda: (LEAD + padded(JET, 0)).energy,
    "mass(Muon[0], Jet[0])": lambda: (LEAD + padded(JET, 0)).mass,
    "rapidity(Muon[0])": lambda: LEAD.rapidity,
    "pt(Muon[0])": lambda: padded(M, 0),
    "energy(Muon)": lambda: MUON.energy,
    "pz(Muon[Muon_pt > 20])": lambda: MUON[M > 20].pz,
    "mass(Jet)": lambda: JET.mass,
    "deltaR(Muon[0], Muon[1])": lambda: LEAD.deltaR(SECOND),
    "deltaR(Muon, Muon[0])": lambda: ak.fill_none(MUON.deltaR(ak.firsts(MUON)), [], axis=0),
    "deltaEta(Muon[0], Muon[1])": lambda: LEAD.deltaeta(SECOND),
    "deltaPhi(Muon[0], MET)": lambda: LEAD.deltaphi(MET),
    "deltaPhi(Muon_phi[0], Muon_phi[1])": lambda: LEAD.deltaphi(SECOND),
    "pt(Muon[0], MET)": lambda: (LEAD.to_Vector2D() + MET).pt,
    "pt(MET)": lambda: MET.pt,
    "deltaR(Muon[argmax(Muon_mva)], Jet[0])": lambda: ak.firsts(
        MUON[ak.argmax(A["Muon_mva"], axis=1, keepdims=True)]
    ).deltaR(padded(JET, 0)),
    "mass(vector(Muon_pt[0], Muon_eta[0], Muon_phi[0], 0.10566), Muon[1])": lambda: (LEAD + SECOND).mass,
}


@pytest.mark.parametrize("text", AGAINST_VECTOR)
def test_the_values_of_four_vectors_are_those_of_vector(text: str) -> None:
    same(value(text), AGAINST_VECTOR[text]())


def test_the_sum_of_a_collection_is_that_of_its_components() -> None:
    energy, x, y, z = (ak.to_numpy(ak.sum(part, axis=1)) for part in (MUON.energy, MUON.px, MUON.py, MUON.pz))
    np.testing.assert_allclose(
        value("mass(sum(Muon))")[COUNTS > 1], np.sqrt(energy**2 - x**2 - y**2 - z**2)[COUNTS > 1]
    )
    assert (value("pt(sum(Muon))")[COUNTS == 0] == 0).all()


def test_the_transverse_mass_is_that_of_the_formula() -> None:
    lead = LEAD.to_Vector2D()
    wanted = np.sqrt(2 * lead.pt * MET.pt * (1 - np.cos(lead.phi - MET.phi)))
    np.testing.assert_allclose(value("mt(Muon[0], MET)"), ak.to_numpy(ak.fill_none(wanted, np.nan)), rtol=1e-6)


TYPES = {
    "MET_pt * 2.5 + pi": np.float32,
    "sqrt(MET_pt) * sqrt(2)": np.float32,
    "where(MET_pt > 20, MET_pt, 0.5)": np.float32,
    "MET_pt * x": np.float64,
    "n * 2": np.int64,
    "flags * 300": np.int64,
    "nMuon": np.int64,
    "event + 1": np.uint64,
    "n / 2": np.float64,
    "n ** 2": np.int64,
    "n ** -2": np.float64,
    "n ** n": np.float64,
    "abs(n)": np.int64,
    "sum(Muon_charge)": np.int64,
    "sum(Muon_mva)": np.float32,
    "sum(Muon_tight)": np.int64,
    "len(Muon_pt)": np.int64,
    "max(Muon_mva)": np.float32,
    "max(Muon_charge)": np.float64,
    "Muon_charge[0]": np.float64,
    "where(Muon_pt[0] > 20, 1, 0)": np.int64,
    "where(n > 0, Muon_pt[0] > 20, 3)": np.int64,
    "where(n > 0, Muon_pt[0] > 20, True)": np.bool_,
    "n > 0": np.bool_,
    "isnan(x)": np.bool_,
    "1": np.int64,
    "1.0": np.float64,
    "True": np.bool_,
}


@pytest.mark.parametrize("text", TYPES)
def test_the_type_follows_from_the_types_of_the_branches(text: str) -> None:
    assert value(text).dtype == TYPES[text]
    empty = {name: array[:0] for name, array in A.items()}
    assert np.asarray(parse(text, "test").evaluate(empty)).dtype == TYPES[text]


def test_integers_of_64_bits_are_exact() -> None:
    event = np.array([2**63 + 1, 2**64 - 1, 2**53 + 1], np.uint64)
    arrays = {"event": event, "n": event.astype(np.int64)}
    assert parse("event == 18446744073709551615", "test").evaluate(arrays).tolist() == [False, True, False]
    assert parse("event % 10", "test").evaluate(arrays).tolist() == [9, 5, 3]
    assert parse("n + 0 == 9007199254740993", "test").evaluate(arrays).tolist() == [False, False, True]
    jagged = {"id": ak.Array([[2**53 + 1], []])}
    assert parse("id[0] == 9007199254740993", "test").evaluate(jagged).tolist() == [True, False]


MISSING = {"a": np.array([1.0, np.nan]), "x": ak.Array([[5.0], []]), "q": ak.Array([[3], []])}


@pytest.mark.parametrize(
    "cut",
    [
        "a > 0", "not (a < 0)", "a != 7", "not (a == 7)", "!(a == 7)", "~(a == 7)", "x[0] > 0", "not (x[0] < 0)",
        "q[0] != 7", "not q[0] == 7", "0 < x[0] < 9", "not (0 > x[0] > 9)", "not (x[0] < 0 or q[0] < 0)",
        "x[0] > 0 and True",
        "max(x) > 0", "not (max(x) < 0)", "x[argmax(x)] > 0", "not x[argmax(q)] < 0", "q[0]", "a", "not not a",
        "not (a + 1 < 0)", "not (sqrt(q[0]) < 0)", "isfinite(a)", "isfinite(q[0])", "not isnan(x[0])",
    ],
)  # fmt: skip
def test_a_cut_on_a_missing_value_never_passes(cut: str) -> None:
    expression = parse(cut, "test")
    assert expression.passes(MISSING).tolist() == [True, False]
    found = expression.evaluate(MISSING)
    assert np.nan_to_num(found).astype(bool).tolist() == [True, False]


def test_a_number_other_than_0_passes_as_a_cut() -> None:
    assert parse("n", "test").passes({"n": np.array([0, 2, -1])}).tolist() == [False, True, True]
    assert parse("1", "test").passes({}, 2).tolist() == [True, True]
    assert parse("nan", "test").passes({}, 2).tolist() == [False, False]


def test_another_condition_can_decide_where_a_value_is_missing() -> None:
    for text in ("x[0] > 0 or True", "not (x[0] > 0 and False)", "isnan(x[0]) or x[0] > 0", "isnan(q[0]) or q[0] > 0"):
        assert parse(text, "test").evaluate(MISSING, 2).tolist() == [True, True], text


def test_where_takes_the_second_value_if_the_condition_is_missing() -> None:
    assert parse("where(x[0] > 0, 1, 0)", "test").evaluate(MISSING).tolist() == [1, 0]
    assert parse("where(isnan(q[0]), -1, q[0])", "test").evaluate(MISSING).tolist() == [3, -1]


def test_missing_values_of_branches_count_as_the_table_says() -> None:
    arrays = {"x": ak.Array([[1.0, np.nan], [np.nan], []])}
    for text, wanted in {
        "sum(x)": [np.nan, np.nan, 0],
        "mean(x)": [np.nan, np.nan, np.nan],
        "max(x)": [1, np.nan, np.nan],
        "min(x)": [1, np.nan, np.nan],
        "argmax(x)": [0, np.nan, np.nan],
        "any(x > 0)": [True, False, False],
        "all(x > 0)": [False, False, True],
        "sum(x > 0)": [1, 0, 0],
        "len(x)": [2, 1, 0],
        "sort(-x)[0]": [-1, np.nan, np.nan],
    }.items():
        np.testing.assert_array_equal(parse(text, "test").evaluate(arrays), wanted, text)


def test_only_a_plain_negative_number_counts_from_the_end() -> None:
    arrays = {"jet": ak.Array([[0, -1], [1]]), "pt": ak.Array([[10.0, 20.0], [5.0, 6.0]]), "i": np.array([-1, 1])}
    np.testing.assert_array_equal(ak.flatten(parse("pt[jet]", "test").evaluate(arrays)), [10, np.nan, 6])
    np.testing.assert_array_equal(parse("pt[i]", "test").evaluate(arrays), [np.nan, 6])
    np.testing.assert_array_equal(parse("pt[i * 1.0]", "test").evaluate(arrays), [np.nan, 6])
    np.testing.assert_array_equal(parse("pt[-1]", "test").evaluate(arrays), [20, 6])
    np.testing.assert_array_equal(parse("pt[1 - 2]", "test").evaluate(arrays), [20, 6])
    np.testing.assert_array_equal(parse("pt[10 ** 18]", "test").evaluate(arrays), [np.nan, np.nan])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x / 0", [np.inf, -np.inf, np.nan]), ("n / 0", [np.inf, -np.inf, np.nan]), ("n // 0", [np.nan] * 3),
        ("n % 0", [np.nan] * 3), ("n // n", [1, 1, np.nan]), ("n % n", [0, 0, np.nan]), ("x // n", [1, 1, np.nan]),
        ("sqrt(x)", [1, np.nan, 0]), ("log(x)", [0, np.nan, -np.inf]), ("x ** 0.5", [1, np.nan, 0]),
        ("exp(x * 1e9)", [np.inf, 0, 1]), ("9 ** 9 ** 9", [np.inf] * 3), ("1 / 0", [np.inf] * 3), 
        ("0 / 0", [np.nan] * 3),
        ("0 ** -1", [np.inf] * 3), ("1 // 0", [np.nan] * 3), ("fmod(n, n)", [0, 0, np.nan]), ("fmod(5, 3)", [2] * 3),
    ],
)  # fmt: skip
def test_division_by_zero_and_numbers_outside_a_function_give_inf_or_nan(text: str, wanted: list[float]) -> None:
    arrays = {"x": np.array([1.0, -1.0, 0.0]), "n": np.array([1, -1, 0])}
    np.testing.assert_array_equal(parse(text, "test").evaluate(arrays), wanted)


def test_branches_come_in_the_order_of_their_first_use() -> None:
    available = ["e", "b", "c", "MET_pt", "MET_phi", "MET_eta_x", "Muon_m", "Muon_pt", "Muon_eta", "Muon_phi", "Muon_e"]
    assert parse("c if b > 1 else c + e + pi", "test").branches(available) == ("c", "b", "e")
    assert parse("deltaPhi(MET, Muon[0])", "test").branches(available) == (
        "MET_pt", "MET_phi", "Muon_pt", "Muon_eta", "Muon_phi", "Muon_m",
    )  # fmt: skip
    assert parse("1 + pi", "test").branches(available) == ()


def test_the_name_of_a_branch_comes_before_a_collection_and_a_constant() -> None:
    assert parse("pi", "test").evaluate({"pi": np.array([3.0])}).tolist() == [3.0]
    arrays = {"Muon": np.array([3.0]), "Muon_pt": np.array([1.0]), "Muon_phi": np.array([1.0])}
    assert parse("Muon + 1", "test").evaluate(arrays).tolist() == [4.0]


def test_expressions_with_the_same_text_are_equal_and_can_be_sent_to_processes() -> None:
    one, two = parse("a > 1", "here"), parse("a > 1", "there")
    assert one == two
    assert len({one, two, parse("a > 2", "here")}) == 2
    long = parse("+".join(["a"] * 400), "here")
    assert pickle.loads(pickle.dumps(long)).evaluate({"a": np.ones(2)}).tolist() == [400, 400]
    assert pickle.loads(pickle.dumps(one)).place == "here"


def test_arrays_of_any_layout_give_the_same() -> None:
    jagged = ak.Array([[1.0, 2.0], [], [3.0]])
    wanted = [3.0, 0.0, 3.0]
    for array in (jagged, jagged[[0, 1, 2]], ak.concatenate([jagged[:1], jagged[1:]]), ak.to_packed(jagged)):
        assert parse("sum(x)", "test").evaluate({"x": array}).tolist() == wanted
    assert parse("sum(x)", "test").evaluate({"x": jagged[1:]}).tolist() == wanted[1:]
    assert parse("sum(x)", "test").evaluate({"x": np.array([[1.0, 2.0], [3.0, 4.0]])}).tolist() == [3, 7]
    assert parse("sum(x)", "test").evaluate({"x": ak.to_regular(ak.Array([[1.0, 2.0], [3.0, 4.0]]))}).tolist() == [3, 7]
    assert parse("x + 1", "test").evaluate({"x": ak.Array([1, 2])}).tolist() == [2, 3]
    assert parse("x + 1", "test").evaluate({"x": np.array([1, 2], ">i4")}).tolist() == [2, 3]


def test_jagged_values_without_awkward_give_the_same_as_those_of_awkward() -> None:
    jagged = {name: Jagged(*values_and_counts(array)) for name, array in A.items() if isinstance(array, ak.Array)}
    for text in AGAINST_AWKWARD:
        expression = parse(text, "test")
        found = expression.evaluate({name: jagged.get(name, A[name]) for name in expression.branches(A)}, EVENTS)
        if isinstance(found, Jagged):
            found = ak.unflatten(found.values, found.counts)
        same(found, value(text))


def test_flat_branches_and_jagged_values_need_neither_awkward_nor_vector() -> None:
    code = (
        "import sys, numpy; from hepfaas.expressions.expression import parse\n"
        "parse('a > 1 and sqrt(a) < 3 or where(a > 2, 1, 0)', 'x').evaluate({'a': numpy.ones(3)})\n"
        "from hepfaas.features.jagged import Jagged\n"
        "x = Jagged(numpy.ones(5), numpy.array([2, 0, 3]))\n"
        "assert parse('max(x[x > 0])', 'x').evaluate({'x': x}).tolist()[::2] == [1, 1]\n"
        "assert parse('x * 2', 'x').evaluate({'x': x}).tolist() == [[2, 2], [], [2, 2, 2]]\n"
        "print([m for m in ('awkward', 'vector', 'uproot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LAWS = """
sqrt(abs(x)) + sin(x) * exp(-y) - log(1 + y * y) / 3
x ** 2 + y ** 3 + x ** 0.5 + 2 ** y + y ** x
hypot(x, y) + arctan2(y, x)
tan(f) + cosh(f) + log10(f) + sin(f) + cos(f) + exp(f) + f ** 2.5
sum(jx) + mean(jx) + max(jx) - min(jx)
sum(jf)
mean(jf)
max(jf)
max(n) 
argmax(jf)
jf[argmax(jx)]
jf[0] if any(jx > 0) else n[0]
sin(jf) + jx * x
sort(jx)
argsort(jf)
jx[jf > 0.5]
mass(J[0], J[1])
deltaR(J, J[0])
pt(sum(J))
mass(J)
rapidity(J[0])
n[0] % n[1]
n // 2 + n ** 2
not jf > 0 or jx != 1
erf(x) + tanh(f) + cbrt(y) + expm1(f) + arcsinh(x)
where(x > 0, n[0], -1)
last(n) == 2
all(jx < 1)
""".strip().splitlines()
numbers = st.floats(-100, 100) | st.sampled_from([np.nan, np.inf, 0.0, -0.0, 1e300, -1e-300])
events = st.lists(
    st.tuples(numbers, numbers, st.lists(st.tuples(numbers, st.integers(-9, 9)), max_size=12)), max_size=20
)


def arrays_of(rows: list[Any]) -> dict[str, Any]:
    counts = np.array([len(row[2]) for row in rows], int)
    flat = np.array([row[:2] for row in rows], float).reshape(-1, 2)
    inner = np.array([pair for row in rows for pair in row[2]], float).reshape(-1, 2)
    with np.errstate(all="ignore"):
        jx, jf, f = inner[:, 0].copy(), inner[:, 0].astype(np.float32), flat[:, 1].astype(np.float32)
    jagged = {"jx": jx, "jf": jf, "n": inner[:, 1].astype(np.int32)}
    jagged |= {f"J_{part}": jx / scale for part, scale in {"pt": 1, "eta": 50, "phi": 30, "mass": 100}.items()}
    return {"x": flat[:, 0].copy(), "y": flat[:, 1].copy(), "f": f} | {
        name: ak.unflatten(data, counts) for name, data in jagged.items()
    }


def bytes_of(result: Any) -> tuple[bytes, list[int], Any]:
    if isinstance(result, ak.Array):
        content = np.asarray(ak.flatten(result))
        return content.tobytes(), ak.num(result).tolist(), content.dtype
    return result.tobytes(), [], result.dtype


@settings(deadline=None, max_examples=8)
@given(events, st.integers(1, 9))
def test_the_bits_do_not_depend_on_how_events_are_grouped(rows: list[Any], size: int) -> None:
    arrays = arrays_of(rows)
    for text in LAWS:
        expression = parse(text, "test")
        whole = bytes_of(expression.evaluate(arrays))
        starts = range(0, max(len(rows), 1), size)
        parts = [bytes_of(expression.evaluate({k: a[s : s + size] for k, a in arrays.items()})) for s in starts]
        assert b"".join(part[0] for part in parts) == whole[0], text
        assert [count for part in parts for count in part[1]] == whole[1], text
        assert {part[2] for part in parts} == {whole[2]}, text


@pytest.mark.parametrize("text", LAWS)
def test_the_bits_do_not_depend_on_how_many_events_are_grouped(text: str) -> None:
    rows = 6_000
    counts = generator.integers(0, 40, rows)
    jagged = {name: generator.normal(1, 20, counts.sum()) for name in ("jx", "J_pt", "J_eta", "J_phi", "J_mass")}
    jagged |= {"jf": jagged["jx"].astype(np.float32), "n": generator.integers(-9, 9, counts.sum())}
    arrays: dict[str, Any] = {name: ak.unflatten(data, counts) for name, data in jagged.items()}
    arrays |= {"x": generator.normal(1, 5, rows), "y": generator.normal(1, 5, rows)}
    arrays["f"] = generator.exponential(3, rows).astype(np.float32)
    expression = parse(text, "test")
    whole = bytes_of(expression.evaluate(arrays))
    starts = [0, 1, 2, 5, 9, 1_103, 4_099, rows]
    pairs = itertools.pairwise(starts)
    parts = [bytes_of(expression.evaluate({k: a[s:e] for k, a in arrays.items()})) for s, e in pairs]
    assert b"".join(part[0] for part in parts) == whole[0]


UPROOT = """
x
x + y
-x
x * y - n / 2
x ** 2
x % 2
x // 2
(x > 0) & (y < 1)
(x > 0) | (n == 2)
~(x > 0)
n & 3
n | 4
n << 2
n >> 1
~n
x > y
sqrt(x)
absolute(x)
acos(x)
arccosh(x)
asinh(x)
atan2(x, y)
arctanh(x)
cbrt(x)
ceil(x)
copysign(x, y)
cosh(x)
exp2(x)
expm1(x)
fabs(x)
floor(x)
fmax(x, y)
fmin(x, y)
hypot(x, y)
isfinite(x)
isinf(x)
isnan(x)
log1p(x)
log2(x)
log10(x)
logical_and(x > 0, y > 0)
logical_or(x > 0, y > 0)
neg(x)
nextafter(x, y)
rint(x)
round(x)
signbit(x)
sinh(x)
tanh(x)
trunc(x)
where(x > 0, x, y)
some.thing * 2
get('some.thing')
""".strip().splitlines()


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("text", UPROOT)
def test_expressions_of_uproot_have_the_same_values(text: str, uproot_tree: Any) -> None:
    arrays = uproot_tree.arrays(["x", "y", "n", "some.thing"], library="np")
    wanted = uproot_tree.arrays(["value"], aliases={"value": text}, library="np")["value"]
    np.testing.assert_array_equal(parse(text, "test").evaluate(arrays), wanted)


@pytest.fixture(scope="module")
def uproot_tree(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("uproot") / "x.root"
    with uproot.recreate(path) as file:
        branches = {"x": x, "y": y, "n": n, "some.thing": x + y}
        file.mktree("Events", {name: branch.dtype for name, branch in branches.items()})
        file["Events"].extend(branches)
    with uproot.open(path) as file:
        yield file["Events"]


def test_an_expression_without_branches_needs_the_number_of_events() -> None:
    assert parse("2 * 3", "test").evaluate({}, events=2).tolist() == [6, 6]
    with pytest.raises(RequestError, match="params.json: weight: '2' reads no branch: the number of events is unknown"):
        parse("2", "params.json: weight").evaluate({})


def test_functions_of_python_are_computed_in_parts() -> None:
    values = np.linspace(-3, 3, 25_000, dtype=np.float32)
    result = parse("erf(x) - erfc(-x)", "cut").evaluate({"x": values})
    assert np.asarray(result).tolist() == [
        float(np.float32(math.erf(value)) - np.float32(math.erfc(-value))) for value in values.tolist()
    ]
    assert parse("x * erf(0.5)", "cut").evaluate({"x": np.ones(1)})[0] == math.erf(0.5)
