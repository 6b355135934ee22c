"""train: train steps, one after the other while the budget lasts, and export steps. TensorFlow runs in a child process.

Takes a CloudEvent org.hepfaas.{train,export}.requested (docs/events.md); stores the step's checkpoint or graph; sends
.phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 422 if the step cannot be done, 503 to
be asked again.
"""

import os
from collections.abc import Callable

import functions_framework
from flask import Request, Response
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.http import takes_events
from hepfaas.platform.outside import sender, store_of_owner
from hepfaas.platform.settings import Settings
from hepfaas.service.stepping import Stepping, Tools
from hepfaas.steps.learning import Learners

SETTINGS = Settings.from_environ(os.environ)


def made() -> Callable[[CloudEvent], None]:
    lines: list[str] = []
    learners = Learners(lines.append)
    tools: Tools = {"train": {"learners": learners, "on_rows": lambda rows: None}, "export": {"learners": learners}}
    stores, broker = store_of_owner(SETTINGS), sender(SETTINGS)
    return Stepping("train", stores, broker, SETTINGS.budget_s, tools, lines).handle


ANSWER = takes_events("train", made)


@functions_framework.http
def train(request: Request) -> Response:
    return ANSWER(request)
