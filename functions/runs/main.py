"""runs: what people ask of runs and models by HTTPS: submit, list, follow, cancel, retry, report, model, ledger,
scores, credentials; and the nine calls of MLaaS4HEP_server. GET /openapi.json describes them all.

Takes JSON, forms and tar.gz, and a bearer token (docs/reference/identity.md); sends org.hepfaas.run.submitted
(docs/reference/events.md). Answers 2xx, 401, 403, 404 for what is not there or another owner's, 405, 422 if the request
must change, 429 and 503 to ask again.
"""

import functools
import os

import functions_framework
from flask import Request, Response
from hepfaas.api.calls import answer
from hepfaas.api.context import Context
from hepfaas.datasets.readings import Readings
from hepfaas.platform.arrivals import Arrivals
from hepfaas.platform.browsers import Browsers
from hepfaas.platform.http import answers, raw_headers
from hepfaas.platform.identity import Identity, Presented, Quotas
from hepfaas.platform.memory import share_one_arena
from hepfaas.platform.outside import check_store, root_store, sender, store_of_owner
from hepfaas.platform.settings import Settings
from hepfaas.platform.spool import Spool

share_one_arena()  # of the threads that start from here on: each would keep what its largest body took
SETTINGS = Settings.from_environ(os.environ)

BROWSERS = Browsers(SETTINGS)
IDENTITY = Identity(SETTINGS)
READINGS = Readings.by(SETTINGS)
SPOOL = Spool(SETTINGS.spool_bytes)
ARRIVALS = Arrivals()

outside = functools.cache(lambda: (root_store(SETTINGS), store_of_owner(SETTINGS), sender(SETTINGS)))
quotas = functools.cache(lambda: Quotas(SETTINGS, IDENTITY.roles, outside()[0]))


@functions_framework.http
@answers("runs")
def runs(request: Request) -> Response:
    BROWSERS.check(request.method, raw_headers(request))
    caller = IDENTITY.admitted(Presented.by(request.headers.get))
    if request.method not in ("GET", "HEAD"):
        check_store(SETTINGS)
    root, stores, broker = outside()
    context = Context(
        request, root, stores(caller.owner), broker, caller, quotas(),
        READINGS, SETTINGS.allow_private, SETTINGS.most_upload_bytes, SPOOL,
    )  # fmt: skip
    with ARRIVALS.body(request, caller.owner):
        return answer(context)
