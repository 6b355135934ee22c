"""Sums of weights are exact: no order of the events, no parts and no encoding change them."""

import json
import math
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import or_

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.evaluation.tally import LARGEST_WEIGHT, Tally, tally
from hypothesis import given
from hypothesis import strategies as st

UNIT = 2.0**-40
WEIGHTS = st.lists(st.floats(-UNIT * LARGEST_WEIGHT, UNIT * LARGEST_WEIGHT), max_size=30)


def counted(weights: list[float], n_cells: int = 3) -> Tally:
    cells = np.arange(len(weights), dtype=np.int64) % n_cells
    return tally(cells, (n_cells,), np.array(weights, dtype=float), UNIT)


@given(WEIGHTS)
def test_sums_are_those_of_fractions_to_a_part_in_a_billion_of_a_billionth(weights: list[float]) -> None:
    counts = counted(weights)
    for cell in range(3):
        mine = weights[cell::3]
        largest = UNIT * LARGEST_WEIGHT
        exact, squared = sum(map(Fraction, mine)), sum(Fraction(weight) ** 2 for weight in mine)
        assert counts.events[cell] == len(mine)
        assert counts.yields[cell] == pytest.approx(float(exact), rel=1e-15, abs=30 * largest * 2.0**-61)
        assert counts.variances[cell] == pytest.approx(float(squared), rel=1e-15, abs=30 * largest**2 * 2.0**-91)


@given(WEIGHTS, st.lists(st.integers(0, 30), max_size=4), st.randoms(use_true_random=False))
def test_a_tally_does_not_depend_on_order_and_parts(weights: list[float], cuts: list[int], chooser: object) -> None:
    cells = np.arange(len(weights), dtype=np.int64) % 3
    order = list(range(len(weights)))
    chooser.shuffle(order)  # type: ignore[attr-defined]
    edges = [0, *sorted(min(cut, len(order)) for cut in cuts), len(order)]
    parts = [
        tally(cells[order[a:b]], (3,), np.array(weights, dtype=float)[order[a:b]], UNIT) for a, b in pairwise(edges)
    ]
    whole = counted(weights)
    total = reduce(or_, parts)
    assert total.to_json() == whole.to_json()
    assert total.yields.tolist() == whole.yields.tolist()
    assert total.variances.tolist() == whole.variances.tolist()


@given(WEIGHTS)
def test_a_tally_survives_json(weights: list[float]) -> None:
    counts = counted(weights)
    again = Tally.from_json(json.loads(json.dumps(counts.to_json())))
    assert again.to_json() == counts.to_json()
    assert again.yields.tolist() == counts.yields.tolist()
    assert (again | counts).yields.tolist() == (counts | counts).yields.tolist()


def test_a_small_weight_beside_a_large_one_keeps_nine_digits() -> None:
    largest = UNIT * LARGEST_WEIGHT
    small = largest / 3e8
    counts = tally(np.zeros(3_001, dtype=np.int64), (1,), np.append(np.full(3_000, small), largest), UNIT)
    assert counts.yields[0] - largest == pytest.approx(3_000 * small, rel=1e-9)
    alone = tally(np.zeros(3_000, dtype=np.int64), (1,), np.full(3_000, small), UNIT)
    assert alone.yields[0] == pytest.approx(3_000 * small, rel=1e-9)
    assert alone.variances[0] == pytest.approx(3_000 * small**2, rel=1e-9)


def test_a_billion_of_the_largest_weights_can_be_added() -> None:
    counts = counted([UNIT * LARGEST_WEIGHT], 1)
    for _ in range(30):
        counts = counts | counts
    assert counts.yields[0] == 2.0**30 * UNIT * LARGEST_WEIGHT
    assert counts.variances[0] == 2.0**30 * (UNIT * LARGEST_WEIGHT) ** 2


def test_weights_that_cancel_leave_exactly_nothing() -> None:
    weights = [0.1 * UNIT * LARGEST_WEIGHT, -0.1 * UNIT * LARGEST_WEIGHT] * 500
    assert counted(weights, 1).yields[0] == 0


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 1.01 * UNIT * LARGEST_WEIGHT])
def test_a_weight_that_the_survey_did_not_find_is_refused(weight: float) -> None:
    with pytest.raises(RequestError, match="an event weight is .*, and the largest one"):
        counted([0.0, weight])


def test_without_weights_events_are_counted_and_nothing_else_is_stored() -> None:
    counts = tally(np.array([2, 0, 2]), (3,))
    assert counts.to_json() == {"shape": [3], "gaps": [0, 2], "counts": [1, 2]}
    assert counts.yields.tolist() == counts.variances.tolist() == [1, 0, 2]


def test_weighted_and_unweighted_events_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="cannot be added"):
        counted([1e-6]) | tally(np.array([0]), (3,))
    with pytest.raises(ValueError, match="cannot be added"):
        counted([1e-6]) | tally(np.array([0]), (3,), np.array([1.0]), 1.0)
