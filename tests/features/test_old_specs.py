"""Ranges from files of MLaaS4HEP: compared with those of the events, used, and written again."""

import json

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange, range_of
from hepfaas.features.old_specs import old_specs, with_old_ranges
from hepfaas.features.scaling import feature_branch
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.runs.feature_rules import BranchRules
from hepfaas.runs.old_specs import NO_SPECS, OldRange, OldSpecs, old_specs_of
from hypothesis import given
from hypothesis import strategies as st

MET = range_of(np.array([-3.0, 9.0], np.float32))
PT = range_of(ak.Array([[1.0, 5.0], [2.0]]))
SURVEY = {"met": MET, "pt": PT}


def specs(met: tuple[float | None, float | None] = (-3, 9), width: int = 2) -> OldSpecs:
    return OldSpecs("s.json", (OldRange("met", False, *met, 1), OldRange("pt", True, 0, 5, width)))


def test_wider_ranges_and_lists_replace_those_of_the_events() -> None:
    ranges = with_old_ranges(SURVEY, specs((-10, 10), 7))
    met, pt = (feature_branch(name, ranges[name], BranchRules()) for name in ("met", "pt"))
    assert (met.low, met.high, met.width, met.type) == (-10, 10, 1, "float32")
    assert (pt.low, pt.high, pt.width) == (0, 5, 7)
    assert with_old_ranges(SURVEY, NO_SPECS) == SURVEY


def test_a_branch_without_a_range_keeps_its_own() -> None:
    assert with_old_ranges(SURVEY, specs((None, None)))["met"].high == 9
    empty = BranchRange(jagged=False)
    assert with_old_ranges({"met": empty}, specs((0, 1)))["met"].high == 1


@pytest.mark.parametrize(
    ("given_specs", "message"),
    [
        (
            specs((-3, 8)),
            "s.json is not about these events: 'met' is -3 to 8 there, and -3 to 9 in the files. Leave out",
        ),
        (specs((-2.9, 9)), "'met' is -2.9 to 9 there, and -3 to 9 in the files"),
        (specs(width=1), "'pt' has up to 1 values in an event there, and 2 in the files"),
        (specs((0, 1), 1), "'met' is 0 to 1 there, and -3 to 9 in the files; 'pt' has up to 1 values"),
    ],
)
def test_values_outside_are_refused_with_the_difference(given_specs: OldSpecs, message: str) -> None:
    with pytest.raises(RequestError, match=message.replace(".", "[.]")):
        with_old_ranges(SURVEY, given_specs)


def test_a_rounding_of_float32_is_no_difference() -> None:
    survey = {"met": range_of(np.array([0.1, 0.7], np.float32))}
    ranges = with_old_ranges(survey, OldSpecs("s.json", (OldRange("met", False, 0.1, 0.7, 1),)))
    assert (ranges["met"].low, ranges["met"].high) == (0.1, 0.7)


numbers = st.floats(-1e30, 1e30)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 5)), min_size=1, max_size=5), st.integers(0, 9))
def test_what_is_written_is_read_again(branches: list[tuple[float, float, int]], events: int) -> None:
    """A width of 0 stands for a flat branch."""
    spec = FeatureSpec(
        tuple(
            FeatureBranch(f"b{number}", jagged=width > 0, low=min(ends), high=max(ends), width=width or 1)
            for number, (*ends, width) in enumerate(branches)
        )
    )
    files = {"a.root": events, "b.root": 5} if events else {}
    found, notes = old_specs_of(json.loads(json.dumps(old_specs(spec, files))), "s.json")
    assert {branch.name: (branch.jagged, branch.low, branch.high, branch.width) for branch in found.branches} == {
        branch.name: (branch.jagged, branch.low, branch.high, branch.width) for branch in spec.branches
    }
    assert dict(found.events) == files
    assert notes == ()


def test_a_branch_without_a_value_is_written_as_the_original_wrote_it() -> None:
    spec = FeatureSpec((FeatureBranch("x", jagged=False, low=None, high=None, width=1),))
    written = old_specs(spec, {})
    assert (written["minv"], written["maxv"], "events" in written) == ({"x": 1e15}, {"x": -1e15}, False)
