"""evaluate: evaluate steps: metrics, curves and plots.

Takes a CloudEvent org.hepfaas.evaluate.requested (docs/reference/events.md); stores the step's result and the sums that
are complete with it; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 403 to an
event without a valid signature, 422 if the step cannot be done, 503 to get the event again.
"""

import os

import functions_framework
from flask import Request, Response
from hepfaas.orchestration.stepping import step_function
from hepfaas.platform.settings import Settings

ANSWER = step_function("evaluate", Settings.from_environ(os.environ))


@functions_framework.http
def evaluate(request: Request) -> Response:
    return ANSWER(request)
