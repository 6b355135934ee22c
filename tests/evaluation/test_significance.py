"""Significances are those of their formulas over the events, and limits of them that are known."""

import json
import warnings

import numpy as np
import pytest
from hepfaas.evaluation.counts import BINS, EDGE, counts_of
from hepfaas.evaluation.significance import LEAST_EVENTS, MEASURES, ams, asimov, scan, simple
from hepfaas.evaluation.tally import Tally, tally
from hepfaas.runs.splits import Split

RNG = np.random.default_rng(2)


def histograms(events: int, *, weighted: bool) -> tuple[Tally, Tally, np.ndarray, np.ndarray, np.ndarray]:
    labels = RNG.integers(0, 2, events)
    scores = (1 / (1 + np.exp(-(RNG.normal(size=events) + 2 * labels - 1)))).astype(np.float32)
    weights = np.where(labels == 1, 0.01, 3) * RNG.exponential(size=events)
    counts = counts_of(
        scores[:, None],
        labels,
        np.full(events, int(Split.TEST)),
        logits=False,
        weights=weights if weighted else None,
        unit=2.0**-30,
    ).histograms
    return counts[1, 0, 1], counts[1, 0, 0], scores, labels, weights


@pytest.mark.parametrize("weighted", [True, False])
def test_the_best_significances_are_the_largest_over_all_thresholds(weighted: bool) -> None:
    signal, background, scores, labels, weights = histograms(5_000, weighted=weighted)
    weights = weights if weighted else np.ones(5_000)
    found = scan(signal, background, scale=5.0)
    expected: dict[str, list[float]] = {name: [] for name in MEASURES}
    for threshold in scores:
        above = scores >= threshold
        if (above & (labels == 0)).sum() < LEAST_EVENTS:
            continue
        s, b = 5 * weights[above & (labels == 1)].sum(), 5 * weights[above & (labels == 0)].sum()
        expected["s_over_sqrt_b"].append(s / np.sqrt(b))
        expected["s_over_sqrt_s_plus_b"].append(s / np.sqrt(s + b))
        expected["asimov"].append(np.sqrt(2 * ((s + b) * np.log(1 + s / b) - s)))
        expected["ams"].append(np.sqrt(2 * ((s + b + 10) * np.log(1 + s / (b + 10)) - s)))
    for name, values in expected.items():
        best = found["best"][name]
        assert best["value"] == pytest.approx(max(values), rel=0.02), name
        above = scores > best["threshold"]
        assert best["signal"] == pytest.approx(5 * weights[above & (labels == 1)].sum(), rel=0.02)
        assert best["background"] == pytest.approx(5 * weights[above & (labels == 0)].sum(), rel=0.02)
    assert found["yields"] == ("sums of weights" if weighted else "numbers of events")
    assert len(found["points"]["threshold"]) == len(found["points"]["ams"]) <= 200
    json.dumps(found, allow_nan=False)


def test_of_a_small_signal_all_significances_of_discovery_are_the_simple_one() -> None:
    signal, background = np.array([1.0]), np.array([1e6])
    assert asimov(signal, background) == pytest.approx(simple(signal, background), rel=1e-4)
    assert ams(signal, background) == pytest.approx(simple(signal, background), rel=1e-4)


def test_the_asimov_significance_is_that_of_the_likelihood_ratio() -> None:
    """Of n = S + B events where B are expected: -2 ln(L(B) / L(n)), L of a Poisson distribution."""
    signal, background = 30.0, 50.0
    n = signal + background
    ratio = 2 * ((n * np.log(n) - n) - (n * np.log(background) - background))
    assert asimov(np.array([signal]), np.array([background]))[0] == pytest.approx(np.sqrt(ratio))


def test_the_larger_regularisation_of_ams_is_ten() -> None:
    assert ams(np.array([30.0]), np.array([40.0]))[0] == asimov(np.array([30.0]), np.array([50.0]))[0]


def test_no_threshold_with_few_background_events_is_the_best() -> None:
    signal, background = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    signal[4_000], signal[2_000], background[2_000], background[3_999] = 100, 5, 1_000, LEAST_EVENTS - 1
    best = scan(Tally(signal), Tally(background))["best"]["s_over_sqrt_b"]
    assert best["background"] == 1_000 + LEAST_EVENTS - 1
    assert best["threshold"] == pytest.approx(1 / (1 + np.exp(EDGE - 2_000 * 2 * EDGE / BINS)))


def test_without_background_there_is_no_best_threshold() -> None:
    empty = Tally(np.zeros(BINS, dtype=np.int64))
    found = scan(empty, empty)
    assert set(found["best"].values()) == {None}
    assert found["points"]["threshold"] == []


def test_tiny_and_negative_yields_give_no_warning() -> None:
    cells = np.repeat(np.arange(100), 20)
    weights = RNG.normal(0, 1, 2_000)
    signal, background = (
        tally(cells, (BINS,), 1e-9 * np.abs(weights), 2.0**-30),
        tally(cells, (BINS,), weights, 2.0**-30),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        json.dumps(scan(signal, background), allow_nan=False)
