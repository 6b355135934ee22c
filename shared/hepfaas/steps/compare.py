"""compare: the scores of the same events by a new model and by the last version -> whether the new one is as good."""

from __future__ import annotations

from hepfaas.errors import RequestError
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Compare
from hepfaas.steps.objects import encoded, result_of
from hepfaas.training.metrics import SPLITS, ScoreCounts, quality


def perform(step: Compare, store: Store) -> None:
    """Raises: RequestError if the sample has no test event of a class, or scores that are no probabilities."""
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
    counts = ScoreCounts.from_json(result_of(key, store))
    counts.check()
    found = quality(counts, SPLITS.index("test"))
    if found["auc"] is None:
        raise RequestError(
            f"the gate's sample has {found['events']} test events, and none of one class: nothing can be compared; "
            "give it more files"
        )
    return found
