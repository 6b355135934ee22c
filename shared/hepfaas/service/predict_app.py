"""predict as a whole: which call answers which request, failures as statuses, one log line and the metrics of each."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from hepfaas.errors import (
    ForbiddenError,
    LimitError,
    NotThereError,
    RequestError,
    UnauthenticatedError,
    UnavailableError,
)
from hepfaas.models.batching import OverloadedError
from hepfaas.platform.identity import CHALLENGE, Caller, Identity, Presented
from hepfaas.platform.settings import Settings
from hepfaas.service import open_inference, predict_api, tfaas, viewer
from hepfaas.service.predicting import Asked, Serving, Servings, TooLargeError, json_response

LOG_S = 0.2
"""Lines of the log wait so long to be written together."""

RETRY_AFTER = {"Retry-After": "1"}
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Call = Callable[..., Any]


async def upload(asked: Asked) -> Response:
    """A model that was made elsewhere."""
    from hepfaas.service import foreign  # what begins runs: only where a model is uploaded

    return await foreign.upload(asked)


ROUTES: tuple[tuple[str, str, Call], ...] = (
    ("POST", "/json", tfaas.row),
    ("POST", "/predict/json", tfaas.row),
    ("POST", "/proto", tfaas.protobuf),
    ("POST", "/predict/proto", tfaas.protobuf),
    ("POST", "/image", tfaas.image),
    ("POST", "/predict/image", tfaas.image),
    ("POST", "/upload", upload),
    ("POST", "/bundle", upload),
    ("GET", "/models", tfaas.models),
    ("GET", "/status", tfaas.status),
    ("GET", "/params/<model>", tfaas.params),
    ("POST", "/params", tfaas.set_params),
    ("DELETE", "/delete", tfaas.delete),
    ("DELETE", "/delete/<model>", tfaas.delete),
    ("GET", "/", viewer.index),
    ("GET", "/netron", viewer.with_slash),
    ("GET", "/netron/", viewer.graphs),
    ("GET", "/netron/<model>", viewer.with_slash),
    ("GET", "/netron/<model>/", viewer.graph),
    ("GET", "/netron/<model>/<file>", viewer.netron_file),
    ("GET", "/download/<model>", viewer.with_slash),
    ("GET", "/download/<model>/", viewer.files),
    ("GET", "/download/<model>/<file>", viewer.download),
    ("GET", "/data", viewer.data),
    ("GET", "/v2", open_inference.server),
    ("GET", "/v2/health/live", open_inference.live),
    ("GET", "/v2/health/ready", open_inference.ready),
    ("GET", "/v2/models/<name>", open_inference.metadata),
    ("GET", "/v2/models/<name>/versions/<number>", open_inference.metadata),
    ("GET", "/v2/models/<name>/ready", open_inference.model_ready),
    ("GET", "/v2/models/<name>/versions/<number>/ready", open_inference.model_ready),
    ("POST", "/v2/models/<name>/infer", open_inference.infer),
    ("POST", "/v2/models/<name>/versions/<number>/infer", open_inference.infer),
    ("POST", "/v1/models/<name>/predict", predict_api.predict),
    ("POST", "/v1/models/<name>/versions/<number>/predict", predict_api.predict),
    ("DELETE", "/v1/models/<name>/versions/<number>", predict_api.delete_version),
    ("GET", "/v1/models/<name>/aliases", predict_api.list_aliases),
    ("PUT", "/v1/models/<name>/aliases/<alias>", predict_api.put_alias),
    ("DELETE", "/v1/models/<name>/aliases/<alias>", predict_api.delete_alias),
)

OPEN = frozenset({open_inference.live, open_inference.ready})
"""What anybody may ask: probes have no token."""

PUBLISHING = frozenset(
    {predict_api.put_alias, predict_api.delete_alias, predict_api.delete_version, tfaas.delete, tfaas.set_params}
)
"""What changes which version answers."""


class PredictApp:
    """Answers requests of all owners. It reaches out at the first one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        routes = (Rule(path, methods=[method], endpoint=call) for method, path, call in ROUTES)
        self._map = Map(routes, merge_slashes=False).bind("")
        self._match = functools.lru_cache(maxsize=1_000)(self._matched)
        self._servings: Servings | None = None
        self._identity = Identity(settings, settings.predict_rate)
        self._metrics = Metrics()
        self._under_way = 0
        self._log: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        response = await self.answer(Request(scope, receive, send))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """The answer, whatever happens."""
        began = time.perf_counter()
        path, method = request.scope["path"], request.scope["method"]
        if path == "/healthz":
            return Response(status_code=204)
        if path == "/metrics":
            return self._metrics.answer(self._servings.base if self._servings else None)
        call, response, said = "", None, ""
        self._under_way += 1
        try:
            if self._under_way > self._settings.predict_requests:
                raise OverloadedError(f"{self._under_way - 1} requests are under way already; ask again in a second")
            found, values = self._match(method, path)
            call = found.__name__
            caller, serving = await self._serving(found, request)
            serving.answered[method] += 1
            response = await found(Asked(request, serving, caller), **values)
        except Exception as error:
            response, said = _refused(error, path)
        finally:
            self._under_way -= 1
            if self._servings:
                self._servings.base.bodies.pop(request, None)
        seconds = time.perf_counter() - began
        self._metrics.seen(call, response.status_code, seconds)
        self._line(method, path, response.status_code, seconds, said)
        return response

    def _matched(self, method: str, path: str) -> tuple[Call, Mapping[str, Any]]:
        base = self._settings.predict_base
        if not path.startswith(f"{base}/"):
            raise NotFound()
        call, values = self._map.match(path.removeprefix(base), method)
        return call, values

    async def _serving(self, call: Call, request: Request) -> tuple[Caller | None, Serving]:
        """Who asks, where that is looked at, and what answers.

        Raises: UnauthenticatedError; ForbiddenError; LimitError; UnavailableError.
        """
        servings = self._made()
        if call in OPEN:
            return None, servings.base
        presented = Presented.in_pairs(request.scope["headers"]) if self._identity.is_on else None
        caller, serving = await servings.of(presented)
        if caller.visits or not caller.is_publisher:
            _check_may(caller, call, request.method)
        return caller, serving

    def _made(self) -> Servings:
        if self._servings is None:
            self._servings = Servings(self._settings, self._identity)
            self._servings.base.batching.computed = self._metrics.computed
            gc.collect()
            gc.freeze()  # what is there now stays: it is not looked at again
            gc.set_threshold(20_000, 20, 20)
        return self._servings

    def _line(self, method: str, path: str, status: int, seconds: float, said: str) -> None:
        """One line a request, written a little later with others."""
        fields = {"function": "predict", "method": method, "path": path, "status": status, "seconds": round(seconds, 5)}
        self._log.append(
            orjson.dumps({**fields, "outcome": said} if said else fields, option=orjson.OPT_APPEND_NEWLINE)
        )
        if len(self._log) == 1:
            asyncio.get_running_loop().call_later(LOG_S, self._write_log)

    def _write_log(self) -> None:
        lines, self._log = b"".join(self._log), []
        os.write(sys.stderr.fileno(), lines)


class Metrics:
    """What Prometheus reads: https://prometheus.io/docs/instrumenting/exposition_formats/. Counted in lists of numbers,
    as each request is: the library is asked when somebody looks."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int], list[float]] = {}
        self._rows: Counter[int] = Counter()
        self._serving: Serving | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def seen(self, call: str, status: int, seconds: float) -> None:
        """A request was answered."""
        counts = self._calls.get((call, status))
        if counts is None:
            counts = self._calls[call, status] = [0.0] * (len(SECONDS) + 2)
        counts[bisect_left(SECONDS, seconds)] += 1
        counts[-1] += seconds

    def computed(self, rows: int) -> None:
        """Rows were computed together; told by the threads that do."""
        self._rows[(rows - 1).bit_length()] += 1

    def answer(self, serving: Serving | None) -> Response:
        """All of them."""
        self._serving = serving
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

    def collect(self) -> Iterator[Metric]:
        """For the library's registry."""
        requests = CounterMetricFamily("hepfaas_requests", "Requests answered", labels=["call", "status"])
        seconds = HistogramMetricFamily(
            "hepfaas_request_seconds", "From the first byte to the answer", labels=["call", "status"]
        )
        for (call, status), counts in list(self._calls.items()):
            labels = [call or "none", str(status)]
            requests.add_metric(labels, sum(counts[:-1]))
            seconds.add_metric(labels, _buckets(SECONDS, counts[:-1]), counts[-1])
        yield from (requests, seconds)
        rows = HistogramMetricFamily("hepfaas_batch_rows", "Rows that waited and were computed together")
        powers = range(max(self._rows, default=0) + 1)
        rows.add_metric([], _buckets([2**power for power in powers], [self._rows[power] for power in powers]), None)
        yield rows
        if self._serving:
            batching, loaded = self._serving.batching, self._serving.loaded
            yield GaugeMetricFamily("hepfaas_waiting_bytes", "Features that wait", batching.waiting_bytes)
            yield GaugeMetricFamily("hepfaas_waiting_seconds", "What these will take", batching.waiting_s)
            yield GaugeMetricFamily("hepfaas_model_loads", "Versions loaded since the start", loaded.loads)
            yield GaugeMetricFamily("hepfaas_model_bytes", "Graphs in memory", loaded.size_bytes)


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Counts up to each bound, and of all."""
    ends = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(ends, itertools.accumulate([*counts, *[0.0] * (len(ends) - len(counts))]), strict=True))


def _check_may(caller: Caller, call: Call, method: str) -> None:
    """Raises: ForbiddenError."""
    if caller.visits and method != "GET":
        raise ForbiddenError("an admin may see another's models, no more")
    if call in PUBLISHING and not caller.is_publisher:
        raise ForbiddenError("only a publisher may move an alias, set a default or delete a version")


def _refused(error: Exception, path: str) -> tuple[Response, str]:
    """What went wrong as an answer, and as words for the log."""
    said = str(error)
    match error:
        case NotFound():
            said = f"there is no '{path[:200]}'; docs/predict.md tells what there is"
            return json_response({"error": said}, 404), said
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return json_response({"error": f"{path[:200]} takes {allowed}"}, 405, {"Allow": allowed}), "method"
        case UnauthenticatedError():
            return json_response({"error": said}, 401, {"WWW-Authenticate": CHALLENGE}), said
        case ForbiddenError():
            return json_response({"error": said}, 403), said
        case NotThereError():
            return json_response({"error": said}, 404), said
        case TooLargeError():
            return json_response({"error": said}, 413), said
        case RequestError():
            return json_response({"error": said}, 400 if path.startswith("/v2/") else 422), said
        case OverloadedError() | LimitError():
            return json_response({"error": said}, 429, RETRY_AFTER), said
        case UnavailableError():
            return json_response({"error": said}, 503, RETRY_AFTER), said
        case ClientDisconnect():
            return Response(status_code=499), "the client has gone"
    import traceback

    sys.stderr.write("".join(traceback.format_exception(error)))
    return json_response({"error": "the function failed; this is a fault of ours, and its log tells more"}, 500), repr(
        error
    )
