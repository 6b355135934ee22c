"""Sentinels that nobody declared and branches without information are found, and ordinary branches raise no alarm."""

import math
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pytest
from hepfaas.features.branches import BranchRange, range_of
from hepfaas.features.findings import Sentinel, findings, sentinels
from hepfaas.features.jagged import Jagged
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

RNG = np.random.default_rng(5)
N = 4_000


def with_sentinel(values: NDArray[Any], sentinel: float, share: float) -> NDArray[Any]:
    return np.where(np.arange(N) < share * N, values.dtype.type(sentinel), values)


BTAG = RNG.uniform(0, 1, N).astype(np.float32)
MASS = RNG.uniform(9, 1200, N)
PT = RNG.lognormal(3, 1, N).astype(np.float32)
FLT_MAX = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("values", "sentinel"),
    [
        (BTAG, -999.0),
        (BTAG, -10.0),
        (BTAG, 99.0),
        (BTAG, FLT_MAX),
        (MASS, -999.0),
        (MASS, 9999.0),
        (MASS, -np.finfo(np.float64).max),
        (PT, -9999.0),
        (RNG.normal(0, 1, N), 999.0),
        (RNG.integers(0, 5, N).astype(np.int32), -99.0),
        (RNG.integers(0, 2, N).astype(np.int16), -999.0),
        (np.full(N, 3.5), -99.0),
    ],
)
@pytest.mark.parametrize("share", [0.005, 0.5, 0.999])
def test_a_sentinel_is_found(values: NDArray[Any], sentinel: float, share: float) -> None:
    branch = range_of(with_sentinel(values, sentinel, share))
    assert [(found.value, found.share) for found in sentinels(branch)] == [(sentinel, pytest.approx(share))]


@pytest.mark.parametrize(
    "values",
    [
        BTAG,
        MASS,
        PT,
        with_sentinel(BTAG, -999, 0.004),
        with_sentinel(BTAG, -1, 0.5),
        with_sentinel(PT, 0, 0.5),
        np.where(np.arange(N) % 2, 1, -1),
        RNG.integers(0, 2, N).astype(bool),
        RNG.choice(np.array([0, 1, 11], dtype=np.uint8), N),
        RNG.choice([-11, 11, -13, 13, -15, 15, 22], N),
        RNG.integers(0, 100, N),
        RNG.exponential(1, N) ** 3,
        RNG.standard_cauchy(N),
        np.full(N, -999.0),
        np.full(N, math.nan),
        np.append(np.zeros(8), 999.0),
        np.zeros(0),
    ],
)
def test_an_ordinary_branch_raises_no_alarm(values: NDArray[Any]) -> None:
    assert sentinels(range_of(values)) == []


def test_sentinels_are_found_at_both_ends_and_one_behind_the_other_after_it_is_declared() -> None:
    both = with_sentinel(with_sentinel(BTAG, 9999, 0.2), -9999, 0.1)
    assert sentinels(range_of(both)) == [Sentinel(-9999, 0.1), Sentinel(9999, 0.1)]
    nested = with_sentinel(with_sentinel(BTAG, -99, 0.2), -999, 0.1)
    assert [found.value for found in sentinels(range_of(nested))] == [-999]
    declared = np.where(nested == -999, np.nan, nested)
    assert [found.value for found in sentinels(range_of(declared))] == [-99]


@given(st.lists(st.sampled_from([-999.0, 0.25, 0.5, 0.75, 1.0]), min_size=20, max_size=60), st.integers(1, 15))
def test_a_sentinel_does_not_depend_on_the_chunks(values: list[float], size: int) -> None:
    array = np.array(values)
    parts = [range_of(array[start : start + size]) for start in range(0, len(array), size)]
    found = sentinels(reduce(or_, parts))
    assert found == sentinels(range_of(array))
    others = set(values) - {-999.0}
    expected = values.count(-999.0) >= 10 and len(others) > 0
    assert [sentinel.value for sentinel in found if sentinel.value == -999.0] == [-999.0] * expected


def jagged(values: list[float], counts: list[int]) -> BranchRange:
    return range_of(Jagged(np.array(values, dtype=np.float32), np.array(counts)))


def test_notes_name_the_branches_and_the_way_out() -> None:
    branches = {
        "met": range_of(PT),
        "Jet_btag": range_of(with_sentinel(BTAG, -999, 0.25)),
        "Tau_mass": range_of(with_sentinel(MASS, -999, 0.1)),
        "bad": range_of(np.full(3, math.nan)),
        "none": jagged([], [0, 0]),
        "run": range_of(np.full(3, 1)),
        "mass": jagged([0.5, 0.5], [1, 0, 1]),
        "sometimes": range_of(np.array([1, math.nan])),
    }
    assert findings(branches) == [
        "-999 is far from all other values of Jet_btag (25 % of its values), Tau_mass (10 % of its values); if it "
        'stands for a missing value, declare it: "missing": {"Jet_btag": -999, "Tau_mass": -999}',
        "no event has a finite value of bad, so the model learns nothing from it; leave it out: "
        '"exclude_branches": ["bad"]',
        "no event has a value of none, so it is no feature",
        "all values are equal in run (1), mass (0.5), so they say little about an event; leave them out: "
        '"exclude_branches": ["run", "mass"]',
    ]


def test_a_value_of_a_new_branch_is_declared_for_the_branches_that_it_is_computed_from() -> None:
    branches = {
        "Jet_btag": range_of(with_sentinel(BTAG, -999, 0.25)),
        "best": range_of(with_sentinel(BTAG, -999, 0.25)),
    }
    assert findings(branches, {"best": ("Jet_btag", "Jet_pt")}) == [
        "-999 is far from all other values of Jet_btag (25 % of its values), best (25 % of its values); if it stands "
        "for a missing value, declare it for the branches that best is computed from: "
        '"missing": {"Jet_btag": -999, "Jet_pt": -999}'
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [(np.full(3, 0.1057, np.float32), "0.1057"), (np.full(3, 0.1057), "0.1057"), (np.full(3, 2.5e300), "2.5e+300")],
)
def test_a_value_is_written_as_its_user_would(values: NDArray[Any], text: str) -> None:
    assert findings({"mass": range_of(values)})[0].startswith(f"all values are equal in mass ({text}), ")


def test_a_long_list_is_cut() -> None:
    (note,) = findings({f"b{number}": range_of(np.full(3, 0.1)) for number in range(20)})
    assert "b9 (0.1), …, so" in note
    assert note.endswith('"b9", …]')
