"""publish: publish and register steps: a model version.

Takes a CloudEvent org.hepfaas.{publish,register}.requested (docs/reference/events.md); stores the step's result and the
sums that are complete with it; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 403
to an event without a valid signature, 422 if the step cannot be done, 503 to get the event again.
"""

import os

import functions_framework
from flask import Request, Response
from hepfaas.orchestration.stepping import step_function
from hepfaas.platform.settings import Settings

ANSWER = step_function("publish", Settings.from_environ(os.environ))


@functions_framework.http
def publish(request: Request) -> Response:
    return ANSWER(request)
