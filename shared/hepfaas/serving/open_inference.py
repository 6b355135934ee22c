"""The Open Inference Protocol, version 2, by HTTP: https://github.com/kserve/open-inference-protocol, with the binary
tensors of Triton's extension. A model takes one tensor `features`, normalised as in training, or raw values by branch.
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
from hepfaas.features.spec import FeatureBranch
from hepfaas.inputs.json_object import json_object
from hepfaas.inputs.numbers import cast, from_json
from hepfaas.models.served import Served
from hepfaas.serving.predicting import Context, in_thread, json_response

FEATURES, SCORES = "features", "scores"
HEADER = "Inference-Header-Content-Length"
MOST_DIGITS = 18
"""Of the length of a header."""

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
    """GET /v2"""
    return json_response({"name": "hepfaas", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(context: Context) -> Response:
    """GET /v2/health/live"""
    return json_response({"live": True})


async def ready(context: Context) -> Response:
    """GET /v2/health/ready: the store answers, and the default models are in memory."""
    await context.serving.check_ready()
    return json_response({"ready": True})


async def model_ready(context: Context, name: str, number: str = "") -> Response:
    """GET /v2/models/{name}[/versions/{number}]/ready: it is in memory from now on."""
    served = await context.serving.model(name, number)
    return json_response({"name": served.version.name, "ready": True})


async def metadata(context: Context, name: str, number: str = "") -> Response:
    """GET /v2/models/{name}[/versions/{number}]: what it takes and gives."""
    return json_response(described(await context.serving.model(name, number)))


def described(served: Served) -> dict[str, Any]:
    """What a version takes and gives."""
    raw = [
        {
            "name": branch.name,
            "datatype": _datatype(branch),
            "shape": [-1, -1] if branch.jagged else [-1],
            "parameters": {"raw": True},
        }
        for branch in served.published.branches
    ]
    features = {"name": FEATURES, "datatype": "FP32", "shape": [-1, *served.shape]}
    return {
        "name": served.version.name,
        "versions": [str(served.version.number)],
        "platform": "hepfaas_litert",
        "inputs": [features, *raw],
        "outputs": [{"name": SCORES, "datatype": "FP32", "shape": [-1, served.outputs]}],
    }


def _datatype(branch: FeatureBranch) -> str:
    """Of a branch's raw values. A jagged one has NaN where there is no value, so its whole numbers come as floats."""
    if branch.jagged and np.dtype(branch.type or "float32").kind in "iub":
        return DATATYPES[np.result_type(branch.type, np.float32).name]
    return DATATYPES.get(branch.type, "FP32")


async def infer(context: Context, name: str, number: str = "") -> Response:
    """POST /v2/models/{name}[/versions/{number}]/infer: either `features`, or every branch with its raw values.

    Raw values of a jagged branch are a matrix, an event's list in a row and NaN behind it.
    """
    served = await context.serving.model(name, number)
    body = await context.body()
    head = context.header(HEADER)
    values, binary = _parts(body, head)
    inputs = values.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise _no_inputs()
    is_binary = _wants_binary(values)
    matrix = await matrix_of_tensors(served, _tensors(inputs, binary))
    return _answer(served, await context.scores(served, matrix), values.get("id"), is_binary)


async def matrix_of_tensors(served: Served, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Vectors (events, features), of `features` or of raw values. Raises: RequestError if a tensor does not fit."""
    if (features := tensors.get(FEATURES)) is not None:
        if len(tensors) > 1:
            _check_names(served, tensors, [FEATURES])
        if features.shape == served.shape:
            features = features[None]
        return np.ascontiguousarray(cast(features, np.float32, f"input '{FEATURES}'"))
    _check_names(served, tensors, [branch.name for branch in served.published.spec.branches])
    matrix: NDArray[np.float32] = await in_thread(_raw, served, tensors)
    return matrix


def _parts(body: bytes, head: str | None) -> tuple[Mapping[str, Any], memoryview]:
    """The JSON of a request, and the binary tensors behind it."""
    if head is None:
        return json_object(body), memoryview(b"")
    if not head.isdecimal() or len(head) > MOST_DIGITS or int(head) > len(body):
        raise RequestError(f"{HEADER} is '{head[:20]}'; it is the length of the JSON in a body of {len(body)} bytes")
    return json_object(memoryview(body)[: int(head)]), memoryview(body)[int(head) :]


def _no_inputs() -> RequestError:
    return RequestError(f"'inputs' is missing: a list of tensors, one named '{FEATURES}' or one for each branch")


def _wants_binary(values: Mapping[str, Any]) -> bool:
    """Whether the scores are to be sent as bytes. Raises: RequestError if another output than them is asked for."""
    binary = "parameters" in values and bool(_parameters(values).get("binary_data_output"))
    outputs = values.get("outputs")
    if not outputs:
        return binary
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise RequestError(f"'outputs' is no list of tensors; the model has one, '{SCORES}'")
    for output in outputs:
        if output.get("name") != SCORES:
            raise RequestError(f"the model has no output '{str(output.get('name'))[:100]}'; it has '{SCORES}'")
        binary = bool(_parameters(output).get("binary_data", binary))
    return binary


def _parameters(values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = values.get("parameters")
    return found if isinstance(found, dict) else {}


def _tensors(inputs: Sequence[Mapping[str, Any]], binary: memoryview) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    at = 0
    for one in inputs:
        if not isinstance(one, dict):
            raise _no_inputs()
        name, shape, datatype = one.get("name"), one.get("shape"), one.get("datatype")
        if not isinstance(name, str) or name in tensors:
            raise RequestError(f"an input has the name {str(name)[:100]!r}; each has one of its own")
        if not isinstance(shape, list):
            raise _no_shape(name, shape)
        if not isinstance(datatype, str) or datatype not in TYPES:
            raise RequestError(f"input '{name}' has datatype {str(datatype)[:40]!r}; it takes {', '.join(TYPES)}")
        size = _parameters(one).get("binary_data_size") if "parameters" in one else None
        if size is None:
            found = _from_json(name, one.get("data"), datatype)
        else:
            if type(size) is not int or not 0 <= size <= len(binary) - at:
                raise RequestError(
                    f"input '{name}' has binary_data_size {str(size)[:40]}; {len(binary) - at} bytes are left"
                )
            if size % np.dtype(TYPES[datatype]).itemsize:
                raise RequestError(f"input '{name}' has {size} bytes, no whole number of {datatype}")
            found = np.frombuffer(binary[at : at + size], dtype=TYPES[datatype])
            at += size
        tensors[name] = shaped(name, found, shape)
    return tensors


def _from_json(name: str, data: Any, datatype: str) -> NDArray[Any]:
    if not isinstance(data, list):
        raise RequestError(f"input '{name}' has no 'data': a list of numbers")
    return from_json(data, TYPES[datatype], f"the data of input '{name}'", null=name != FEATURES)


def shaped(name: str, found: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    """The values of an input in their shape. Raises: RequestError if it is none, or has another number of them."""
    try:
        if min(shape, default=0) < 0:  # to numpy it is whatever fits
            raise _no_shape(name, shape)
        return found.reshape(shape)
    except (TypeError, OverflowError) as error:
        raise _no_shape(name, shape) from error
    except ValueError as error:
        raise RequestError(f"input '{name}' has {found.size} values, and shape {shape}") from error


def _no_shape(name: str, shape: Any) -> RequestError:
    return RequestError(f"input '{name}' has shape {str(shape)[:100]}; it is a list of sizes")


def _check_names(served: Served, tensors: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises: RequestError if a tensor is missing or is none of the model's."""
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


def _raw(served: Served, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Vectors of raw values by branch."""
    from hepfaas.inputs.raw_events import features_of_tensors

    return features_of_tensors(served, tensors)


def _answer(served: Served, scores: NDArray[np.float32], id_: Any, binary: bool) -> Response:
    """id_: the request's own, given back."""
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
