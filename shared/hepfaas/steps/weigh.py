"""weigh: the sum of all surveys -> the factors of event weights, and the classes if each event has its own label."""

from __future__ import annotations

from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Weigh
from hepfaas.runs.weighting import Weighting
from hepfaas.steps.objects import encoded, result_of
from hepfaas.training.weights import WeightSurvey, factors_of


def perform(step: Weigh, store: Store) -> None:
    """Raises: RequestError if a sum of weights is not positive, or a class has no event; MissingError."""
    survey = WeightSurvey.from_json(result_of(step.survey, store)["weights"])
    factors = factors_of(survey, step.files, step.samples, Weighting.from_text(step.weighting).balance)
    store.create(step.key, encoded(factors.to_json()))
