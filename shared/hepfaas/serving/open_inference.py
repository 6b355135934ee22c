"""The Open Inference Protocol, version 2, over HTTP, with Triton's extension for binary tensors.

https://github.com/kserve/open-inference-protocol. A model takes one tensor `features`, normalised as in training, or
raw values by branch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from hepfaas import __version__
from hepfaas.errors import RequestError
from hepfaas.features.spec import InputBranch
from hepfaas.features.vectors import Vectors
from hepfaas.inputs.json_object import json_object
from hepfaas.inputs.numbers import cast, from_json
from hepfaas.models.served import Served
from hepfaas.serving.context import Context, ModelServer
from hepfaas.serving.responses import json_response

FEATURES, SCORES = "features", "scores"
HEADER = "Inference-Header-Content-Length"
MOST_DIGITS = 18
"""Digits in the value of HEADER."""

TYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
}


async def server(context: Context) -> Response:
    """GET /v2: name, version and extensions."""
    return json_response({"name": "hepfaas", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(context: Context) -> Response:
    """GET /v2/health/live: the process answers."""
    return json_response({"live": True})


async def ready(context: Context) -> Response:
    """GET /v2/health/ready: the store answers, and the default models are in memory."""
    await context.server.instance.check_ready()
    return json_response({"ready": True})


async def model_ready(context: Context, name: str, number: str = "") -> Response:
    """GET /v2/models/{name}[/versions/{number}]/ready: load the model."""
    served = await context.server.model(name, number)
    return json_response({"name": served.version.name, "ready": True})


async def metadata(context: Context, name: str, number: str = "") -> Response:
    """GET /v2/models/{name}[/versions/{number}]: inputs and outputs of a model."""
    return json_response(describe(await context.server.model(name, number)))


def describe(served: Served) -> dict[str, Any]:
    """Return the metadata of a version: inputs and outputs."""
    raw = [
        {
            "name": branch.name,
            "datatype": _datatype(branch),
            "shape": [-1, -1] if branch.jagged else [-1],
            "parameters": {"raw": True},
        }
        for branch in served.published.inputs
    ]
    features = {"name": FEATURES, "datatype": "FP32", "shape": [-1, *served.shape]}
    return {
        "name": served.version.name,
        "versions": [str(served.version.number)],
        "platform": "hepfaas_litert",
        "inputs": [features, *raw],
        "outputs": [{"name": SCORES, "datatype": "FP32", "shape": [-1, served.outputs]}],
    }


def _datatype(branch: InputBranch) -> str:
    """Return the datatype of raw values. Jagged branches are padded with NaN, so their integers are sent as floats."""
    if branch.jagged and np.dtype(branch.type or "float32").kind in "iub":
        return DATATYPES[np.result_type(branch.type, np.float32).name]
    return DATATYPES.get(branch.type, "FP32")


async def infer(context: Context, name: str, number: str = "") -> Response:
    """POST /v2/models/{name}[/versions/{number}]/infer: scores of `features`, or of raw values of every branch.

    Raw values of a jagged branch are a matrix: the list of an event in a row, padded with NaN.
    """
    served = await context.server.model(name, number)
    body = await context.body()
    head = context.header(HEADER)
    values, binary = _split(body, head)
    inputs = values.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise _no_inputs()
    is_binary = _wants_binary(values)
    most_bytes = context.server.instance.settings.predict_waiting_bytes
    vectors = await input_vectors(context.server, served, _tensors(inputs, binary), most_bytes)
    scores = vectors.of_all(await context.scores(served, vectors.features))
    return _response(served, scores, values.get("id"), is_binary)


async def input_vectors(
    server: ModelServer, served: Served, tensors: Mapping[str, NDArray[Any]], most_bytes: int
) -> Vectors:
    """Return the vectors in the tensor `features`, or those of raw values, built in at most that memory.

    Raises: RequestError if a tensor does not fit the model; TooLargeError.
    """
    if (features := tensors.get(FEATURES)) is not None:
        if len(tensors) > 1:
            _check_names(served, tensors, [FEATURES])
        if features.shape == served.shape:
            features = features[None]
        return Vectors(np.ascontiguousarray(cast(features, np.float32, f"input '{FEATURES}'")))
    _check_names(served, tensors, served.published.spec.input_names)
    from hepfaas.inputs.raw_events import vectors_of_tensors

    return await server.vectors(served, vectors_of_tensors, tensors, most_bytes)


def _split(body: bytes, head: str | None) -> tuple[Mapping[str, Any], memoryview]:
    """Return the JSON of a request and the binary tensors after it. head: the length of the JSON."""
    if head is None:
        return json_object(body), memoryview(b"")
    if not head.isdecimal() or len(head) > MOST_DIGITS or int(head) > len(body):
        raise RequestError(f"{HEADER} is '{head[:20]}'; it is the length of the JSON in a body of {len(body)} bytes")
    return json_object(memoryview(body)[: int(head)]), memoryview(body)[int(head) :]


def _no_inputs() -> RequestError:
    return RequestError(f"'inputs' is missing: a list of tensors, one named '{FEATURES}' or one for each branch")


def _wants_binary(values: Mapping[str, Any]) -> bool:
    """Return whether the scores are to be sent as bytes. Raises: RequestError if the request names another output."""
    binary = "parameters" in values and bool(_parameters(values).get("binary_data_output"))
    outputs = values.get("outputs")
    if not outputs:
        return binary
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise RequestError(f"'outputs' is not a list of tensors; the model has one, '{SCORES}'")
    for output in outputs:
        if output.get("name") != SCORES:
            raise RequestError(f"the model has no output '{str(output.get('name'))[:100]}'; it has '{SCORES}'")
        binary = bool(_parameters(output).get("binary_data", binary))
    return binary


def _parameters(values: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = values.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _tensors(inputs: Sequence[Mapping[str, Any]], binary: memoryview) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    start = 0
    for item in inputs:
        if not isinstance(item, dict):
            raise _no_inputs()
        name, shape, datatype = item.get("name"), item.get("shape"), item.get("datatype")
        if not isinstance(name, str) or name in tensors:
            raise RequestError(f"an input has the name {str(name)[:100]!r}; each needs a name of its own")
        if not isinstance(shape, list):
            raise _no_shape(name, shape)
        if not isinstance(datatype, str) or datatype not in TYPES:
            raise RequestError(f"input '{name}' has datatype {str(datatype)[:40]!r}; it takes {', '.join(TYPES)}")
        size = _parameters(item).get("binary_data_size") if "parameters" in item else None
        if size is None:
            flat = _from_json(name, item.get("data"), datatype)
        else:
            if type(size) is not int or not 0 <= size <= len(binary) - start:
                raise RequestError(
                    f"input '{name}' has binary_data_size {str(size)[:40]}; {len(binary) - start} bytes are left"
                )
            flat = from_bytes(name, binary[start : start + size], datatype)
            start += size
        tensors[name] = reshape(name, flat, shape)
    return tensors


def _from_json(name: str, data: Any, datatype: str) -> NDArray[Any]:
    if not isinstance(data, list):
        raise RequestError(f"input '{name}' has no 'data': a list of numbers")
    return from_json(data, TYPES[datatype], f"the data of input '{name}'", null=name != FEATURES)


def from_bytes(name: str, data: bytes | memoryview, datatype: str) -> NDArray[Any]:
    """Return the values of an input in binary form. Raises: RequestError if the last value is incomplete."""
    type_ = np.dtype(TYPES[datatype])
    if len(data) % type_.itemsize:
        raise RequestError(f"input '{name}' has {len(data)} bytes, not a whole number of {datatype} values")
    return np.frombuffer(data, dtype=type_)


def reshape(name: str, flat: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    """Return the values of an input in their shape. Raises: RequestError if it is invalid or does not fit."""
    try:
        if min(shape, default=0) < 0:  # numpy would choose this size
            raise _no_shape(name, shape)
        return flat.reshape(shape)
    except (TypeError, OverflowError) as error:
        raise _no_shape(name, shape) from error
    except ValueError as error:
        raise RequestError(f"input '{name}' has {flat.size} values, and shape {shape}") from error


def _no_shape(name: str, shape: Any) -> RequestError:
    return RequestError(f"input '{name}' has shape {str(shape)[:100]}; it is a list of sizes")


def _check_names(served: Served, tensors: Mapping[str, Any], names: Sequence[str]) -> None:
    """Check that there is a tensor of each name and no other. Raises: RequestError."""
    for name in tensors:
        if name not in names:
            close = difflib.get_close_matches(name, [FEATURES, *names], 3, 0.5) or [FEATURES, *names[:5]]
            raise RequestError(f"model '{served.version}' has no input '{name[:100]}'; closest: {', '.join(close)}")
    for name in names:
        if name not in tensors:
            raise RequestError(
                f"model '{served.version}' misses input '{name}': give '{FEATURES}' alone, or all of its "
                f"{len(names)} branches"
            )


def _response(served: Served, scores: NDArray[np.float32], id_: Any, binary: bool) -> Response:
    """Return the response with the scores and the id of the request."""
    output: dict[str, Any] = {"name": SCORES, "shape": scores.shape, "datatype": "FP32"}
    values: dict[str, Any] = {"model_name": served.version.name, "model_version": str(served.version.number)}
    if id_ is not None:
        values["id"] = str(id_)
    values["outputs"] = [output]
    if not binary:
        output["data"] = scores.reshape(-1)
        return json_response(values)
    output["parameters"] = {"binary_data_size": scores.nbytes}
    head = orjson.dumps(values)
    headers = {HEADER: str(len(head))}
    return Response(head + scores.astype("<f4", copy=False).tobytes(), 200, headers, "application/octet-stream")
