"""The ROOT file of an evaluation is read by uproot and hist, and has the values of the metrics."""

import io

import hist
import numpy as np
import pytest
import uproot
from evaluation.test_plots import measured
from hepfaas.evaluation.root_file import histograms

NAMES = ["tt̄ (2ℓ)", "a/b"]


@pytest.mark.parametrize("weighted", [True, False])
def test_hist_reads_the_scores_and_branches_back(weighted: bool) -> None:
    counts, examined = measured(2, weighted=weighted)
    with uproot.open(io.BytesIO(histograms(counts, examined["branches"], NAMES)["histograms.root"])) as file:
        names = file.keys(recursive=True, filter_classname="TH1*", cycle=False)
        assert len(names) == 3 * 2 + 2 * 2 * len(examined["branches"])
        score = file["scores/test/1_a_b_0_tt_2"].to_hist()
        assert isinstance(score, hist.Hist)
        test = counts.scores.histograms[1, 0, 0]
        assert score.values().sum() == pytest.approx(test.yields.sum())
        assert score.variances().sum() == pytest.approx(test.variances.sum())
        assert score.axes[0].edges == pytest.approx(np.linspace(0, 1, 101))
        branch = examined["branches"][1]
        values = file["branches/1_Jet_pt_of_a_very_long_collection_of_objects/1_a_b"].to_hist()
        assert values.values() == pytest.approx(np.array(branch["yields"])[1])
        assert values.variances() == pytest.approx(np.array(branch["variances"])[1])
        assert values.axes[0].edges == pytest.approx(np.array(branch["edges"]))
        passing = file["passing/0_MET/0_tt_2"].to_hist()
        assert passing.values() == pytest.approx(np.array(examined["branches"][0]["passing"])[0])


def test_equal_values_give_equal_bytes() -> None:
    counts, examined = measured(2)
    assert histograms(counts, examined["branches"], NAMES) == histograms(counts, examined["branches"], NAMES)
