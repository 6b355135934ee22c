"""The survey does not depend on how the entries are cut."""

import json
import math
from fractions import Fraction
from functools import partial, reduce
from operator import or_
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange, BranchSurvey, End, range_of, survey_of, total
from hypothesis import given
from hypothesis import strategies as st

values = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf])
events = st.lists(st.lists(values, max_size=5), max_size=30)


def jagged(lists: list[list[float]]) -> ak.Array:
    counts = np.array([len(values) for values in lists], dtype=np.int64)
    flat = np.array([value for values in lists for value in values], dtype=np.float32)
    return ak.unflatten(flat, counts)


@given(events, st.integers(min_value=1, max_value=7))
def test_the_range_does_not_depend_on_the_chunks(lists: list[list[float]], size: int) -> None:
    branch = jagged(lists)
    parts = [branch[start : start + size] for start in range(0, len(branch), size)]
    assert reduce(or_, map(range_of, parts), BranchRange(jagged=True, type="float32")) == range_of(branch)


@given(events)
def test_the_range_is_that_of_the_finite_values(lists: list[list[float]]) -> None:
    branch_range = range_of(jagged(lists))
    finite = [float(np.float32(value)) for values in lists for value in values if math.isfinite(value)]
    assert (branch_range.low, branch_range.high) == (min(finite, default=None), max(finite, default=None))
    assert branch_range.multiplicity == max(map(len, lists), default=0)
    assert branch_range.n_finite == len(finite)
    assert branch_range.n_missing == sum(not math.isfinite(value) for values in lists for value in values)


few = st.lists(st.lists(st.sampled_from([-999.0, -0.0, 0.0, 1.0, 2.5, 7.0, math.nan]), max_size=5), max_size=30)


@given(few, st.integers(1, 7))
def test_ends_are_counted_and_know_the_value_next_to_them(lists: list[list[float]], size: int) -> None:
    branch = jagged(lists)
    parts = [branch[start : start + size] for start in range(0, len(branch), size)]
    joined = reduce(or_, map(range_of, parts), BranchRange(jagged=True, type="float32"))
    assert joined == range_of(branch)
    assert json.dumps(joined.to_json()) == json.dumps(range_of(branch).to_json())  # 0 and -0 are equal
    finite = [value for values in lists for value in values if math.isfinite(value)]
    distinct = sorted(set(finite))
    for end, order in ((joined.bottom, distinct), (joined.top, distinct[::-1])):
        expected = End(order[0], finite.count(order[0]), order[1] if len(order) > 1 else None) if order else None
        assert end == expected


@given(events, st.integers(1, 7))
def test_moments_and_histograms_do_not_depend_on_the_chunks(lists: list[list[float]], size: int) -> None:
    branch = jagged(lists)
    wanted = partial(range_of, moments=True, histogram=True)
    parts = [branch[start : start + size] for start in range(0, len(branch), size)]
    joined = reduce(or_, map(wanted, parts), BranchRange(jagged=True, type="float32"))
    if lists:
        assert joined == wanted(branch)
    finite = [float(np.float32(value)) for values in lists for value in values if math.isfinite(value)]
    whole = wanted(branch)
    assert whole.moments is not None
    assert whole.histogram is not None
    assert whole.moments.values.fraction == sum(map(Fraction, finite), Fraction())
    assert whole.moments.squares.fraction == sum((Fraction(value) ** 2 for value in finite), Fraction())
    assert sum(whole.histogram.counts.values()) == len(finite)


@given(st.permutations(range(6)))
def test_surveys_add_up_in_any_order(order: list[int]) -> None:
    surveys = [
        survey_of(f"file{number % 2}", {"pt": jagged([[number], []]), "n": ak.Array([number, 0])}, 2)
        for number in range(6)
    ]
    assert total([surveys[number] for number in order]) == total(surveys)
    assert total(surveys).events == {"file0": 6, "file1": 6}


def test_a_survey_survives_json_with_branches_that_never_had_a_value() -> None:
    arrays = {"empty": jagged([[], []]), "nan": ak.Array([math.nan, math.nan]), "pt": jagged([[1.5, 1e30], [math.nan]])}
    survey = survey_of("f", arrays, 2, moments=("nan", "pt"), histograms=("empty", "pt"))
    assert BranchSurvey.from_json(json.loads(json.dumps(survey.to_json(), allow_nan=False))) == survey


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        (ak.Array([True, False]), {"bottom": End(0, 1, 1.0), "top": End(1, 1, 0.0), "n_finite": 2, "type": "bool"}),
        (
            ak.Array(np.array([3, -7, 3], dtype=np.int16)),
            {"bottom": End(-7, 1, 3.0), "top": End(3, 2, -7.0), "n_finite": 3, "type": "int16"},
        ),
        (
            ak.Array(np.array([2**63, 2**63 + 1], dtype=np.uint64)),
            {"bottom": End(2**63, 1, 2**63 + 1), "top": End(2**63 + 1, 1, 2**63), "n_finite": 2, "type": "uint64"},
        ),
        (ak.Array([])[:0], {"multiplicity": 0, "type": "float64"}),
        (
            ak.Array([[True], [False, True]]),
            {
                "jagged": True,
                "bottom": End(0, 1, 1.0),
                "top": End(1, 2, 0.0),
                "multiplicity": 2,
                "n_finite": 3,
                "type": "bool",
            },
        ),
    ],
)
def test_any_type_of_number_has_a_range(branch: ak.Array, expected: dict[str, Any]) -> None:
    assert range_of(branch) == BranchRange(**{"jagged": False, "multiplicity": 1, **expected})


def test_a_branch_flat_here_and_jagged_there_is_named() -> None:
    one = survey_of("f", {"pt": ak.Array([1.0])}, 1)
    other = survey_of("g", {"pt": jagged([[1.0]])}, 1)
    with pytest.raises(RequestError, match="branch 'pt': it is flat in some files and jagged in others"):
        one | other


def test_files_of_two_types_are_of_the_one_that_holds_both() -> None:
    one, other = (range_of(ak.Array(np.array([1], dtype=type_))) for type_ in ("float32", "int64"))
    assert (one | other).type == (other | one).type == "float64"
