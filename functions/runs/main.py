"""runs: the HTTP API of runs and models: submit, list, follow, cancel, retry, report, model, ledger, scores,
credentials; and the nine calls of MLaaS4HEP_server. GET /openapi.json describes them all.

Takes JSON, forms and tar.gz, and a bearer token (docs/reference/identity.md); sends org.hepfaas.run.submitted
(docs/reference/events.md). Answers 2xx, 401, 403, 404 if it does not exist or belongs to another owner, 405, 422 if the
request must change, 429 and 503 to try again.
"""

import functools
import os

import functions_framework
from flask import Request, Response
from hepfaas.api.calls import answer
from hepfaas.api.context import Context
from hepfaas.datasets.reading import Readings
from hepfaas.platform.arrivals import Arrivals
from hepfaas.platform.backends import check_store, root_store, sender, store_of_owner
from hepfaas.platform.browsers import Browsers
from hepfaas.platform.http import answers, raw_headers
from hepfaas.platform.identity import Identity, IdentityHeaders, Quotas
from hepfaas.platform.memory import use_one_arena
from hepfaas.platform.settings import Settings
from hepfaas.platform.spool import Spool

use_one_arena()  # for threads that start from here on: each would keep the memory of its largest body
SETTINGS = Settings.from_environ(os.environ)

BROWSERS = Browsers(SETTINGS)
IDENTITY = Identity(SETTINGS)
READINGS = Readings.from_settings(SETTINGS)
SPOOL = Spool(SETTINGS.spool_bytes)
ARRIVALS = Arrivals()

outside = functools.cache(lambda: (root_store(SETTINGS), store_of_owner(SETTINGS), sender(SETTINGS)))
quotas = functools.cache(lambda: Quotas(IDENTITY.roles, outside()[0]))


@functions_framework.http
@answers("runs")
def runs(request: Request) -> Response:
    BROWSERS.check(request.method, raw_headers(request))
    caller = IDENTITY.admitted(IdentityHeaders.from_headers(request.headers.get))
    if request.method not in ("GET", "HEAD"):
        check_store(SETTINGS)
    root, stores, broker = outside()
    context = Context(
        request=request,
        root=root,
        store=stores(caller.owner),
        sender=broker,
        caller=caller,
        quotas=quotas(),
        readings=READINGS,
        allow_private=SETTINGS.allow_private,
        most_upload_bytes=SETTINGS.most_upload_bytes,
        spool=SPOOL,
    )
    with ARRIVALS.body(request, caller.owner):
        return answer(context)
