"""register: a converted model, its params and its labels -> a numbered version under a name."""

from __future__ import annotations

import json
import math
from typing import Any

from hepfaas.models import versions
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Register
from hepfaas.steps.objects import encoded, result_of


def perform(step: Register, store: Store) -> None:
    """Raises: MissingError."""
    converted = result_of(step.convert, store)
    version = versions.claim(store, step.name, step.key)
    params = json.loads(step.params)
    files = {
        versions.GRAPH: store.get(converted["graph"]),
        versions.PARAMS: encoded(params),
        versions.LABELS: "".join(f"{label}\n" for label in step.labels).encode(),
    }
    card: dict[str, Any] = {
        "name": version.name,
        "version": version.number,
        "foreign": step.format,
        "params": params,
        "shape": converted["shape"],
        "n_features": math.prod(converted["shape"]),
        "labels": list(step.labels),
        "outputs": converted["outputs"],
        "parameters": converted["parameters"],
        "graph_check": converted["check"],
        "versions": converted["versions"],
        "processor": converted["processor"],
        "features": [],
        "data": [],
        "metrics": {},
        "best_epoch": None,
        "steps": {"convert": step.convert},
    }
    versions.publish(store, version, card, files)
    result = {"name": version.name, "version": version.number, "files": sorted([*files, versions.CARD])}
    store.create(step.key, encoded(result))
