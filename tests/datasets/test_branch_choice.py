"""Features are the branches of numbers that the user selects, never the identifiers of an event."""

import pytest
from hepfaas.datasets.branch_choice import Branch, BranchChoice, choose_branches
from hepfaas.errors import RequestError

BRANCHES = [Branch(name, "_" in name, "float32", 10) for name in ("run", "event", "met", "Muon_pt", "Muon_eta", "w")]


def names(choice: BranchChoice) -> list[str]:
    return [branch.name for branch in choice.features]


def test_all_branches_but_the_default_identifiers_in_the_order_of_the_tree() -> None:
    choice = choose_branches("TTree 'Events'", BRANCHES)
    assert names(choice) == ["met", "Muon_pt", "Muon_eta", "w"]
    assert choice.identifiers == ("run", "event")
    assert choice.notes == ()


def test_identifiers_of_the_users_own_replace_the_usual_ones() -> None:
    choice = choose_branches("T", BRANCHES, identifiers=("w",))
    assert (names(choice), choice.identifiers) == (["run", "event", "met", "Muon_pt", "Muon_eta"], ("w",))


def test_a_selection_overrides_an_exclusion() -> None:
    assert names(choose_branches("T", BRANCHES, selected=("Muon_eta", "met"), excluded=("met",))) == ["met", "Muon_eta"]
    assert names(choose_branches("T", BRANCHES, excluded=("met", "w"))) == ["Muon_pt", "Muon_eta"]


def test_a_missing_branch_in_an_exclusion_is_a_note() -> None:
    choice = choose_branches("TTree 'Events'", BRANCHES, excluded=("nothing",), identifiers=("evt",))
    assert choice.notes == (
        "'nothing' of exclude_branches is not a branch of TTree 'Events'",
        "'evt' of identifier is not a branch of TTree 'Events'",
    )


@pytest.mark.parametrize(
    ("options", "features", "identifiers"),
    [
        ({"selected": ("Muon_*", "met")}, ["met", "Muon_pt", "Muon_eta"], ("run", "event")),
        ({"excluded": ("Muon_*", "/[wx]/")}, ["met"], ("run", "event")),
        ({"identifiers": ("/run|event/", "w")}, ["met", "Muon_pt", "Muon_eta"], ("run", "event", "w")),
        ({"identifiers": ("*t",)}, ["run", "Muon_pt", "Muon_eta", "w"], ("event", "met")),
    ],
)
def test_patterns_choose_branches(
    options: dict[str, tuple[str, ...]], features: list[str], identifiers: tuple[str, ...]
) -> None:
    choice = choose_branches("T", BRANCHES, **options)
    assert (names(choice), choice.identifiers) == (features, identifiers)


def test_a_note_says_what_a_pattern_leaves_out() -> None:
    choice = choose_branches("T", BRANCHES, excluded=("Muon_*", "w"))
    assert choice.notes == ("'Muon_*' of exclude_branches leaves out 2 of 6 branches: Muon_pt, Muon_eta",)


def test_a_pattern_without_a_match_is_a_note_or_an_error_as_a_name_is() -> None:
    choice = choose_branches("TTree 'Events'", BRANCHES, excluded=("gen*",), identifiers=("/evt.*/",))
    assert choice.notes == (
        "'gen*' of exclude_branches matches no branch of TTree 'Events'",
        "'/evt.*/' of identifier matches no branch of TTree 'Events'",
    )
    with pytest.raises(RequestError, match=r"TTree 'Events' has no branch that matches 'Muonn_\*'; closest: Muon_"):
        choose_branches("TTree 'Events'", BRANCHES, selected=("Muonn_*",))


@pytest.mark.parametrize(
    ("selected", "excluded", "message"),
    [
        (("Muon_Pt",), (), "TTree 'Events' in x has no branch 'Muon_Pt'; closest: Muon_pt"),
        (("zzz",), (), "has no branch 'zzz'; it has: run, event, met"),
        (("run",), (), "no branch is left to learn from"),
        ((), ("met", "Muon_pt", "Muon_eta", "w"), "no branch is left to learn from; its 6 are all excluded"),
    ],
)
def test_a_missing_branch_in_a_selection_is_an_error(
    selected: tuple[str, ...], excluded: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        choose_branches("TTree 'Events' in x", BRANCHES, selected=selected, excluded=excluded)
