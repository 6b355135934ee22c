"""The survey does not depend on how the entries are cut."""

import json
import math
from functools import reduce
from operator import or_

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange, BranchSurvey, range_of, survey_of, total
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
    assert (branch_range.low, branch_range.high) == (min(finite, default=math.inf), max(finite, default=-math.inf))
    assert branch_range.multiplicity == max(map(len, lists), default=0)
    assert branch_range.n_missing == sum(not math.isfinite(value) for values in lists for value in values)


@given(st.permutations(range(6)))
def test_surveys_add_up_in_any_order(order: list[int]) -> None:
    surveys = [
        survey_of(f"file{number % 2}", {"pt": jagged([[number], []]), "n": ak.Array([number, 0])}, 2)
        for number in range(6)
    ]
    assert total([surveys[number] for number in order]) == total(surveys)
    assert total(surveys).events == {"file0": 6, "file1": 6}


def test_a_survey_survives_json_with_branches_that_never_had_a_value() -> None:
    survey = survey_of("f", {"empty": jagged([[], []]), "nan": ak.Array([math.nan, math.nan])}, 2)
    assert BranchSurvey.from_json(json.loads(json.dumps(survey.to_json(), allow_nan=False))) == survey


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        (ak.Array([True, False]), BranchRange(jagged=False, low=0, high=1, multiplicity=1, n_missing=0, type="bool")),
        (
            ak.Array(np.array([3, -7], dtype=np.int16)),
            BranchRange(jagged=False, low=-7, high=3, multiplicity=1, n_missing=0, type="int16"),
        ),
        (
            ak.Array(np.array([2**63], dtype=np.uint64)),
            BranchRange(jagged=False, low=2.0**63, high=2.0**63, multiplicity=1, n_missing=0, type="uint64"),
        ),
        (
            ak.Array([])[:0],
            BranchRange(jagged=False, low=math.inf, high=-math.inf, multiplicity=0, n_missing=0, type="float64"),
        ),
        (
            ak.Array([[True], [False, True]]),
            BranchRange(jagged=True, low=0, high=1, multiplicity=2, n_missing=0, type="bool"),
        ),
    ],
)
def test_any_type_of_number_has_a_range(branch: ak.Array, expected: BranchRange) -> None:
    assert range_of(branch) == expected


def test_a_branch_flat_here_and_jagged_there_is_named() -> None:
    one = survey_of("f", {"pt": ak.Array([1.0])}, 1)
    other = survey_of("g", {"pt": jagged([[1.0]])}, 1)
    with pytest.raises(RequestError, match="branch 'pt': it is flat in some files and jagged in others"):
        one | other


def test_files_of_two_types_are_of_the_one_that_holds_both() -> None:
    one, other = (range_of(ak.Array(np.array([1], dtype=type_))) for type_ in ("float32", "int64"))
    assert (one | other).type == (other | one).type == "float64"
