"""Branch histograms, sculpting, correlations and importances of a sample, against hist, SciPy and plain NumPy."""

import json
from typing import Any

import hist
import numpy as np
import pytest
from hepfaas.evaluation import branches
from hepfaas.evaluation.branches import branch_histograms, edges_of, multiplicities, scaled_histograms, selection
from hepfaas.evaluation.correlations import correlation_matrix, correlations
from hepfaas.evaluation.importance import (
    MOST_SCORES,
    MOST_VALUES,
    REPEATS,
    groups_of,
    importance,
    mean_auc,
    n_rows,
    permuted,
)
from hepfaas.evaluation.sample import Sample
from hepfaas.evaluation.sculpting import by_chance, divergence, sculpting
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import roc_auc_score

EVENTS = 6_000


def sample(classes: int = 2, seed: int = 6, *, negative: bool = False) -> Sample:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, EVENTS)
    powers = np.exp(rng.normal(size=(EVENTS, classes)) + 1.2 * np.eye(classes)[labels])
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    muons = rng.exponential(30, (EVENTS, 3)) + 5 * labels[:, None]
    muons[rng.random((EVENTS, 3)) < 0.3] = np.nan
    muons.sort(axis=1)  # NaN last
    met = rng.exponential(40, EVENTS) * (1 + labels)
    weights = rng.exponential(1, EVENTS) * np.where(negative & (rng.random(EVENTS) < 0.2), -1, 1)
    return Sample(
        branches={
            "MET": met[:, None],
            "Muon_pt": muons,
            "Muon_eta": np.where(np.isfinite(muons), muons / 50 - 1, np.nan),
        },
        scaled={"MET": met[:, None] / met.max(), "Muon_pt": muons / 100},
        spectators={"mass": 100 + 30 * probabilities[:, -1] + rng.normal(0, 5, EVENTS), "eta": rng.normal(size=EVENTS)},
        probabilities=probabilities,
        labels=labels,
        weights=weights,
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_histograms_are_those_of_hist(classes: int) -> None:
    events = sample(classes)
    passed = selection(events, 0.6)
    for found in branch_histograms(events, passed)[:3]:
        values = events.branches[found.name]
        for number in range(classes):
            for chosen, yields, variances in (
                (events.labels == number, found.yields, found.variances),
                ((events.labels == number) & passed, found.passing, found.passing_variances),
            ):
                edges = [*found.edges[:-1], np.nextafter(found.edges[-1], np.inf)]  # ours has its upper edge
                expected = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
                mine = values[chosen]
                expected.fill(mine.ravel(), weight=np.repeat(events.weights[chosen], mine.shape[1]))
                contents = expected.view()
                assert yields[number] == pytest.approx(contents.value)
                assert variances[number] == pytest.approx(contents.variance)
        finite = values[np.isfinite(values)]
        outside = ((finite < found.edges[0]) | (finite > found.edges[-1])).mean()
        assert found.outside == pytest.approx(outside)
        assert outside < 0.01


def test_efficiencies_are_shares_of_the_yield_with_the_error_of_weighted_events() -> None:
    events = sample()
    passed = selection(events, 0.5)
    met = branch_histograms(events, passed)[0]
    efficiency, error = met.efficiency()
    bins = np.digitize(events.branches["MET"][:, 0], met.edges) - 1
    for number in (0, 1):
        for bin_ in (0, 7, 20):
            mine = (events.labels == number) & (bins == bin_)
            weights, kept = events.weights[mine], passed[mine]
            share = weights[kept].sum() / weights.sum()
            spread = np.sqrt((weights**2 * (kept - share) ** 2).sum()) / weights.sum()
            assert efficiency[number, bin_] == pytest.approx(share)
            assert error[number, bin_] == pytest.approx(spread)


def test_negative_and_missing_yields_have_no_efficiency() -> None:
    events = sample(negative=True)
    for found in branch_histograms(events, selection(events, 0.5)):
        efficiency, _ = found.efficiency()
        assert np.array_equal(np.isnan(efficiency), found.yields <= 0)


def test_the_number_of_objects_is_counted_once_for_each_collection() -> None:
    events = sample()
    found = multiplicities(events.branches)
    assert list(found) == ["number of Muon"]
    assert np.array_equal(found["number of Muon"][:, 0], np.isfinite(events.branches["Muon_pt"]).sum(axis=1))
    names = [each.name for each in branch_histograms(events, selection(events, 0.5))]
    assert names == ["MET", "Muon_pt", "Muon_eta", "number of Muon"]
    assert [each.name for each in scaled_histograms(events, selection(events, 0.5))] == ["MET", "Muon_pt"]


FLOATS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@given(arrays(np.float64, st.integers(0, 30), elements=FLOATS | st.integers(-5, 5).map(float)))
def test_any_values_have_rising_edges_with_most_values_inside(values: Any) -> None:
    edges = edges_of(values)
    assert (np.diff(edges) > 0).all()
    assert 2 <= len(edges) <= branches.BINS + 2
    assert ((values >= edges[0]) & (values <= edges[-1])).sum() >= len(values) - 2


def test_whole_numbers_have_a_bin_each_and_a_long_tail_is_cut() -> None:
    assert edges_of(np.array([0.0, 1, 1, 3])).tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert edges_of(np.array([5.0, 5.0])).tolist() == [4.5, 5.5]
    rng = np.random.default_rng(1)
    assert edges_of(np.append(rng.exponential(10, 5_000), 1e6))[-1] < 200
    flat = edges_of(rng.uniform(-3, 3, 5_000))
    assert (flat[0], flat[-1]) == pytest.approx((-3, 3), abs=0.01)


def test_histograms_survive_json() -> None:
    events = sample(3)
    histograms = branch_histograms(events, selection(events, 0.5))
    again = branches.from_json(json.loads(json.dumps(branches.to_json(histograms), allow_nan=False)))
    for one, other in zip(histograms, again, strict=True):
        assert branches.to_json([one]) == branches.to_json([other])


def test_the_divergence_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.exponential(size=30), rng.exponential(size=30)
    assert divergence(one, other) == pytest.approx(jensenshannon(one, other, base=2) ** 2)
    assert divergence(one, 3 * one) == pytest.approx(0, abs=1e-12)
    assert divergence(np.array([1.0, 0]), np.array([0.0, 2])) == pytest.approx(1)
    assert divergence(one, np.zeros(30)) is None


def test_the_divergence_by_chance_is_the_mean_of_samples_of_one_distribution() -> None:
    rng = np.random.default_rng(3)
    shares = np.full(20, 0.05)
    found = [divergence(rng.multinomial(2_000, shares) + 0.0, rng.multinomial(800, shares) + 0.0) for _ in range(300)]
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(by_chance(20, 2_000, 800), rel=0.05)


def test_a_sculpted_mass_diverges_and_an_independent_spectator_does_not() -> None:
    found = {each["name"]: each for each in sculpting(sample(), [0.5])}
    assert found["mass"]["divergence"] > 20 * found["mass"]["chance"]
    assert found["eta"]["divergence"] < 3 * found["eta"]["chance"]
    json.dumps(found, allow_nan=False)


def test_slices_hold_their_shares_of_the_background() -> None:
    events = sample()
    mass = sculpting(events, [0.5])[0]
    yields = np.array(mass["slices"])[:, 0].sum(axis=1)
    assert yields / yields.sum() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.01)
    background = events.labels == 0
    edges = np.array(mass["edges"])
    inside = background & (events.spectators["mass"] >= edges[0]) & (events.spectators["mass"] < edges[-1])
    assert yields.sum() == pytest.approx(events.weights[inside].sum())
    place = np.digitize(events.spectators["mass"], edges) - 1
    chosen = background & (place == 15)
    score = np.average(events.probabilities[chosen, 1], weights=events.weights[chosen])
    assert mass["profile"][15] == pytest.approx(score)


def test_several_classes_have_a_curve_each_and_negative_weights_no_error() -> None:
    found = sculpting(sample(3, negative=True), [0.3, 0.3, 0.3])
    assert [(each["name"], each["curve"]) for each in found] == [(n, c) for n in ("mass", "eta") for c in range(3)]
    json.dumps(found, allow_nan=False)


def test_correlations_are_those_of_numpy_with_weights() -> None:
    rng = np.random.default_rng(4)
    table = rng.normal(size=(5_000, 4)) * [1, 100, 1e-6, 1e20] + [1e6, 0, 0, 0]
    table[:, 1] += 1e-5 * table[:, 3] / 1e13
    weights = rng.exponential(1, 5_000)
    covariance = np.cov(table.T, aweights=weights)
    expected = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.allclose(correlation_matrix(table, weights), expected, atol=1e-4)


def test_a_correlation_takes_the_events_in_which_both_have_a_value() -> None:
    rng = np.random.default_rng(4)
    table = rng.normal(size=(2_000, 3))
    table[:, 1] += table[:, 0]
    table[rng.random((2_000, 3)) < 0.3] = np.nan
    table[:, 2] = 7
    found = correlation_matrix(table, np.ones(2_000))
    both = np.isfinite(table[:, :2]).all(axis=1)
    assert found[0, 1] == pytest.approx(np.corrcoef(table[both, 0], table[both, 1])[0, 1], abs=1e-4)
    assert np.isnan(found[2]).all()


def test_correlations_name_scores_spectators_and_branches() -> None:
    found = correlations(sample(), ["background", "signal"])
    assert found["names"] == ["score of signal", "mass", "eta", "MET", "Muon_pt", "Muon_eta"]
    matrix = np.array(found["classes"][0], dtype=float)
    assert matrix[0, 1] > 0.5
    assert matrix[4, 5] == pytest.approx(1, abs=1e-4)
    assert matrix == pytest.approx(matrix.T)
    json.dumps(found, allow_nan=False)
    assert correlations(sample(3), ["a", "b", "c"])["names"][:3] == ["score of a", "score of b", "score of c"]


def test_branches_and_their_collections_are_permuted() -> None:
    groups = groups_of({"MET": range(1), "Muon_pt": range(1, 4), "Muon_eta": range(4, 7)})
    assert [(group.name, group.kind, group.columns) for group in groups] == [
        ("Muon", "collection", (1, 2, 3, 4, 5, 6)),
        ("MET", "branch", (0,)),
        ("Muon_pt", "branch", (1, 2, 3)),
        ("Muon_eta", "branch", (4, 5, 6)),
    ]
    features = np.arange(70, dtype=np.float32).reshape(10, 7)
    changed = permuted(features, groups[0], 2)
    assert np.array_equal(changed[:, 0], features[:, 0])
    order = (changed[:, 1] // 7).astype(int)
    assert sorted(order) == list(range(10))
    assert np.array_equal(changed[:, 1:], features[order, 1:])
    assert not np.array_equal(changed, permuted(features, groups[0], 3))
    assert np.array_equal(changed, permuted(features, groups[0], 2))


@given(st.integers(1, 250), st.integers(1, 5_000))
def test_the_cost_of_all_permutations_is_bounded(n_groups: int, n_features: int) -> None:
    rows = n_rows(n_groups, n_features)
    assert 1 <= rows <= 10_000
    if rows > 1:
        assert rows * n_groups * REPEATS <= MOST_SCORES
        assert rows * n_groups * REPEATS * n_features <= MOST_VALUES


@pytest.mark.parametrize("classes", [2, 3])
def test_the_mean_auc_is_that_of_scikit_learn(classes: int) -> None:
    events = sample(classes)
    curves = [1] if classes == 2 else range(classes)
    expected = np.mean(
        [roc_auc_score(events.labels == k, events.probabilities[:, k], sample_weight=events.weights) for k in curves]
    )
    assert mean_auc(events.probabilities, events.labels, events.weights) == pytest.approx(expected, rel=1e-9)
    assert mean_auc(events.probabilities, np.zeros_like(events.labels), events.weights) is None


def test_an_importance_is_the_mean_fall_with_its_spread() -> None:
    group = groups_of({"MET": range(1)})[0]
    found = importance(group, 0.9, [0.8, 0.82, 0.78])
    assert found == {"name": "MET", "kind": "branch", "fall": pytest.approx(0.1), "spread": pytest.approx(0.02)}
