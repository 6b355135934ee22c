"""The Open Inference Protocol, version 2, over gRPC (open_inference.proto), and gRPC's health check (health.proto).

Parameters of requests are ignored: tensors are raw or typed by the field that has them.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from hepfaas import __version__
from hepfaas.errors import (
    ForbiddenError,
    LimitError,
    NotThereError,
    RequestError,
    UnauthenticatedError,
    UnavailableError,
    public_text,
)
from hepfaas.inputs.numbers import cast
from hepfaas.models.batching import OverloadedError
from hepfaas.platform.identity import Identity, IdentityHeaders
from hepfaas.platform.settings import Settings
from hepfaas.platform.statuses import FAULT
from hepfaas.platform.terminal import PRINTED, fault_line, visible_lines
from hepfaas.serving import health_pb2 as health
from hepfaas.serving import open_inference_pb2 as inference
from hepfaas.serving.context import Instance, ModelServer
from hepfaas.serving.observing import Log, Metrics
from hepfaas.serving.open_inference import FEATURES, SCORES, TYPES, describe, from_bytes, input_vectors, reshape

STOP_S = 10.0
"""Time that calls under way have to end when the server stops."""

SERVICE = "inference.GRPCInferenceService"

CONTENTS = {
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""The field of `Contents` for each datatype; FP16 is always raw."""

CALLS = ("ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Calls that need a token; probes have none."""


class InferenceService:
    """Answers the calls of the service for one owner."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    async def check(self, request: Any) -> Any:
        """Return the health of the process ('') or of the service (its name), which serves once it is ready."""
        if request.service not in ("", SERVICE):
            raise NotThereError(f"there is no service '{request.service[:100]}'; it has '{SERVICE}'")
        serves = not request.service or await self._is_ready()
        return health.HealthCheckResponse(status="SERVING" if serves else "NOT_SERVING")

    async def _is_ready(self) -> bool:
        try:
            await self._server.instance.check_ready()
        except UnavailableError:
            return False
        return True

    async def server_live(self, request: Any) -> Any:
        return inference.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any) -> Any:
        return inference.ServerReadyResponse(ready=await self._is_ready())

    async def model_ready(self, request: Any) -> Any:
        await self._server.model(request.name, request.version)
        return inference.ModelReadyResponse(ready=True)

    async def server_metadata(self, request: Any) -> Any:
        return inference.ServerMetadataResponse(name="hepfaas", version=__version__)

    async def model_metadata(self, request: Any) -> Any:
        metadata = describe(await self._server.model(request.name, request.version))
        return inference.ModelMetadataResponse(
            name=metadata["name"],
            versions=metadata["versions"],
            platform=metadata["platform"],
            inputs=map(_tensor_metadata, metadata["inputs"]),
            outputs=map(_tensor_metadata, metadata["outputs"]),
        )

    async def model_infer(self, request: Any) -> Any:
        served = await self._server.model(request.model_name, request.model_version)
        for output in request.outputs:
            if output.name != SCORES:
                raise RequestError(f"the model has no output '{output.name[:100]}'; it has '{SCORES}'")
        most_bytes = self._server.instance.settings.predict_waiting_bytes
        vectors = await input_vectors(self._server, served, _tensors(request), most_bytes)
        scores = vectors.of_all(await self._server.scores(id(request), served, vectors.features))
        return inference.ModelInferResponse(
            model_name=served.version.name,
            model_version=str(served.version.number),
            id=request.id,
            outputs=[inference.Tensor(name=SCORES, datatype="FP32", shape=scores.shape)],
            raw_output_contents=[scores.astype("<f4", copy=False).tobytes()],
        )


def handlers(instance: Instance, metrics: Metrics, log: Log) -> tuple[Any, ...]:
    """Return the handlers of both services for a gRPC server. Each call is counted and logged."""

    def handler(messages: Any, name: str) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            began, code, outcome, public = time.perf_counter(), grpc.StatusCode.OK, "", ""
            try:
                return await _answer(instance, name, request, context)
            except asyncio.CancelledError:
                code, outcome = grpc.StatusCode.CANCELLED, "the client has gone"
                raise
            except Exception as error:
                code, outcome = _failure(error)
                public = outcome if code is grpc.StatusCode.INTERNAL else public_text(error)
            finally:
                instance.memory.release(id(request))
                seconds = time.perf_counter() - began
                metrics.count(name, code.name, seconds)
                if name in CALLS or outcome:
                    log.line((name, code.name), seconds, outcome)
            return await context.abort(code, visible_lines(public, PRINTED))

        request_type = "HealthCheckRequest" if name == "Check" else f"{name}Request"
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=getattr(messages, request_type).FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )

    services = {
        SERVICE: (inference, ("ServerLive", "ServerReady", *CALLS)),
        "grpc.health.v1.Health": (health, ("Check",)),
    }
    return tuple(
        grpc.method_handlers_generic_handler(service, {name: handler(messages, name) for name in names})
        for service, (messages, names) in services.items()
    )


async def serve(settings: Settings) -> None:
    """Serve at the port until SIGTERM or SIGINT, then finish the calls under way.

    Metrics are served over HTTP at a port of their own, if one is set.
    """
    instance = Instance(settings, Identity(settings, settings.predict_rate))
    metrics, log = Metrics(), Log("predict-grpc", ("call", "status"))
    metrics.watch(instance)
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", settings.predict_body_bytes)],
        maximum_concurrent_rpcs=settings.predict_requests,
    )
    server.add_generic_rpc_handlers(handlers(instance, metrics, log))
    server.add_insecure_port(f"[::]:{settings.port}")
    if settings.metrics_port:
        from prometheus_client import start_http_server  # only where metrics are read

        start_http_server(settings.metrics_port, registry=metrics.registry)
    await server.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop(STOP_S)
    log.write()


def _tensor_metadata(tensor: Mapping[str, Any]) -> Any:
    return inference.TensorMetadata(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])


def _tensors(request: Any) -> dict[str, NDArray[Any]]:
    """Return the tensors of a request by name. Raises: RequestError if there are none, or one is malformed."""
    raw, inputs = list(request.raw_input_contents), request.inputs
    if not inputs:
        raise RequestError(f"'inputs' is missing: a tensor '{FEATURES}', or one for each branch")
    if raw and len(raw) != len(inputs):
        raise RequestError(f"{len(inputs)} inputs have {len(raw)} raw_input_contents; give one for each or none")
    return {tensor.name: _tensor(tensor, raw[number] if raw else None) for number, tensor in enumerate(inputs)}


def _tensor(tensor: Any, raw: bytes | None) -> NDArray[Any]:
    name, datatype = tensor.name[:100], tensor.datatype
    if datatype not in TYPES:
        raise RequestError(f"input '{name}' has datatype '{datatype[:40]}'; it takes {', '.join(TYPES)}")
    if raw is not None:
        flat = from_bytes(name, raw, datatype)
    else:
        values = getattr(tensor.contents, CONTENTS.get(datatype, "fp32_contents"))
        type_ = np.dtype(TYPES[datatype])
        flat = cast(np.asarray(values), type_, f"the contents of input '{name}'") if values else np.zeros(0, type_)
    return reshape(name, flat, list(tensor.shape))


async def _answer(instance: Instance, name: str, request: Any, context: Any) -> Any:
    server = instance.base
    if name in CALLS:
        caller, server = await instance.server(IdentityHeaders.from_pairs(context.invocation_metadata()))
        if caller.visits:
            raise ForbiddenError("an admin may see the models of another owner by HTTP only")
    return await getattr(InferenceService(server), _snake_case(name))(request)


def _failure(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the status of a call that failed, and the text for the log."""
    text = str(error)
    match error:
        case UnauthenticatedError():
            return grpc.StatusCode.UNAUTHENTICATED, text
        case ForbiddenError():
            return grpc.StatusCode.PERMISSION_DENIED, text
        case NotThereError():
            return grpc.StatusCode.NOT_FOUND, text
        case RequestError():
            return grpc.StatusCode.INVALID_ARGUMENT, text
        case OverloadedError() | LimitError():
            return grpc.StatusCode.RESOURCE_EXHAUSTED, text
        case UnavailableError():
            return grpc.StatusCode.UNAVAILABLE, text
    sys.stderr.write(f"{fault_line(error)}\n")
    return grpc.StatusCode.INTERNAL, FAULT


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")
