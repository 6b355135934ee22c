"""intake: notifications of new files -> runs, by the rules of their owner.

Takes PUT, GET, DELETE /v1/rules/{name}, notifications of S3 servers at POST /v1/notifications, and CloudEvents about a
file, or dev.knative.sources.ping, at POST /; all but the ping with a bearer token (docs/reference/identity.md); sends
org.hepfaas.run.submitted (docs/reference/events.md). Answers 2xx, 401, 403, 404, 422 if the request must change, 429
and 503 to try again.
"""

import functools
import os

import functions_framework
from flask import Request, Response
from hepfaas.api import intake as intake_api
from hepfaas.datasets.reading import Readings
from hepfaas.orchestration.intake import Intake
from hepfaas.platform.arrivals import Arrivals
from hepfaas.platform.backends import check_store, root_store, sender, store_of_owner
from hepfaas.platform.browsers import Browsers
from hepfaas.platform.http import answers, raw_headers
from hepfaas.platform.identity import Identity, IdentityHeaders, Quotas
from hepfaas.platform.settings import Settings

SETTINGS = Settings.from_environ(os.environ)

BROWSERS = Browsers(SETTINGS)
IDENTITY = Identity(SETTINGS)
ARRIVALS = Arrivals()
SOURCES = Readings.from_settings(SETTINGS).sources


@functools.cache
def taking() -> Intake:
    check_store(SETTINGS)
    root = root_store(SETTINGS)
    quotas = Quotas(IDENTITY.roles, root)
    return Intake(
        root, store_of_owner(SETTINGS), sender(SETTINGS), SETTINGS.allow_private, quotas=quotas, sources=SOURCES
    )


@functions_framework.http
@answers("intake")
def intake(request: Request) -> Response:
    BROWSERS.check(request.method, raw_headers(request))
    return intake_api.answer(request, IDENTITY, IdentityHeaders.from_headers(request.headers.get), taking(), ARRIVALS)
