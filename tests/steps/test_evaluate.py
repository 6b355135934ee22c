"""evaluate refuses invalid scores, and its error says what to change in the model."""

from pathlib import Path

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.evaluation.part import part_counts
from hepfaas.platform.stores import open_store
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Evaluate
from hepfaas.steps import evaluate
from hepfaas.steps.objects import encoded


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (np.nan, "the model's score of 1 held-back events is NaN or infinite"),
        (3.5, "the model's score of 1 held-back events is below 0 or above 1.*end the network in a sigmoid"),
    ],
    ids=["not a number", "no probability"],
)
def test_invalid_scores_are_refused(score: float, message: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    scores, labels = np.array([[0.4], [score]], dtype=np.float32), np.array([0, 1])
    counts = part_counts(scores, labels, np.array([Split.TEST] * 2), rows=(0, 0, 2), logits=False)
    store.create("steps/score/1", encoded(counts.to_json()))
    step = Evaluate(examine="", trainings=(("steps/score/1", (), 0),), classes=("background", "signal"), data="")
    with pytest.raises(RequestError, match=message):
        evaluate.perform(step, store)
    assert store.size_bytes(step.key) is None


def test_the_metrics_of_a_fold_keep_those_that_are_not_known() -> None:
    assert evaluate._main({"events": 3, "auc": None, "curves": [], "confusion": [[1]]}) == {"events": 3, "auc": None}
