"""Do any step: the one place that leads from a step to the module of its kind."""

from __future__ import annotations

import importlib
from typing import Any

from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Step


def perform(step: Step, store: Store, **tools: Any) -> None:
    """Do a step and store its result. Its module is imported here: a function imports only what its own steps need.

    tools: further arguments of the module's `perform`. Raises: as that does.
    """
    importlib.import_module(f"hepfaas.steps.{step.kind}").perform(step, store, **tools)
