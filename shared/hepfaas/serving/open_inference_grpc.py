"""The Open Inference Protocol, version 2, by gRPC (package inference, its open_inference_grpc.proto), and gRPC's own
health check. Parameters of requests say nothing here: tensors are raw or typed by where they stand.
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
from hepfaas.serving.observing import Log, Metrics
from hepfaas.serving.open_inference import (
    FEATURES,
    SCORES,
    TYPES,
    described,
    matrix_of_tensors,
    shaped,
)
from hepfaas.serving.predicting import Serving, Servings
from hepfaas.serving.protobuf import messages

STOP_S = 10.0

TENSOR = [("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "repeated int64"), ("contents", 5, "Contents")]
inference = messages(
    "inference",
    {
        "ServerLiveRequest": [],
        "ServerLiveResponse": [("live", 1, "bool")],
        "ServerReadyRequest": [],
        "ServerReadyResponse": [("ready", 1, "bool")],
        "ModelReadyRequest": [("name", 1, "string"), ("version", 2, "string")],
        "ModelReadyResponse": [("ready", 1, "bool")],
        "ServerMetadataRequest": [],
        "ServerMetadataResponse": [
            ("name", 1, "string"),
            ("version", 2, "string"),
            ("extensions", 3, "repeated string"),
        ],
        "ModelMetadataRequest": [("name", 1, "string"), ("version", 2, "string")],
        "TensorMetadata": TENSOR[:3],
        "ModelMetadataResponse": [
            ("name", 1, "string"),
            ("versions", 2, "repeated string"),
            ("platform", 3, "string"),
            ("inputs", 4, "repeated TensorMetadata"),
            ("outputs", 5, "repeated TensorMetadata"),
        ],
        "Contents": [
            ("bool_contents", 1, "repeated bool"),
            ("int_contents", 2, "repeated int32"),
            ("int64_contents", 3, "repeated int64"),
            ("uint_contents", 4, "repeated uint32"),
            ("uint64_contents", 5, "repeated uint64"),
            ("fp32_contents", 6, "repeated float"),
            ("fp64_contents", 7, "repeated double"),
        ],
        "Tensor": TENSOR,
        "RequestedOutput": [("name", 1, "string")],
        "ModelInferRequest": [
            ("model_name", 1, "string"),
            ("model_version", 2, "string"),
            ("id", 3, "string"),
            ("inputs", 5, "repeated Tensor"),
            ("outputs", 6, "repeated RequestedOutput"),
            ("raw_input_contents", 7, "repeated bytes"),
        ],
        "ModelInferResponse": [
            ("model_name", 1, "string"),
            ("model_version", 2, "string"),
            ("id", 3, "string"),
            ("outputs", 5, "repeated Tensor"),
            ("raw_output_contents", 6, "repeated bytes"),
        ],
    },
)
health = messages(
    "grpc.health.v1",
    {"HealthCheckRequest": [("service", 1, "string")], "HealthCheckResponse": [("status", 1, "int32")]},
)
SERVICE = "inference.GRPCInferenceService"
IS_SERVING, IS_NOT_SERVING = 1, 2
"""HealthCheckResponse.ServingStatus."""

CONTENTS = {
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""Where the values of each datatype stand; those of FP16 are raw."""

CALLS = ("ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Those that a token is needed for; probes have none."""


class Inference:
    """Answers the calls of the service for one owner."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def check(self, request: Any) -> Any:
        """Of '': the process answers. Of the service by its name: it is ready."""
        if request.service not in ("", SERVICE):
            raise NotThereError(f"there is no service '{request.service[:100]}'; it has '{SERVICE}'")
        serves = not request.service or await self._is_ready()
        return health("HealthCheckResponse")(status=IS_SERVING if serves else IS_NOT_SERVING)

    async def _is_ready(self) -> bool:
        try:
            await self._serving.check_ready()
        except UnavailableError:
            return False
        return True

    async def server_live(self, request: Any) -> Any:
        return inference("ServerLiveResponse")(live=True)

    async def server_ready(self, request: Any) -> Any:
        return inference("ServerReadyResponse")(ready=await self._is_ready())

    async def model_ready(self, request: Any) -> Any:
        await self._serving.model(request.name, request.version)
        return inference("ModelReadyResponse")(ready=True)

    async def server_metadata(self, request: Any) -> Any:
        return inference("ServerMetadataResponse")(name="hepfaas", version=__version__)

    async def model_metadata(self, request: Any) -> Any:
        found = described(await self._serving.model(request.name, request.version))
        return inference("ModelMetadataResponse")(
            name=found["name"],
            versions=found["versions"],
            platform=found["platform"],
            inputs=[_metadata(one) for one in found["inputs"]],
            outputs=[_metadata(one) for one in found["outputs"]],
        )

    async def model_infer(self, request: Any) -> Any:
        served = await self._serving.model(request.model_name, request.model_version)
        for output in request.outputs:
            if output.name != SCORES:
                raise RequestError(f"the model has no output '{output.name[:100]}'; it has '{SCORES}'")
        matrix = await matrix_of_tensors(served, _tensors(request))
        scores = await self._serving.scores(id(request), served, matrix)
        output = inference("Tensor")(name=SCORES, datatype="FP32", shape=scores.shape)
        return inference("ModelInferResponse")(
            model_name=served.version.name,
            model_version=str(served.version.number),
            id=request.id,
            outputs=[output],
            raw_output_contents=[scores.astype("<f4", copy=False).tobytes()],
        )


def handlers(servings: Servings, metrics: Metrics, log: Log) -> tuple[Any, ...]:
    """For a server of gRPC. Each call is counted and told."""
    services = {
        SERVICE: (inference, ("ServerLive", "ServerReady", *CALLS)),
        "grpc.health.v1.Health": (health, ("Check",)),
    }

    def handler(made: Any, name: str) -> Any:
        async def answered(data: Any, context: Any) -> Any:
            began, code, said, public = time.perf_counter(), grpc.StatusCode.OK, "", ""
            try:
                return await _answer(servings, name, data, context)
            except asyncio.CancelledError:
                code, said = grpc.StatusCode.CANCELLED, "the client has gone"
                raise
            except Exception as error:
                code, said = _refused(error)
                public = said if code is grpc.StatusCode.INTERNAL else public_text(error)
            finally:
                servings.base.held.release(id(data))
                seconds = time.perf_counter() - began
                metrics.seen(name, code.name, seconds)
                if name in CALLS or said:
                    log.line((name, code.name), seconds, said)
            return await context.abort(code, visible_lines(public, PRINTED))

        return grpc.unary_unary_rpc_method_handler(
            answered,
            request_deserializer=made("HealthCheckRequest" if name == "Check" else f"{name}Request").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    return tuple(
        grpc.method_handlers_generic_handler(service, {name: handler(made, name) for name in names})
        for service, (made, names) in services.items()
    )


async def serve(settings: Settings) -> None:
    """Answers at the port until SIGTERM or SIGINT, then ends what is under way; metrics by HTTP at a port of their
    own, if there is one."""
    servings = Servings(settings, Identity(settings, settings.predict_rate))
    metrics, log = Metrics(), Log("predict-grpc", ("call", "status"))
    metrics.watch(servings.base)
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", settings.predict_body_bytes)],
        maximum_concurrent_rpcs=settings.predict_requests,
    )
    server.add_generic_rpc_handlers(handlers(servings, metrics, log))
    server.add_insecure_port(f"[::]:{settings.port}")
    if settings.metrics_port:
        from prometheus_client import start_http_server  # only where somebody looks

        start_http_server(settings.metrics_port, registry=metrics.registry)
    await server.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop(STOP_S)
    log.write()


def _metadata(tensor: Mapping[str, Any]) -> Any:
    return inference("TensorMetadata")(**{key: tensor[key] for key in ("name", "datatype", "shape")})


def _tensors(request: Any) -> dict[str, NDArray[Any]]:
    """Raises: RequestError if there are none, or one is not what it says."""
    raw, inputs = list(request.raw_input_contents), request.inputs
    if not inputs:
        raise RequestError(f"'inputs' is missing: a tensor '{FEATURES}', or one for each branch")
    if raw and len(raw) != len(inputs):
        raise RequestError(f"{len(inputs)} inputs have {len(raw)} raw_input_contents; give one for each or none")
    return {one.name: _tensor(one, raw[number] if raw else None) for number, one in enumerate(inputs)}


def _tensor(one: Any, raw: bytes | None) -> NDArray[Any]:
    name, datatype = one.name[:100], one.datatype
    if datatype not in TYPES:
        raise RequestError(f"input '{name}' has datatype '{datatype[:40]}'; it takes {', '.join(TYPES)}")
    type_ = np.dtype(TYPES[datatype])
    if raw is None:
        values = getattr(one.contents, CONTENTS.get(datatype, "fp32_contents"))
        found = (
            cast(np.asarray(values), type_, f"the contents of input '{name}'") if len(values) else np.zeros(0, type_)
        )
        return shaped(name, found, list(one.shape))
    if len(raw) % type_.itemsize:
        raise RequestError(f"input '{name}' has {len(raw)} bytes, no whole number of {datatype}")
    return shaped(name, np.frombuffer(raw, dtype=type_), list(one.shape))


async def _answer(servings: Servings, name: str, data: Any, context: Any) -> Any:
    serving = servings.base
    if name in CALLS:
        caller, serving = await servings.of(IdentityHeaders.from_pairs(context.invocation_metadata()))
        if caller.visits:
            raise ForbiddenError("an admin may see another's models by HTTP, no more")
    return await getattr(Inference(serving), _snake(name))(data)


def _refused(error: Exception) -> tuple[grpc.StatusCode, str]:
    """What went wrong as a status, and as words for the log."""
    said = str(error)
    match error:
        case UnauthenticatedError():
            return grpc.StatusCode.UNAUTHENTICATED, said
        case ForbiddenError():
            return grpc.StatusCode.PERMISSION_DENIED, said
        case NotThereError():
            return grpc.StatusCode.NOT_FOUND, said
        case RequestError():
            return grpc.StatusCode.INVALID_ARGUMENT, said
        case OverloadedError() | LimitError():
            return grpc.StatusCode.RESOURCE_EXHAUSTED, said
        case UnavailableError():
            return grpc.StatusCode.UNAVAILABLE, said
    sys.stderr.write(f"{fault_line(error)}\n")
    return grpc.StatusCode.INTERNAL, FAULT


def _snake(name: str) -> str:
    """'model_infer' of 'ModelInfer'."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")
