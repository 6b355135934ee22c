"""predict: scores of published models, by HTTP: TFaaS's calls, the Open Inference Protocol, raw events, ROOT files.

docs/predict.md has every call; they take a bearer token (docs/identity.md). Long predictions and uploaded models become
runs: sends org.hepfaas.run.requested (docs/events.md). Answers 2xx; 401; 403; 404 for what is not there or another
owner's; 413, 422 (400 under /v2) if the request must change; 429 and 503 to ask again.
"""

import os

import functions_framework.aio
from hepfaas.platform.memory import share_one_arena
from hepfaas.platform.settings import Settings
from hepfaas.service.connection import straight_to
from hepfaas.service.predict_app import PredictApp
from starlette.requests import Request
from starlette.responses import Response
from uvicorn_worker import UvicornWorker

share_one_arena()  # of the threads that start from here on
KEEP_ALIVE_S = 100 if "K_SERVICE" in os.environ else 5
"""Longer than queue-proxy keeps idle connections (90 s, by Go's net/http.DefaultTransport): it would send into one that
just closes. Elsewhere idle clients must not keep others out."""

SETTINGS = Settings.from_environ(os.environ)
APP = PredictApp(SETTINGS)
UvicornWorker.CONFIG_KWARGS |= {
    "http": straight_to(APP, 2 * SETTINGS.predict_requests),
    "loop": "hepfaas.service.connection:Loop",
    "server_header": False,
    "timeout_keep_alive": KEEP_ALIVE_S,
}


@functions_framework.aio.http
async def predict(request: Request) -> Response:
    return await APP.answer(request)
