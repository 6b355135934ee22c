"""The networks of a version: the served one, and those of the folds, one of which scores each event that has a fold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepfaas.models import versions
from hepfaas.models.inference import ConfinedModel, Graph, Inference
from hepfaas.models.versions import Published
from hepfaas.platform.storage import Store
from hepfaas.runs.folds import FoldRule


@dataclass(frozen=True)
class Networks:
    """The networks of a version, in workers.

    served: of a version without folds, or the mean of all its networks. folds: gives the outputs of each, one after the
    other. rule: None without folds.
    """

    served: ConfinedModel
    folds: ConfinedModel | None = None
    rule: FoldRule | None = None

    def predict(self, features: NDArray[np.float32], folds: NDArray[np.uint8] | None = None) -> NDArray[np.float32]:
        """Return scores, (events, outputs), for features (events, features).

        folds: of the events, (events,), whose own networks score them; None: the served network does.
        Raises: as `ConfinedModel.predict`.
        """
        if folds is None or self.folds is None or self.rule is None:
            return self.served.predict(features)
        each = self.folds.predict(features).reshape(len(features), self.rule.folds.number, -1)
        return each[np.arange(len(features)), folds]


@contextmanager
def networks_of(published: Published, graph: Graph, store: Store, inference: Inference) -> Iterator[Networks]:
    """Provide the networks of a version; their workers start with the first rows. graph: of the served network.

    Raises: MissingError if the version was deleted just now.
    """
    rule = rule_of(published)
    with ExitStack() as stack:
        served = stack.enter_context(inference.model(graph))
        if rule is None:
            yield Networks(served)
            return
        outputs = rule.folds.number * int(published.card["outputs"])
        data = store.get(published.version.prefix + versions.FOLDS)
        each = Graph(data, published.shape, outputs, f"model '{published.version}'")
        yield Networks(served, stack.enter_context(inference.model(each)), rule)


def rule_of(published: Published) -> FoldRule | None:
    """Return how the fold of an event is found; None without folds."""
    folds = published.card.get("folds")
    return FoldRule.from_json(folds) if folds else None
