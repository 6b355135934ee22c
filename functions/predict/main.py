"""predict: scores of published models, by HTTP: TFaaS's calls, the Open Inference Protocol, raw events, ROOT files.

docs/reference/predict.md has every call; they take a bearer token (docs/reference/identity.md). Long predictions and
uploaded models become runs: sends org.hepfaas.run.requested (docs/reference/events.md). Answers 2xx; 401; 403; 404 if
it does not exist or belongs to another owner; 413, 422 (400 under /v2) if the request must change; 429 and 503 to try
again.
"""

import os

from hepfaas.sandbox import confinement
from hepfaas.sandbox.processes import fork_server

fork_server().start("hepfaas.models.inference_worker")  # it imports LiteRT while this process imports the rest

import functions_framework.aio  # noqa: E402
from hepfaas.platform.memory import use_one_arena  # noqa: E402
from hepfaas.platform.settings import Settings  # noqa: E402
from hepfaas.serving.app import PredictApp  # noqa: E402
from hepfaas.serving.connection import protocol_for  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from uvicorn_worker import UvicornWorker  # noqa: E402

use_one_arena()  # for threads that start from here on
SETTINGS = Settings.from_environ(os.environ)
KEEP_ALIVE_S = 100 if SETTINGS.on_knative else 5
"""Longer than queue-proxy keeps idle connections (90 s, Go's net/http.DefaultTransport), which could else send into a
closing connection. Elsewhere idle clients must not keep others out."""

confinement.check(SETTINGS.learner_without_landlock)
APP = PredictApp(SETTINGS)
UvicornWorker.CONFIG_KWARGS |= {
    "http": protocol_for(APP, 2 * SETTINGS.predict_requests),
    "loop": "hepfaas.serving.connection:ManyListenersLoop",
    "server_header": False,
    "timeout_keep_alive": KEEP_ALIVE_S,
}


@functions_framework.aio.http
async def predict(request: Request) -> Response:
    return await APP.answer(request)
