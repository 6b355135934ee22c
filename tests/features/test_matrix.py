"""The matrix equals the original's, number by number, and does not depend on how the events are cut."""

import math

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Jagged
from hepfaas.features.matrix import denormalise, matrix, surplus_events
from hepfaas.features.spec import FeatureBranch, FeatureSpec, in_order
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

SPEC = FeatureSpec(
    (
        FeatureBranch("met", jagged=False, low=2.0, high=40.0, width=1),
        FeatureBranch("constant", jagged=False, low=7.0, high=7.0, width=1),
        FeatureBranch("mu_charge", jagged=True, low=-1.0, high=1.0, width=3),
        FeatureBranch("mu_pt", jagged=True, low=1.5, high=99.25, width=3),
    )
)

pts = st.lists(st.floats(1.5, 99.25, width=32) | st.just(math.nan), max_size=3)
event = st.tuples(st.floats(2, 40, width=32), pts)


def arrays(events: list[tuple[float, list[float]]]) -> dict[str, ak.Array]:
    counts = np.array([len(pt) for _, pt in events], dtype=np.int64)
    pt = np.array([value for _, pts in events for value in pts], dtype=np.float32)
    charge = np.where(np.arange(len(pt)) % 2, 1, -1).astype(np.int32)
    return {
        "met": ak.Array(np.array([met for met, _ in events], dtype=np.float32)),
        "constant": ak.Array(np.full(len(events), 7.0, dtype=np.float32)),
        "mu_charge": ak.unflatten(charge, counts),
        "mu_pt": ak.unflatten(pt, counts),
    }


def row_by_row(branches: dict[str, ak.Array], spec: FeatureSpec) -> NDArray[np.float32]:
    """Return the matrix by the rules of MLaaS4HEP's reader, event by event and branch by branch, with NumPy's types."""
    rows = []
    for event in range(len(branches["met"])):
        row: list[float] = []
        for branch in spec.branches:
            assert branch.low is not None
            assert branch.high is not None
            values = branches[branch.name][event]
            value = ak.to_numpy(values) if branch.jagged else np.float64(values)
            if branch.low != branch.high:
                value = (value - branch.low) / (branch.high - branch.low)
            slots = np.full(branch.width, math.nan)
            slots[: np.size(value)] = value
            row += slots.tolist()
        rows.append(row)
    return np.nan_to_num(np.array(rows).reshape(len(rows), spec.n_features), nan=0.0).astype(np.float32)


@given(st.lists(event, max_size=20))
def test_the_matrix_is_the_originals_row_by_row(events: list[tuple[float, list[float]]]) -> None:
    branches = arrays(events)
    np.testing.assert_array_equal(matrix(branches, SPEC), row_by_row(branches, SPEC))


@given(st.lists(event, max_size=20))
def test_lists_end_to_end_are_as_those_of_a_file(events: list[tuple[float, list[float]]]) -> None:
    branches = arrays(events)
    plain = {
        name: Jagged(ak.to_numpy(ak.flatten(branch)), ak.to_numpy(ak.num(branch)))
        if branch.ndim > 1
        else ak.to_numpy(branch)
        for name, branch in branches.items()
    }
    np.testing.assert_array_equal(matrix(plain, SPEC), matrix(branches, SPEC))


@given(st.lists(event, min_size=1, max_size=20), st.integers(1, 7))
def test_the_matrix_does_not_depend_on_the_chunks(events: list[tuple[float, list[float]]], size: int) -> None:
    branches = arrays(events)
    parts = [
        matrix({name: branch[start : start + size] for name, branch in branches.items()}, SPEC)
        for start in range(0, len(events), size)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), matrix(branches, SPEC))


@given(st.lists(event, min_size=1, max_size=20))
def test_denormalise_gives_the_values_back(events: list[tuple[float, list[float]]]) -> None:
    branches = arrays(events)
    values = denormalise(matrix(branches, SPEC), SPEC)
    np.testing.assert_allclose(values[:, 0], branches["met"], rtol=1e-5)
    np.testing.assert_array_equal(values[:, 1], 7)
    for row, (_, pt) in zip(values[:, 5:8], events, strict=True):
        expected = [value if value > 1.5 else math.nan for value in pt]  # a true minimum looks like padding
        np.testing.assert_allclose(row[: len(pt)], expected, rtol=1e-4)
        assert np.isnan(row[len(pt) :]).all()


def test_values_beyond_the_width_are_left_out_and_their_events_known() -> None:
    branches = arrays([(3.0, [10.0, 20.0, 30.0, 40.0]), (3.0, [10.0])])
    assert surplus_events(branches, SPEC).tolist() == [True, False]
    three = arrays([(3.0, [10.0, 20.0, 30.0]), (3.0, [10.0])])
    np.testing.assert_array_equal(matrix(branches, SPEC)[:, 5:], matrix(three, SPEC)[:, 5:])


def test_values_beyond_the_width_are_an_error_if_the_spec_says_so() -> None:
    strict = FeatureSpec(SPEC.branches, surplus="error")
    with pytest.raises(RequestError, match="branch 'mu_charge' has 4 values in event 1 .* room for 3"):
        matrix(arrays([(3.0, [1.5]), (3.0, [1.5] * 4)]), strict)


def test_infinite_values_and_branches_without_a_range_are_zero() -> None:
    spec = FeatureSpec(
        (
            FeatureBranch("a", jagged=False, low=0.0, high=1.0, width=1),
            FeatureBranch("never", jagged=False, low=None, high=None, width=1),
        )
    )
    features = matrix({"a": ak.Array([math.inf, 1e300]), "never": ak.Array([math.nan, 5.0])}, spec)
    assert features.tolist() == [[0, 0], [0, 0]]


def test_no_events_give_no_rows() -> None:
    assert matrix(arrays([]), SPEC).shape == (0, 8)


def test_columns_are_named_after_branch_and_slot() -> None:
    assert SPEC.columns == ["met", "constant", *(f"mu_charge_{i}" for i in range(3)), *(f"mu_pt_{i}" for i in range(3))]
    assert SPEC.slots("mu_pt") == range(5, 8)
    assert FeatureSpec.from_json(SPEC.to_json()) == SPEC


def test_a_branch_that_is_no_feature_has_no_slots() -> None:
    with pytest.raises(RequestError, match="branch 'mu_eta' is not among the 4 branches"):
        SPEC.slots("mu_eta")


def test_a_missing_branch_and_one_of_the_other_form_are_named() -> None:
    branches = arrays([(3.0, [10.0])])
    with pytest.raises(RequestError, match="branch 'met' is missing"):
        matrix({name: branch for name, branch in branches.items() if name != "met"}, SPEC)
    with pytest.raises(RequestError, match="branch 'mu_pt' is flat here and jagged in the model's spec"):
        matrix({**branches, "mu_pt": branches["met"]}, SPEC)


def test_both_orders_have_flat_branches_first() -> None:
    jagged = {"b_pt": True, "z": False, "a_pt": True, "c": False}
    assert in_order(list(jagged), jagged, "sorted") == ["c", "z", "a_pt", "b_pt"]
    assert in_order(list(jagged), jagged, "tree") == ["z", "c", "b_pt", "a_pt"]
