"""Weights, labels, targets and spectators: the branches that they take, and one number for each event."""

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.features.extra import extra_inputs, one_number, with_branches
from hepfaas.features.jagged import Jagged, Values
from hepfaas.runs.preprocessing import NewBranch, Preprocessing

FILE = ("run", "met", "Jet_pt", "Jet_eta", "w")
NEW = Preprocessing(new=(NewBranch("ht", "sum(Jet_pt)"), NewBranch("scaled", "ht / met")))
ARRAYS: dict[str, Values] = {
    "met": np.array([1.0, 2.0, 4.0]),
    "Jet_pt": Jagged(np.array([30.0, 20.0, 50.0]), np.array([2, 0, 1])),
}


@pytest.mark.parametrize(
    ("expressions", "preprocessing", "expected"),
    [
        ([], NEW, ()),
        (["1"], NEW, ()),
        (["w * 2", "run % 2"], Preprocessing(), ("run", "w")),
        (["ht"], Preprocessing(new=NEW.new[:1]), ("Jet_pt",)),
        (["scaled + w"], NEW, ("met", "Jet_pt", "w")),
    ],
)
def test_branches_behind_new_branches_are_read_in_the_order_of_the_file(
    expressions: list[str], preprocessing: Preprocessing, expected: tuple[str, ...]
) -> None:
    assert extra_inputs(expressions, preprocessing, FILE) == expected


def test_an_expression_of_a_missing_branch_is_an_error_where_it_is_needed_and_left_out_where_it_is_not() -> None:
    with pytest.raises(
        RequestError, match=r"params\.json: 'met_pt \* 2' at column 1: .* no branch 'met_pt'; closest: "
    ):
        extra_inputs(["met_pt * 2"], NEW, FILE)
    assert with_branches(["met_pt * 2", "ht / met", "w", "gone"], NEW, FILE) == ("ht / met", "w")


def test_an_expression_gives_one_number_for_each_event() -> None:
    assert one_number(ARRAYS, "met * 2", 3).tolist() == [2.0, 4.0, 8.0]
    assert one_number(ARRAYS, "sum(Jet_pt)", 3).tolist() == [50.0, 0.0, 50.0]
    assert one_number(ARRAYS, "0.5", 3).tolist() == [0.5, 0.5, 0.5]


def test_several_values_for_an_event_are_refused() -> None:
    with pytest.raises(RequestError, match=r"'Jet_pt \* 2' has several values for an event; .* as in Muon_pt\[0\]"):
        one_number(ARRAYS, "Jet_pt * 2", 3)
