"""train: train steps, one after the other while the budget lasts, and export steps. TensorFlow runs in a child process.

Takes a CloudEvent org.hepfaas.{train,export}.requested (docs/events.md); stores the step's checkpoint or graph; sends
.phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 422 if the step cannot be done, 503 to
be asked again.
"""

import os

import functions_framework
from flask import Request, Response
from hepfaas.platform.settings import Settings
from hepfaas.service.stepping import Tools, step_function
from hepfaas.steps.learning import Learners

SETTINGS = Settings.from_environ(os.environ)
LINES: list[str] = []
LEARNERS = Learners(LINES.append)
TOOLS: Tools = {"train": {"learners": LEARNERS, "on_rows": lambda rows: None}, "export": {"learners": LEARNERS}}
ANSWER = step_function("train", SETTINGS, TOOLS, LINES)


@functions_framework.http
def train(request: Request) -> Response:
    return ANSWER(request)
