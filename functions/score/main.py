"""score: score steps: the graph on held-back rows.

Takes a CloudEvent org.hepfaas.score.requested (docs/events.md); stores the step's result and the sums that
are complete with it; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 422 if the
step cannot be done, 503 to be asked again.
"""

import os
from collections.abc import Callable

import functions_framework
from flask import Request, Response
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.http import takes_events
from hepfaas.platform.outside import sender, store_of_owner
from hepfaas.platform.settings import Settings
from hepfaas.service.stepping import Stepping

SETTINGS = Settings.from_environ(os.environ)


def made() -> Callable[[CloudEvent], None]:
    return Stepping("score", store_of_owner(SETTINGS), sender(SETTINGS), SETTINGS.budget_s).handle


ANSWER = takes_events("score", made)


@functions_framework.http
def score(request: Request) -> Response:
    return ANSWER(request)
