"""The vectors of events with and without cuts, and the scores of all events from those of the selected ones."""

import numpy as np
import pytest
from hepfaas.features.jagged import Jagged, Values
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.features.vectors import Vectors, preprocessing_bytes, vectors_of

SPEC = FeatureSpec(
    (
        FeatureBranch("met", jagged=False, low=0.0, high=8.0, width=1),
        FeatureBranch("Jet_pt", jagged=True, low=0.0, high=64.0, width=2),
    )
)
ARRAYS: dict[str, Values] = {
    "met": np.array([1.0, 2.0, 4.0]),
    "Jet_pt": Jagged(np.array([16.0, 32.0, 64.0, 8.0]), np.array([3, 0, 1])),
}


def test_without_preprocessing_all_events_are_selected_and_their_vectors_are_the_matrix() -> None:
    vectors = vectors_of(ARRAYS, SPEC)
    assert vectors.features.tolist() == [[0.125, 0.25, 0.5], [0.25, 0.0, 0.0], [0.5, 0.125, 0.0]]
    assert vectors.features.tobytes() == matrix(ARRAYS, SPEC).tobytes()
    assert (len(vectors), vectors.selected, vectors.n_surplus) == (3, None, 1)
    assert preprocessing_bytes(ARRAYS, SPEC) == 0


def test_spectators_change_neither_the_vectors_nor_the_events() -> None:
    plain, vectors = vectors_of(ARRAYS, SPEC), vectors_of(ARRAYS, SPEC, ["met + 1", "Jet_pt[0]"])
    assert vectors.features.tobytes() == plain.features.tobytes()
    assert (len(vectors), vectors.selected, vectors.n_surplus) == (3, None, 1)
    assert vectors.spectators["met + 1"].tolist() == [2.0, 3.0, 5.0]
    first = vectors.spectators["Jet_pt[0]"]
    assert first[[0, 2]].tolist() == [16.0, 8.0]
    assert np.isnan(first[1])


def test_spectators_of_many_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepfaas.features.vectors.BLOCK_VALUES", 1)
    vectors = vectors_of(ARRAYS, SPEC, ["met"])
    assert vectors.selected is None
    assert vectors.spectators["met"].tolist() == [1.0, 2.0, 4.0]
    assert vectors.features.tobytes() == matrix(ARRAYS, SPEC).tobytes()


def test_events_that_fail_the_cuts_have_no_score() -> None:
    scores = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    features = np.zeros((2, 3), dtype=np.float32)
    everything = Vectors(features, np.array([True, False, True]))
    assert len(everything) == 3
    of_all = everything.of_all(scores)
    assert of_all[[0, 2]].tolist() == scores.tolist()
    assert np.isnan(of_all[1]).all()
    assert Vectors(features).of_all(scores) is scores
