"""compare: scores of the same events by a new model and by the last version -> whether the new model is as good."""

from __future__ import annotations

from hepfaas.errors import RequestError
from hepfaas.evaluation.metrics import quality
from hepfaas.evaluation.part import PartCounts
from hepfaas.platform.storage import Store
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Compare
from hepfaas.steps.objects import encoded, result_of


def perform(step: Compare, store: Store) -> None:
    """Raises: RequestError if the sample has no test event of a class, or scores that are not probabilities."""
    new, last = (_quality(step, key, store) for key in (step.score, step.last))
    result = {
        "metric": step.metric,
        "model": step.model,
        "events": new["events"],
        "new": new[step.metric],
        "last": last[step.metric],
        "fall": step.fall,
        "passed": last[step.metric] - new[step.metric] <= step.fall,
    }
    store.create(step.key, encoded(result))


def _quality(step: Compare, key: str, store: Store) -> dict[str, float]:
    counts = PartCounts.from_json(result_of(key, store)).scores
    counts.check()
    metrics = quality(counts, Split.TEST)
    if metrics["auc"] is None:
        raise RequestError(
            f"the gate's sample has {metrics['events']} test events, all of one class, so that models cannot be "
            "compared; add files to the sample"
        )
    return metrics
