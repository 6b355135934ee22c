"""score: score steps: the graph on held-back rows.

Takes a CloudEvent org.hepfaas.score.requested (docs/reference/events.md); stores the step's result and the sums that
are complete with it; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 403 to an
event without a valid signature, 422 if the step cannot be done, 503 to get the event again.
"""

import os

import functions_framework
from flask import Request, Response
from hepfaas.models.inference import Inference
from hepfaas.orchestration.stepping import step_function
from hepfaas.platform.settings import Settings
from hepfaas.sandbox import confinement
from hepfaas.sandbox.processes import fork_server

SETTINGS = Settings.from_environ(os.environ)
confinement.check(SETTINGS.learner_without_landlock)
fork_server().start("hepfaas.models.inference_worker")
TOOLS = {"score": {"inference": Inference(SETTINGS.worker_memory)}}
ANSWER = step_function("score", SETTINGS, TOOLS)


@functions_framework.http
def score(request: Request) -> Response:
    return ANSWER(request)
