"""score: score and examine steps: the graph on held-back rows, and on a sample of them with permuted branches.

Takes a CloudEvent org.hepfaas.{score,examine}.requested (docs/reference/events.md); stores the step's result and the
sums that are complete with it; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 403
to an event without a valid signature, 422 if the step cannot be done, 503 to get the event again.
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
TOOL = {"inference": Inference(SETTINGS.worker_memory)}
TOOLS = {"score": TOOL, "examine": TOOL}
ANSWER = step_function("score", SETTINGS, TOOLS)


@functions_framework.http
def score(request: Request) -> Response:
    return ANSWER(request)
