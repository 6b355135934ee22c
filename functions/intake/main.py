"""intake: news of files from outside -> runs, by the rules of their owner.

Takes PUT, GET, DELETE /v1/rules/{name}, notifications of S3 servers at POST /v1/notifications, and CloudEvents that
tell of a file, or dev.knative.sources.ping, at POST /; sends org.hepfaas.run.submitted (docs/events.md). Answers 2xx,
404, 422 if the request must change, 503 to ask again.
"""

import functools
import os

import functions_framework
from flask import Request, Response
from hepfaas.platform.http import answers
from hepfaas.platform.outside import root_store, sender, store_of_owner
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store
from hepfaas.service import intake_api
from hepfaas.service.intake import Intake

SETTINGS = Settings.from_environ(os.environ)


@functools.cache
def outside() -> tuple[Intake, Store]:
    stores = store_of_owner(SETTINGS)
    taking = Intake(root_store(SETTINGS), stores, sender(SETTINGS), SETTINGS.allow_private)
    return taking, stores(SETTINGS.owner)


@functions_framework.http
@answers("intake")
def intake(request: Request) -> Response:
    taking, store = outside()
    return intake_api.answer(intake_api.Asked(request, taking, store, SETTINGS.owner))
