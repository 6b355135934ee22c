"""Scalings, missing values, padding and masks: the same features for every cut and after JSON, and back again."""

import dataclasses
import json
import math
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange, range_of, survey_of, total
from hepfaas.features.histogram import Histogram
from hepfaas.features.jagged import Jagged, Values
from hepfaas.features.matrix import denormalise, matrix
from hepfaas.features.scaling import feature_branch, scaled, unscaled
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.runs.feature_rules import SCALINGS, BranchRules, FeatureRules, NanRule, PadRule, ScalingRule
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import MinMaxScaler, StandardScaler

NAMES = ("met", "n", "mu_pt", "mu_id")
SINGLE = st.floats(width=32, allow_subnormal=False) | st.sampled_from([math.nan, math.inf, -math.inf, -999.0, 0.0])
EVENTS = st.lists(
    st.tuples(
        SINGLE,
        st.integers(0, 9),
        st.lists(st.tuples(SINGLE, st.integers(-2, 2)), max_size=3),
    ),
    min_size=1,
    max_size=20,
)
numbers = st.floats(-10, 10, width=32)
patterns = st.sampled_from([*NAMES, "mu_*"])
clips = st.none() | st.tuples(st.floats(-5, 0), st.floats(0.5, 5))


def unique(rules: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(rules, max_size=2, unique_by=lambda rule: rule.pattern).map(
        lambda found: tuple(sorted(found, key=lambda rule: "*" in rule.pattern))
    )


RULES = st.builds(
    FeatureRules,
    scaling=unique(st.builds(ScalingRule, patterns, st.sampled_from(SCALINGS), clips)),
    nan=unique(st.builds(NanRule, patterns, numbers) | st.builds(NanRule, patterns, indicator=st.just(True))),
    pad=unique(st.builds(PadRule, st.sampled_from(["mu_pt", "mu_id", "mu_*"]), numbers)),
    mask=st.sampled_from([(), ("*",), ("mu_pt",)]),
)


def arrays(events: list[tuple[float, int, list[tuple[float, int]]]]) -> dict[str, Values]:
    counts = np.array([len(muons) for _, _, muons in events], dtype=np.int64)
    muons = [muon for _, _, found in events for muon in found]
    return {
        "met": np.array([met for met, _, _ in events], dtype=np.float32),
        "n": np.array([n for _, n, _ in events], dtype=np.uint8),
        "mu_pt": Jagged(np.array([pt for pt, _ in muons], dtype=np.float32), counts),
        "mu_id": Jagged(np.array([id_ for _, id_ in muons], dtype=np.int32), counts),
    }


def cut(branches: dict[str, Values], size: int) -> list[dict[str, Values]]:
    n_events = len(branches["met"])
    return [
        {name: branch[start : start + size] for name, branch in branches.items()} for start in range(0, n_events, size)
    ]


def fitted(parts: list[dict[str, Values]], rules: FeatureRules) -> FeatureSpec:
    """Return the spec as survey and spec steps make it, each result as JSON text."""
    moments, histograms = (rules.scaled_by(kind, NAMES) for kind in ("standard", "robust"))
    surveys = [survey_of("f", part, len(part["met"]), moments=moments, histograms=histograms) for part in parts]
    texts = [json.dumps(survey.to_json(), allow_nan=False) for survey in surveys]
    survey = total([type(surveys[0]).from_json(json.loads(text)) for text in texts])
    of_branch = FeatureRules.from_text(rules.text).of(NAMES)
    branches = (feature_branch(name, survey.branches[name], of_branch[name]) for name in NAMES)
    return FeatureSpec(tuple(branch for branch in branches if branch.width))


def on_its_own(spec: FeatureSpec) -> FeatureSpec:
    return FeatureSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))


def reference(branches: dict[str, Values], spec: FeatureSpec) -> NDArray[np.float32]:
    """Return the matrix value by value; the number of a finite value without clip comes from `scaled` of it alone."""
    rows = []
    for event in range(len(branches["met"])):
        row: list[float] = []
        for branch in spec.branches:
            found = branches[branch.name]
            values = found[event : event + 1]
            list_ = values.values if isinstance(values, Jagged) else values.astype(np.float64)
            cells, missing = [branch.pad] * branch.width, [0.0] * branch.width
            for slot in range(len(list_)):
                one = scaled(list_[slot : slot + 1], branch)
                finite = math.isfinite(list_[slot])
                cells[slot] = float(one.features[0]) if finite else branch.nan
                missing[slot] = float(one.missing is not None)
            mask = [1.0] * len(list_) + [0.0] * (branch.width - len(list_))
            row += cells + missing * branch.indicator + mask * branch.mask
        rows.append(row)
    return np.array(rows).astype(np.float32)


@given(EVENTS, RULES, st.integers(1, 7), st.integers(1, 7))
def test_training_and_serving_features_are_equal_for_all_rules_and_cuts(
    events: list[Any], rules: FeatureRules, size: int, other: int
) -> None:
    branches = arrays(events)
    spec = fitted(cut(branches, size), rules)
    assert fitted(cut(branches, other), rules) == spec
    training = np.concatenate([matrix(part, spec) for part in cut(branches, size)])
    serving = np.concatenate([matrix(part, on_its_own(spec)) for part in cut(branches, other)])
    assert training.tobytes() == serving.tobytes()
    assert training.shape == (len(events), len(spec.columns))
    assert np.isfinite(training).all()
    np.testing.assert_array_equal(training, reference(branches, spec))


@given(EVENTS, st.sampled_from(SCALINGS), clips)
def test_clipped_features_are_those_without_a_clip_within_the_limits(
    events: list[Any], kind: Any, clip: tuple[float, float] | None
) -> None:
    parts = [arrays(events)]
    free = fitted(parts, FeatureRules(scaling=(ScalingRule("*", kind),), nan=(NanRule("*", indicator=True),)))
    bound = fitted(parts, FeatureRules(scaling=(ScalingRule("*", kind, clip),), nan=(NanRule("*", indicator=True),)))
    features, clipped = matrix(parts[0], free), matrix(parts[0], bound)
    for branch in free.branches:
        columns = free.slots(branch.name)
        values = features[:, columns.start : columns.start + branch.width]
        missing = features[:, columns.start + branch.width : columns.stop] == 1
        known = ~missing & (values != 0)  # not of padding either
        low, high = np.float32(clip or (-np.inf, np.inf))
        actual = clipped[:, columns.start : columns.start + branch.width]
        np.testing.assert_array_equal(actual[known], np.clip(values, low, high)[known])
        assert (actual[missing] == 0).all()


def spec_of(values: NDArray[Any], kind: Any, *, size: int = 1000) -> FeatureBranch:
    parts = [range_of(values[start : start + size], moments=True, histogram=True) for start in range(0, 10**4, size)]
    return feature_branch("x", reduce(or_, parts), BranchRules(scaling=ScalingRule("*", kind)))


VALUES = np.random.default_rng(3).lognormal(3, 1, 10_000).astype(np.float32)


def test_standard_is_that_of_scikit_learn() -> None:
    expected = StandardScaler().fit_transform(VALUES.astype(np.float64)[:, None])[:, 0]
    features = scaled(VALUES, spec_of(VALUES, "standard")).features
    np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-7)


def test_the_deviation_is_exact_where_squares_cancel() -> None:
    values = 1.7e9 + np.tile([0.0, 1.0], 5000)
    branch = spec_of(values, "standard")
    assert (branch.offset, branch.scale) == (1.7e9 + 0.5, 0.5)
    huge = np.tile([-1e300, 1e300], 5000)
    assert spec_of(huge, "standard").scale == 1e300


def test_robust_has_the_quartiles_within_their_error() -> None:
    first, median, third = np.quantile(VALUES.astype(np.float64), [0.25, 0.5, 0.75], method="inverted_cdf")
    branch = spec_of(VALUES, "robust")
    assert branch.offset == pytest.approx(median, rel=1 / 256)
    assert branch.scale == pytest.approx(third - first, abs=(first + third) / 256)
    np.testing.assert_allclose(scaled(VALUES, branch).features, (VALUES - branch.offset) / branch.scale, rtol=1e-5)


def test_log_goes_from_0_to_1() -> None:
    branch = spec_of(VALUES, "log")
    low, high = float(VALUES.min()), float(VALUES.max())
    expected = np.log(1 + VALUES.astype(np.float64) - low) / math.log(1 + high - low)
    features = scaled(VALUES, branch).features
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-7)
    assert (features.min(), features.max()) == (0, 1)
    assert scaled(np.array([low - 100]), branch).features == [0]  # below all training events


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_constant_branch_is_finite_and_one_without_a_value_is_missing(kind: Any) -> None:
    rules = BranchRules(ScalingRule("*", kind), NanRule("*", indicator=True))
    constant = feature_branch("x", range_of(np.full(5, 7.0), moments=True, histogram=True), rules)
    expected = 7 if kind in ("minmax", "none") else 0
    assert scaled(np.full(5, 7.0), constant).features.tolist() == [expected] * 5
    never = feature_branch("x", range_of(np.full(5, math.nan), moments=True, histogram=True), rules)
    features = matrix({"x": np.array([math.nan, 1.0])}, FeatureSpec((never,)))
    assert features.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("kind", SCALINGS)
def test_unscaled_gives_the_values_back(kind: Any) -> None:
    branch = spec_of(VALUES, kind)
    features = scaled(VALUES, branch).features
    np.testing.assert_allclose(unscaled(features.astype(np.float64), branch), VALUES, rtol=1e-4, atol=1e-4)


def test_denormalise_tells_padding_and_missing_values_from_zero() -> None:
    rules = FeatureRules(nan=(NanRule("*", indicator=True),), pad=(PadRule("mu_pt", -1.0),), mask=("mu_pt",))
    branches = arrays([(1.0, 2, [(5.0, 1), (math.nan, 2)]), (math.nan, 3, [(5.0, 1)]), (3.0, 4, [(9.0, 1)])])
    spec = fitted([branches], rules)
    values = denormalise(matrix(branches, spec), spec)
    pt = spec.slots("mu_pt")
    np.testing.assert_array_equal(values[:, pt.start : pt.start + 2], [[5, math.nan], [5, math.nan], [9, math.nan]])
    np.testing.assert_array_equal(values[:, spec.slots("met").start], [1, math.nan, 3])


def test_columns_of_indicators_and_masks_have_names_of_their_own() -> None:
    rules = FeatureRules(nan=(NanRule("mu_pt", indicator=True),), pad=(PadRule("mu_*", -5.0),), mask=("*",))
    branches = arrays([(1.0, 2, [(5.0, 1), (math.nan, 2)]), (2.0, 3, [(7.0, 1)])])
    spec = fitted([branches], rules)
    assert spec.columns[2:] == [
        *("mu_pt_0", "mu_pt_1", "mu_pt_missing_0", "mu_pt_missing_1", "mu_pt_mask_0", "mu_pt_mask_1"),
        *("mu_id_0", "mu_id_1", "mu_id_mask_0", "mu_id_mask_1"),
    ]
    assert matrix(branches, spec)[:, 2:].tolist() == [[0, 0, 0, 1, 1, 1, 0, 1, 1, 1], [1, -5, 0, 0, 1, 0, 0, -5, 1, 0]]
    assert spec.slots("mu_id") == range(8, 12)


@pytest.mark.parametrize("rules", [FeatureRules(pad=(PadRule("met", -1.0),)), FeatureRules(mask=("met",))])
def test_a_flat_branch_has_no_slots_to_pad_or_to_mask(rules: FeatureRules) -> None:
    with pytest.raises(RequestError, match="branch 'met' is flat: each event has one value, and no slot is empty"):
        fitted([arrays([(1.0, 2, [])])], rules)


def test_a_spec_of_an_earlier_release_is_read_and_written_unchanged() -> None:
    old = {
        "branches": [
            {"name": "met", "jagged": False, "low": 2.0, "high": 40.0, "width": 1, "type": "float32"},
            {"name": "mu_pt", "jagged": True, "low": None, "high": None, "width": 3, "type": "float64"},
        ],
        "surplus": "truncate",
        "identifiers": ["event"],
    }
    assert json.dumps(FeatureSpec.from_json(old).to_json()) == json.dumps(old)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50), st.integers(1, 7))
def test_a_quantile_is_within_its_error_and_does_not_depend_on_the_chunks(values: list[float], size: int) -> None:
    array = np.array(values)
    parts = [Histogram.of(array[start : start + size]) for start in range(0, len(array), size)]
    whole = Histogram.from_json(json.loads(json.dumps(Histogram.of(array).to_json())))
    assert reduce(or_, parts, Histogram()) == whole
    for part in (1, 2, 3):
        exact = np.quantile(array, part / 4, method="inverted_cdf")
        exact = min(max(exact, -3.39e38), 3.39e38)
        assert whole.quantile(part, 4) == pytest.approx(exact, rel=1 / 256, abs=5e-41)


def test_whole_numbers_up_to_256_are_bins_of_their_own() -> None:
    values = np.arange(257)
    assert [Histogram.of(values[n : n + 1]).quantile(1, 2) for n in values] == values.tolist()


@pytest.mark.parametrize(
    ("first", "type_"), [(1_700_000_000_000_000_000, "int64"), (-(2**63), "int64"), (2**64 - 1001, "uint64")]
)
def test_integers_that_float64_cannot_represent_keep_their_distances(first: int, type_: str) -> None:
    values = np.array([first + step for step in range(0, 1001, 100)], dtype=type_)
    ranges = range_of(values[:6]) | range_of(values[5:])
    again = BranchRange.from_json(json.loads(json.dumps(ranges.to_json())))
    assert (again.low, again.high) == (first, first + 1000)
    branch = feature_branch("time", again, FeatureRules().of(["time"])["time"])
    expected = np.linspace(0, 1, 11, dtype=np.float32)
    np.testing.assert_allclose(scaled(values, branch).features, expected, atol=1e-7)
    below = values[:1] - np.array([50], dtype=type_) if first > 0 else values[:1]
    np.testing.assert_allclose(scaled(below, branch).features, [-0.05 if first > 0 else 0.0], atol=1e-7)


@pytest.mark.parametrize("kind", ["minmax", "standard", "log", "robust"])
@pytest.mark.parametrize("first", [1_700_000_000_000_000_000, -(2**62) - 1, 2**63 + 12_345])
def test_features_of_time_stamps_are_those_of_their_distances(first: int, kind: Any) -> None:
    steps = np.random.default_rng(4).integers(0, 400, 10_000)
    values = np.array([first + step for step in steps.tolist()], dtype="uint64" if first > 2**63 else "int64")
    branch = spec_of(values, kind)
    again = on_its_own(FeatureSpec((branch,))).branches[0]
    assert again == branch == spec_of(values, kind, size=700)
    from_offset = steps + float(first - int(branch.offset))
    expected = {
        "minmax": MinMaxScaler().fit_transform(steps[:, None])[:, 0],
        "standard": (steps - round(steps.mean())) / steps.std(),
        "log": np.log1p(steps - steps.min()) / np.log1p(np.ptp(steps)),
        "robust": from_offset / np.ptp(steps),  # the quartiles are in one bin
    }[kind]
    for arrays in ({"x": values}, {"x": Jagged(values, np.ones(len(values), dtype=np.int64))}):
        flat = dataclasses.replace(again, jagged=isinstance(arrays["x"], Jagged))
        features = matrix(arrays, FeatureSpec((flat,)))[:, 0]
        np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)


def test_the_range_of_smaller_integers_is_the_float_of_before() -> None:
    ranges = range_of(np.array([-5, 2**53], dtype=np.int64))
    assert (type(ranges.low), type(ranges.high)) == (float, float)
