"""spec: the sum of all surveys -> the columns of a vector, as a blob that prepare steps name by its hash."""

from __future__ import annotations

from typing import cast

from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange, BranchSurvey
from hepfaas.features.findings import findings
from hepfaas.features.old_specs import with_old_ranges
from hepfaas.features.preprocess import sources_of
from hepfaas.features.scaling import feature_branch
from hepfaas.features.spec import FeatureSpec, InputBranch, Order, Surplus, in_order
from hepfaas.features.targets import target_of
from hepfaas.platform.storage import Store
from hepfaas.runs import steps
from hepfaas.runs.feature_rules import FeatureRules
from hepfaas.runs.old_specs import OldSpecs
from hepfaas.runs.preprocessing import Preprocessing
from hepfaas.steps.objects import encoded, put_blob, result_of


def perform(step: steps.Spec, store: Store) -> None:
    """Raises: RequestError if no branch has a value, a target only one, or given ranges are not those of the events."""
    result = result_of(step.survey, store)
    survey = BranchSurvey.from_json(result)
    jagged = {name: branch.jagged for name, branch in survey.branches.items()}
    names = in_order(step.branches, jagged, cast(Order, step.order))
    rules = FeatureRules.from_text(step.rules).of(step.branches)
    ranges = with_old_ranges(survey.branches, OldSpecs.from_text(step.ranges))
    features = (feature_branch(name, ranges[name], rules[name]) for name in names)
    branches = tuple(feature for feature in features if feature.width)  # a list that is always empty has no column
    if not branches:
        raise RequestError(f"none of the {len(names)} branches has a value in any event, so there is nothing to learn")
    read = {name: InputBranch(name, jagged, type_) for name, jagged, type_ in result.get("inputs", ())}
    preprocessing = Preprocessing.from_text(step.preprocessing)
    spec = FeatureSpec(
        branches,
        cast(Surplus, step.surplus),
        step.identifiers,
        preprocessing,
        tuple(read[name] for name in step.inputs),
        step.spectators,
        step.targets,
        step.record_function,
    )
    blob = put_blob(store, encoded(spec.to_json()))
    missing = {name: branch.n_missing for name, branch in survey.branches.items() if branch.n_missing}
    facts = {
        "columns": blob,
        "n_features": spec.n_features,
        "events": dict(survey.events),
        "missing_values": missing,
        "notes": findings({name: survey.branches[name] for name in names}, sources_of(preprocessing, step.inputs)),
    }
    if step.targets:
        surveys = {name: BranchRange.from_json(values) for name, values in result["targets"].items()}
        facts["targets"] = [target_of(name, surveys[name]).to_json() for name in step.targets]
    store.create(step.key, encoded(facts))
