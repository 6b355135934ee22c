"""A spec is stored with a model: it comes back equal, and knows its inputs and columns."""

import json
from dataclasses import replace

import pytest
from hepfaas.errors import RequestError
from hepfaas.features.spec import FeatureBranch, FeatureSpec, InputBranch
from hepfaas.runs.preprocessing import Cut, NewBranch, Preprocessing

PLAIN = FeatureSpec(
    (
        FeatureBranch("met", jagged=False, low=0.0, high=8.0, width=1, type="float64", indicator=True),
        FeatureBranch("Jet_pt", jagged=True, low=None, high=None, width=2, clip=(-1.0, 2.0), mask=True),
    ),
    identifiers=("run", "event"),
)
READ = (InputBranch("met", False, "float64"), InputBranch("Jet_pt", True, "float32"), InputBranch("w", False, "int8"))
COMPUTED = replace(
    PLAIN,
    surplus="error",
    preprocessing=Preprocessing(new=(NewBranch("ht", "sum(Jet_pt)"),), cuts=(Cut("loose", "met > 30 and w"),)),
    read=READ,
    spectators=("w", "met * 2"),
    targets=("gen_pt",),
)


@pytest.mark.parametrize("spec", [PLAIN, COMPUTED, replace(PLAIN, targets=("x",)), replace(PLAIN, spectators=("x",))])
def test_a_spec_survives_json(spec: FeatureSpec) -> None:
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_inputs_are_the_branches_that_are_read_or_else_the_features() -> None:
    assert PLAIN.inputs == READ[:2]
    assert PLAIN.input_names == PLAIN.names == ["met", "Jet_pt"]
    assert COMPUTED.inputs == READ
    assert (COMPUTED.input_names, COMPUTED.names) == (["met", "Jet_pt", "w"], ["met", "Jet_pt"])


def test_the_slots_of_a_branch_are_its_columns() -> None:
    assert len(PLAIN.columns) == PLAIN.n_features == 6
    assert [PLAIN.columns[slot] for slot in PLAIN.slots("met")] == ["met", "met_missing"]
    assert [PLAIN.columns[slot] for slot in PLAIN.slots("Jet_pt")] == [
        "Jet_pt_0", "Jet_pt_1", "Jet_pt_mask_0", "Jet_pt_mask_1",
    ]  # fmt: skip
    with pytest.raises(RequestError, match="branch 'Jet_eta' is not among the 2 branches of the spec"):
        PLAIN.slots("Jet_eta")


def test_an_input_of_two_files_has_a_type_that_holds_the_values_of_both() -> None:
    assert READ[2] | InputBranch("w", False, "uint8") == InputBranch("w", False, "int16")
    with pytest.raises(RequestError, match="branch 'w' is flat in some files and jagged in others"):
        READ[2] | InputBranch("w", True, "int8")
