"""predict as a whole: which call answers which request, failures as statuses, one log line and the metrics of each."""

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
from hepfaas.platform.identity import Caller, Identity, Presented
from hepfaas.platform.memory import hand_back
from hepfaas.platform.routes import Route, Router, openapi
from hepfaas.platform.settings import Settings
from hepfaas.platform.statuses import FAULT, status_of
from hepfaas.platform.terminal import fault_line
from hepfaas.serving import api as predict_api
from hepfaas.serving import open_inference, tfaas, viewer
from hepfaas.serving.observing import Log, Metrics
from hepfaas.serving.predicting import Context, JsonResponse, Serving, Servings, error_response, json_response

CROWD = 100
"""So many requests at once leave much memory behind. It is handed back when less than a quarter of them are under way,
and still are a moment later."""

SETTLE_S = 1.0

SENT_BYTES = 65_536
"""Of a long answer at a time."""

MOST_PATH = 300
"""Characters of a path in the log, which remembers lines."""


async def upload(context: Context) -> Response:
    """A model that was made elsewhere."""
    from hepfaas.serving import uploads  # what begins runs: only where a model is uploaded

    return await uploads.upload(context)


async def show_openapi(context: Context) -> Response:
    """This document."""
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
    Route("POST", "/v1/models/<name>/predict", predict_api.predict),
    Route("POST", "/v1/models/<name>/versions/<number>/predict", predict_api.predict),
    Route("DELETE", "/v1/models/<name>/versions/<number>", predict_api.delete_version, is_for_publishers=True),
    Route("GET", "/v1/models/<name>/aliases", predict_api.list_aliases),
    Route("PUT", "/v1/models/<name>/aliases/<alias>", predict_api.put_alias, is_for_publishers=True),
    Route("DELETE", "/v1/models/<name>/aliases/<alias>", predict_api.delete_alias, is_for_publishers=True),
    Route("GET", "/v1/runs/<run>", predict_api.run_status),
    Route("GET", "/v1/runs/<run>/scores", predict_api.run_scores),
    Route("GET", "/v1/runs/<run>/ledger", predict_api.run_ledger),
    Route("GET", "/openapi.json", show_openapi),
)

PROBES = ("/v2/health/live", "/v2/health/ready")
"""Where probes ask, whatever stands before all other paths."""

GATEWAYS = (b"x-forwarded-for", b"forwarded")
"""What says that a request came from outside: Prometheus asks an instance itself."""


class PredictApp:
    """Answers requests of all owners. It reaches out at the first one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._router = Router(ROUTES, merge_slashes=False)
        self._match = functools.lru_cache(maxsize=1_000)(self._matched)
        self._servings: Servings | None = None
        self._identity = Identity(settings, settings.predict_rate)
        self._browsers = Browsers(settings)
        self._metrics = Metrics()
        self._under_way = self._most_under_way = 0
        self._settling = False
        self._log = Log("predict", ("method", "path", "status"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it. A long answer is held until the client has taken it."""
        request = Request(scope, receive, send)
        try:
            response = await self._answered(request)
            is_long = self._servings and self._servings.base.held.size_of(request)
            await response(scope, receive, _in_pieces(send) if is_long else send)
        finally:
            self._release(request)

    async def answer(self, request: Request) -> Response:
        """The answer, whatever happens."""
        try:
            return await self._answered(request)
        finally:
            self._release(request)

    def _release(self, request: Request) -> None:
        if self._servings:
            self._servings.base.held.release(request)

    async def _answered(self, request: Request) -> Response:
        began = time.perf_counter()
        path, method = request.scope["path"], request.scope["method"]
        if path == "/healthz":
            return Response(status_code=204, headers=PROTECTION)
        headers = request.scope["headers"]
        call, response, said = "", None, ""
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
            caller, serving = await self._serving(route, request)
            serving.answered[method] += 1
            response = await route.call(Context(request, serving, caller), **values)
        except Exception as error:
            response, said = _refused(error, path)
        finally:
            self._under_way -= 1
        if self._most_under_way >= CROWD and not self._settling and self._is_quiet():
            self._settling = True
            asyncio.get_running_loop().call_later(SETTLE_S, self._settle)
        if type(response) is not JsonResponse:  # OneWrite adds them there
            protect(response.raw_headers)
        seconds = time.perf_counter() - began
        self._metrics.seen(call, response.status_code, seconds)
        self._log.line((method, path[:MOST_PATH], response.status_code), seconds, said)
        return response

    def _is_quiet(self) -> bool:
        return self._under_way < CROWD // 4

    def _settle(self) -> None:
        """Hands back what a crowd has left, unless it has come again: then at its next end."""
        self._settling = False
        if self._is_quiet():
            self._most_under_way = 0
            asyncio.get_running_loop().run_in_executor(None, hand_back)

    def _matched(self, method: str, path: str) -> tuple[Route, Mapping[str, Any]]:
        base = self._settings.predict_base
        if not path.startswith(f"{base}/") and path not in PROBES:
            raise NotFound()
        return self._router.match(method, path.removeprefix(base))

    async def _serving(self, route: Route, request: Request) -> tuple[Caller | None, Serving]:
        """Who asks, where that is looked at, and what answers.

        Raises: UnauthenticatedError; ForbiddenError; LimitError; UnavailableError.
        """
        servings = self._made()
        if route.is_public:
            return None, servings.base
        presented = Presented.in_pairs(request.scope["headers"]) if self._identity.is_on else None
        caller, serving = servings.known(presented) or await servings.of(presented)
        if caller.visits or not caller.is_publisher:
            _check_may(caller, route)
        return caller, serving

    def _made(self) -> Servings:
        if self._servings is None:
            self._servings = Servings(self._settings, self._identity)
            self._metrics.watch(self._servings.base)
            gc.collect()
            gc.freeze()  # what is there now stays: it is not looked at again
            gc.set_threshold(20_000, 20, 20)
        return self._servings


def _in_pieces(send: Send) -> Send:
    """Return a `send` that waits while the client does not read: what is sent at once is buffered as a whole."""

    async def sent(message: Message) -> None:
        body = memoryview(message.get("body", b""))
        last = max(0, len(body) - 1) // SENT_BYTES * SENT_BYTES
        for start in range(0, last, SENT_BYTES):
            await send({**message, "body": bytes(body[start : start + SENT_BYTES]), "more_body": True})
        await send({**message, "body": bytes(body[last:])} if last else message)

    return sent


def _check_may(caller: Caller, route: Route) -> None:
    """Raises: ForbiddenError."""
    if caller.visits and not route.is_for_visitors:
        raise ForbiddenError("an admin may see another's models, no more")
    if route.is_for_publishers and not caller.is_publisher:
        raise ForbiddenError("only a publisher may move an alias, set a default or delete a version")


def _refused(error: Exception, path: str) -> tuple[Response, str]:
    """What went wrong as an answer, and as words for the log."""
    said = str(error)
    match error:
        case NotFound():
            said = f"there is no '{path[:200]}'; docs/reference/predict.md tells what there is"
            return error_response(said, 404), said
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return error_response(f"{path[:200]} takes {allowed}", 405, {"Allow": allowed}), "method"
        case ClientDisconnect():
            return Response(status_code=499), "the client has gone"
    if found := status_of(error):
        status, headers = found
        status = 400 if status == 422 and path.startswith("/v2/") else status
        return error_response(public_text(error), status, headers), said
    sys.stderr.write(f"{fault_line(error)}\n")
    return error_response(FAULT, 500), repr(error)
