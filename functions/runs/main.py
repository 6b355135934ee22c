"""runs: what people ask of runs and models by HTTPS: submit, list, follow, cancel, retry, report, model, ledger; and
the nine calls of MLaaS4HEP_server. GET /openapi.json describes them all.

Takes JSON, forms and tar.gz; sends org.hepfaas.run.submitted (docs/events.md). Answers 2xx, 404 for what is not there
or another owner's, 405, 422 if the request must change, 503 to ask again.
"""

import functools
import os

import functions_framework
from flask import Request, Response
from hepfaas.platform.http import answers
from hepfaas.platform.outside import root_store, sender, store_of_owner
from hepfaas.platform.settings import Settings
from hepfaas.service import api, old_api, openapi
from hepfaas.service.api import Asked, Routes

SETTINGS = Settings.from_environ(os.environ)
ROUTES = Routes((*api.ROUTES, *old_api.ROUTES, *openapi.ROUTES))

outside = functools.cache(lambda: (root_store(SETTINGS), store_of_owner(SETTINGS), sender(SETTINGS)))


@functions_framework.http
@answers("runs")
def runs(request: Request) -> Response:
    root, stores, broker = outside()
    owner = SETTINGS.owner
    asked = Asked(request, root, stores(owner), broker, owner, SETTINGS.allow_private, SETTINGS.most_upload_bytes)
    return ROUTES.answer(asked)
