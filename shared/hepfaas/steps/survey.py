"""survey: one entry range of a file -> range, multiplicity and missing values of each branch, and sums of weights."""

from __future__ import annotations

from dataclasses import astuple

from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.features.branches import range_of, survey_of
from hepfaas.platform.storage import Store
from hepfaas.runs.preprocessing import Preprocessing
from hepfaas.runs.steps import Survey
from hepfaas.runs.weighting import Weighting
from hepfaas.steps.events import Events, events_of
from hepfaas.steps.objects import encoded
from hepfaas.training.weights import FileWeights, WeightSurvey, weights_of


def perform(step: Survey, store: Store, reading: Reading = PLAIN) -> None:
    """Raises: RequestError if the file has changed since the run opened it, or a weight, label or target is
    no number; UnavailableError."""
    events = events_of(step, step.inputs or step.branches, Preprocessing.from_text(step.preprocessing), store, reading)
    survey = survey_of(
        step.file,
        events.of_selected(step.branches),
        step.n_events,
        moments=step.moments,
        histograms=step.histograms,
    )
    result = survey.to_json()
    if step.preprocessing:
        result["inputs"] = [list(astuple(branch)) for branch in events.inputs]
    if step.weighting:
        result["weights"] = WeightSurvey({step.file: _weights(events, Weighting.from_text(step.weighting))}).to_json()
    if step.targets:
        result["targets"] = {name: range_of(events.target(name), moments=True).to_json() for name in step.targets}
    store.create(step.key, encoded(result))


def _weights(events: Events, weighting: Weighting) -> FileWeights:
    bins = events.bins(weighting)
    return weights_of(
        events.weights(weighting),
        selected=events.selected,
        labels=events.labels(weighting) if weighting.label else bins * 0,
        bins=bins,
        n_bins=weighting.balance.n_bins if weighting.balance else 1,
        negative=weighting.negative,
    )
