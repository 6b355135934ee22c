"""prepare: prepare steps: the matrix of an entry range.

Takes a CloudEvent org.hepfaas.prepare.requested (docs/reference/events.md); stores the step's result and the sums that
are complete with it; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 403 to an
event without a valid signature, 422 if the step cannot be done, 503 to get the event again.
"""

import os

import functions_framework
from flask import Request, Response
from hepfaas.orchestration.stepping import step_function
from hepfaas.platform.settings import Settings
from hepfaas.sandbox import confinement
from hepfaas.sandbox.processes import fork_server

fork_server().start("hepfaas.datasets.root_worker")  # it imports uproot while this process imports the rest
SETTINGS = Settings.from_environ(os.environ)
confinement.check(SETTINGS.learner_without_landlock)
ANSWER = step_function("prepare", SETTINGS)


@functions_framework.http
def prepare(request: Request) -> Response:
    return ANSWER(request)
