"""The ASGI app of `predict`: routes, errors as statuses, a log line and metrics for each request."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from werkzeug.exceptions import MethodNotAllowed, NotFound

from hepfaas.errors import ForbiddenError, public_text
from hepfaas.models.batching import OverloadedError
from hepfaas.platform.browsers import PROTECTION, Browsers, protect
from hepfaas.platform.identity import Caller, Identity, IdentityHeaders
from hepfaas.platform.memory import release_free_memory
from hepfaas.platform.routes import Route, Router, openapi
from hepfaas.platform.settings import Settings
from hepfaas.platform.statuses import FAULT, status_of
from hepfaas.platform.terminal import fault_line
from hepfaas.serving import api, open_inference, tfaas, viewer
from hepfaas.serving.context import Context, Instance, ModelServer
from hepfaas.serving.observing import Log, Metrics
from hepfaas.serving.responses import JsonResponse, error_response, json_response

CROWD = 100
"""After this many concurrent requests, free memory is returned to the system once fewer than a quarter remain."""

SETTLE_S = 1.0
"""Delay before memory is returned, in case the crowd comes back."""

SENT_BYTES = 65_536
"""Size of the pieces in which a long response is sent."""

MOST_PATH = 300
"""Characters of a path in the log, which caches the beginnings of its lines."""


async def upload(context: Context) -> Response:
    """Upload a model that was made elsewhere."""
    from hepfaas.serving import uploads  # it starts runs: only where a model is uploaded

    return await uploads.upload(context)


async def show_openapi(context: Context) -> Response:
    """Return this document."""
    return json_response(openapi("hepfaas predict", ROUTES))


ROUTES = (
    Route("POST", "/json", tfaas.row),
    Route("POST", "/predict/json", tfaas.row),
    Route("POST", "/proto", tfaas.protobuf),
    Route("POST", "/predict/proto", tfaas.protobuf),
    Route("POST", "/image", tfaas.image),
    Route("POST", "/predict/image", tfaas.image),
    Route("POST", "/upload", upload),
    Route("POST", "/bundle", upload),
    Route("GET", "/models", tfaas.models),
    Route("GET", "/status", tfaas.status),
    Route("GET", "/params/<model>", tfaas.params),
    Route("POST", "/params", tfaas.set_params, is_for_publishers=True),
    Route("DELETE", "/delete", tfaas.delete, is_for_publishers=True),
    Route("DELETE", "/delete/<model>", tfaas.delete, is_for_publishers=True),
    Route("GET", "/", viewer.index),
    Route("GET", "/netron", viewer.with_slash),
    Route("GET", "/netron/", viewer.graphs),
    Route("GET", "/netron/<model>", viewer.with_slash),
    Route("GET", "/netron/<model>/", viewer.graph),
    Route("GET", "/netron/<model>/<file>", viewer.netron_file),
    Route("GET", "/download/<model>", viewer.with_slash),
    Route("GET", "/download/<model>/", viewer.files),
    Route("GET", "/download/<model>/<file>", viewer.download),
    Route("GET", "/data", viewer.data),
    Route("GET", "/v2", open_inference.server),
    Route("GET", "/v2/health/live", open_inference.live, is_public=True),
    Route("GET", "/v2/health/ready", open_inference.ready, is_public=True),
    Route("GET", "/v2/models/<name>", open_inference.metadata),
    Route("GET", "/v2/models/<name>/versions/<number>", open_inference.metadata),
    Route("GET", "/v2/models/<name>/ready", open_inference.model_ready),
    Route("GET", "/v2/models/<name>/versions/<number>/ready", open_inference.model_ready),
    Route("POST", "/v2/models/<name>/infer", open_inference.infer),
    Route("POST", "/v2/models/<name>/versions/<number>/infer", open_inference.infer),
    Route("POST", "/v1/models/<name>/predict", api.predict),
    Route("POST", "/v1/models/<name>/versions/<number>/predict", api.predict),
    Route("DELETE", "/v1/models/<name>/versions/<number>", api.delete_version, is_for_publishers=True),
    Route("GET", "/v1/models/<name>/aliases", api.list_aliases),
    Route("PUT", "/v1/models/<name>/aliases/<alias>", api.put_alias, is_for_publishers=True),
    Route("DELETE", "/v1/models/<name>/aliases/<alias>", api.delete_alias, is_for_publishers=True),
    Route("GET", "/v1/runs/<run>", api.run_status),
    Route("GET", "/v1/runs/<run>/scores", api.run_scores),
    Route("GET", "/v1/runs/<run>/ledger", api.run_ledger),
    Route("GET", "/openapi.json", show_openapi),
)

PROBES = ("/v2/health/live", "/v2/health/ready")
"""Paths of probes, without the base path that all others have."""

GATEWAYS = (b"x-forwarded-for", b"forwarded")
"""Headers of requests that came through a gateway. Prometheus reads metrics from each instance directly."""


class PredictApp:
    """Answers requests of all owners. The instance, which opens the store, is made with the first request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._router = Router(ROUTES, merge_slashes=False)
        self._match = functools.lru_cache(maxsize=1_000)(self._matched)
        self._instance: Instance | None = None
        self._identity = Identity(settings, settings.predict_rate)
        self._browsers = Browsers(settings)
        self._metrics = Metrics()
        self._under_way = self._most_under_way = 0
        self._settling = False
        self._log = Log("predict", ("method", "path", "status"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A long response counts in the memory budget until the client has received it."""
        request = Request(scope, receive, send)
        try:
            response = await self._answered(request)
            is_long = self._instance and self._instance.memory.size_of(request)
            await response(scope, receive, _in_pieces(send) if is_long else send)
        finally:
            self._release(request)

    async def answer(self, request: Request) -> Response:
        """Return the response to a request, also if it fails."""
        try:
            return await self._answered(request)
        finally:
            self._release(request)

    def _release(self, request: Request) -> None:
        if self._instance:
            self._instance.memory.release(request)

    async def _answered(self, request: Request) -> Response:
        began = time.perf_counter()
        path, method = request.scope["path"], request.scope["method"]
        if path == "/healthz":
            return Response(status_code=204, headers=PROTECTION)
        headers = request.scope["headers"]
        call, response, outcome = "", None, ""
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)
        try:
            self._browsers.check(method, headers)
            if path == "/metrics" and not any(name in GATEWAYS for name, _ in headers):
                return Response(self._metrics.text(), 200, PROTECTION, "text/plain; version=0.0.4")
            if self._under_way > self._settings.predict_requests:
                raise OverloadedError(f"{self._under_way - 1} requests are under way already; ask again in a second")
            route, values = self._match(method, path)
            call = route.call.__name__
            caller, server = await self._server(route, request)
            server.instance.answered[method] += 1
            response = await route.call(Context(request, server, caller), **values)
        except Exception as error:
            response, outcome = failure(error, path)
        finally:
            self._under_way -= 1
        if self._most_under_way >= CROWD and not self._settling and self._is_quiet():
            self._settling = True
            asyncio.get_running_loop().call_later(SETTLE_S, self._settle)
        if type(response) is not JsonResponse:  # OneWrite adds them to those
            protect(response.raw_headers)
        seconds = time.perf_counter() - began
        self._metrics.count(call, response.status_code, seconds)
        self._log.line((method, path[:MOST_PATH], response.status_code), seconds, outcome)
        return response

    def _is_quiet(self) -> bool:
        return self._under_way < CROWD // 4

    def _settle(self) -> None:
        """Return free memory to the system, unless the crowd has come back."""
        self._settling = False
        if self._is_quiet():
            self._most_under_way = 0
            asyncio.get_running_loop().run_in_executor(None, release_free_memory)

    def _matched(self, method: str, path: str) -> tuple[Route, Mapping[str, Any]]:
        base = self._settings.predict_base
        if not path.startswith(f"{base}/") and path not in PROBES:
            raise NotFound()
        return self._router.match(method, path.removeprefix(base))

    async def _server(self, route: Route, request: Request) -> tuple[Caller | None, ModelServer]:
        """Return the caller, None for a public route, and the server of their owner's models.

        Raises: UnauthenticatedError; ForbiddenError; LimitError; UnavailableError.
        """
        instance = self._instance or self._start()
        if route.is_public:
            return None, instance.base
        presented = IdentityHeaders.from_pairs(request.scope["headers"]) if self._identity.is_on else None
        caller, server = instance.known_server(presented) or await instance.server(presented)
        if caller.visits or not caller.is_publisher:
            _check_may_call(caller, route)
        return caller, server

    def _start(self) -> Instance:
        self._instance = Instance(self._settings, self._identity)
        self._metrics.watch(self._instance)
        gc.collect()
        gc.freeze()  # objects made so far stay: later collections skip them
        gc.set_threshold(20_000, 20, 20)
        return self._instance


def _in_pieces(send: Send) -> Send:
    """Return a `send` that waits while the client does not read. A body sent at once would be buffered as a whole."""

    async def send_pieces(message: Message) -> None:
        body = memoryview(message.get("body", b""))
        last = max(0, len(body) - 1) // SENT_BYTES * SENT_BYTES
        for start in range(0, last, SENT_BYTES):
            await send({**message, "body": bytes(body[start : start + SENT_BYTES]), "more_body": True})
        await send({**message, "body": bytes(body[last:])} if last else message)

    return send_pieces


def _check_may_call(caller: Caller, route: Route) -> None:
    """Raises: ForbiddenError."""
    if caller.visits and not route.is_for_visitors:
        raise ForbiddenError("an admin may only see the models of another owner")
    if route.is_for_publishers and not caller.is_publisher:
        raise ForbiddenError("only a publisher may move an alias, set a default or delete a version")


def failure(error: Exception, path: str) -> tuple[Response, str]:
    """Return the response to a request that failed, and the text for the log."""
    text = str(error)
    match error:
        case NotFound():
            text = f"there is no '{path[:200]}'; docs/reference/predict.md lists the paths"
            return error_response(text, 404), text
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return error_response(f"{path[:200]} takes {allowed}", 405, {"Allow": allowed}), "method"
        case ClientDisconnect():
            return Response(status_code=499), "the client has gone"
    if known := status_of(error):
        status, headers = known
        status = 400 if status == 422 and path.startswith("/v2/") else status
        return error_response(public_text(error), status, headers), text
    sys.stderr.write(f"{fault_line(error)}\n")
    return error_response(FAULT, 500), repr(error)
