"""Rules of a recipe reach the prepared events, which do not depend on how the files are cut into ranges."""

import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.errors import RequestError
from hepfaas.features.spec import FeatureSpec
from hepfaas.local.workers import perform
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan
from hepfaas.runs.params import params_of
from hepfaas.runs.phases import Ready
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.results import prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Prepare, Spec
from hepfaas.steps.objects import open_part, result_if_there
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "ggH_tautau.root"
FILES = (LabelledFile(str(SAMPLE), 0), LabelledFile(str(SAMPLE.with_name("VBF_tautau.root")), 1))
PARAMS = {
    "redirector": "",
    "selected_branches": ["MET_*", "Jet_pt", "/Muon_(pt|eta)/"],
    "scaling": {"MET_pt": "log", "MET_*": "standard", "Jet_pt": {"kind": "robust", "clip": 3}, "*": "minmax"},
    "nan": {"*": "indicator"},
    "pad": {"Jet_*": -5},
    "mask": ["Muon_pt"],
}


def prepared(store: Store, params: dict[str, Any]) -> tuple[FeatureSpec, dict[int, NDArray[np.float32]]]:
    """Return the spec and the features of the first file by entry."""
    recipe = Recipe("job", FILES, "blobs/none", **params_of(json.dumps(params), "params.json").recipe)
    done = []
    while isinstance(coming := plan.next_steps(recipe, "a", lambda key: result_if_there(key, store)), Ready):
        if coming.phase == "train":
            break
        for step in coming.steps:
            perform(step, store)
            done.append(step)
    (columns,) = {result_if_there(step.key, store)["columns"] for step in done if isinstance(step, Spec)}  # type: ignore[index]
    rows = {}
    for step in done:
        if isinstance(step, Prepare) and step.label == 0:
            (part,) = prepared_parts(result_if_there(step.key, store) or {})
            stored = open_part(part.key, part.size_bytes, store)
            for split in Split:
                features = [row for number in stored.facts.batches(split) for row in stored.rows(number).features]
                rows |= dict(zip(stored.entries(stored.facts.batches(split)).tolist(), features, strict=True))
    return FeatureSpec.from_json(json.loads(store.get(columns))), rows


def test_the_prepared_events_follow_the_rules_for_every_cut_into_ranges(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    spec, rows = prepared(store, PARAMS)
    other, same = prepared(store, {**PARAMS, "range_events": 700})
    assert other == spec
    assert sorted(rows) == sorted(same) == list(range(5000))
    features = np.array([rows[entry] for entry in range(5000)])
    assert features.tobytes() == np.array([same[entry] for entry in range(5000)]).tobytes()
    assert features.shape == (5000, spec.n_features)

    arrays = [uproot.open(file.url)["Events"].arrays(["MET_pt", "MET_phi", "Jet_pt", "Muon_pt"]) for file in FILES]
    phi = [ak.to_numpy(array["MET_phi"]).astype(np.float64)[:, None] for array in arrays]
    expected = StandardScaler().fit(np.concatenate(phi)).transform(phi[0])[:, 0]
    np.testing.assert_allclose(features[:, spec.slots("MET_phi").start], expected, rtol=1e-5, atol=1e-6)

    met = [ak.to_numpy(array["MET_pt"]).astype(np.float64) for array in arrays]
    low, high = np.concatenate(met).min(), np.concatenate(met).max()
    expected = np.log(1 + met[0] - low) / np.log(1 + high - low)
    np.testing.assert_allclose(features[:, spec.slots("MET_pt").start], expected, rtol=1e-5, atol=1e-6)

    columns, width = spec.slots("Jet_pt"), max(int(ak.max(ak.num(array["Jet_pt"]))) for array in arrays)
    jets = features[:, columns.start : columns.start + width]
    is_jet = np.arange(width) < ak.to_numpy(ak.num(arrays[0]["Jet_pt"]))[:, None]
    assert (jets[~is_jet] == -5).all()
    assert jets[is_jet].min() >= -3
    assert jets[is_jet].max() == 3

    columns, width = spec.slots("Muon_pt"), max(int(ak.max(ak.num(array["Muon_pt"]))) for array in arrays)
    is_muon = np.arange(width) < ak.to_numpy(ak.num(arrays[0]["Muon_pt"]))[:, None]
    np.testing.assert_array_equal(features[:, columns.stop - width : columns.stop], is_muon)


def test_a_rule_for_no_branch_fails_before_any_event_is_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'scaling': 'Muom_pt' matches no branch; closest: Muon_pt"):
        prepared(open_store(str(tmp_path)), {**PARAMS, "scaling": {"Muom_pt": "log"}})
    assert not list((tmp_path / "steps").glob("survey"))
