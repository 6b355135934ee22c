"""Small LiteRT graphs, written operation by operation: what TensorFlow would need seconds for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FLOAT32, INT32 = schema.TensorType.FLOAT32, schema.TensorType.INT32


def doubling(n_features: int) -> bytes:
    """Outputs are the features, doubled."""
    return graph([constant(np.float32(2))], [operator("MUL", [0, 1], [2])], n_features, n_features)


def picking(n_features: int, values: Sequence[float]) -> bytes:
    """The output is values[k], k the first feature: an embedding. LiteRT refuses rows whose k is out of range."""
    tensors = [
        constant(np.asarray(values, dtype=np.float32)[:, None]),
        constant(np.asarray([0, 0], dtype=np.int32)),
        constant(np.asarray([-1, 1], dtype=np.int32)),
        tensor([-1, 1], FLOAT32),
        tensor([-1, 1], INT32),
        constant(np.asarray([-1], dtype=np.int32)),
        tensor([-1], INT32),
    ]
    operators = [
        operator("SLICE", [0, 2, 3], [4]),
        operator("CAST", [4], [5], cast()),
        operator("RESHAPE", [5, 6], [7]),
        operator("GATHER", [1, 7], [8]),
    ]
    return graph(tensors, operators, n_features, 1)


def constant(values: Any) -> tuple[Any, bytes]:
    """A tensor with values."""
    values = np.asarray(values)
    kind = INT32 if values.dtype == np.int32 else FLOAT32
    return tensor(values.shape, kind)[0], values.tobytes()


def tensor(shape: Sequence[int], kind: int) -> tuple[Any, bytes]:
    """A tensor that is computed; -1 for the number of rows."""
    made = schema.TensorT()
    made.type, made.shape = kind, [abs(size) for size in shape]
    made.shapeSignature = list(shape) if -1 in shape else None
    return made, b""


def operator(name: str, inputs: Sequence[int], outputs: Sequence[int], options: tuple[int, Any] | None = None) -> Any:
    """An operation by its name. Options: their kind and values."""
    made = schema.OperatorT()
    made.name, made.inputs, made.outputs = name, list(inputs), list(outputs)
    if options:
        made.builtinOptionsType, made.builtinOptions = options
    return made


def cast() -> tuple[int, Any]:
    """Options of CAST: float32 to int32."""
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = FLOAT32, INT32
    return schema.BuiltinOptions.CastOptions, options


def subgraph(
    tensors: Sequence[tuple[Any, bytes]], operators: Sequence[Any], inputs: list[int], outputs: list[int]
) -> Any:
    """A graph without its buffers: these stay with the tensors until `graph` collects them."""
    made = schema.SubGraphT()
    made.tensors, made.operators, made.inputs, made.outputs = list(tensors), list(operators), inputs, outputs
    return made


def graph(
    tensors: Sequence[tuple[Any, bytes]],
    operators: Sequence[Any],
    n_features: int,
    n_outputs: int,
    others: Sequence[Any] = (),
) -> bytes:
    """The whole model. Tensor 0 is the features; the last one, added here, is the output."""
    whole = [tensor([-1, n_features], FLOAT32), *tensors, tensor([-1, n_outputs], FLOAT32)]
    main = subgraph(whole, operators, [0], [len(whole) - 1])
    model = schema.ModelT()
    model.version, model.description = 3, b"written by a test"
    model.buffers, model.operatorCodes, model.subgraphs = [schema.BufferT()], [], [main, *others]
    codes: list[str] = []
    for part in model.subgraphs:
        for made, data in part.tensors:
            made.buffer = 0
            if data:
                made.buffer = len(model.buffers)
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(data, dtype=np.uint8)
                model.buffers.append(buffer)
        part.tensors = [made for made, _ in part.tensors]
        for one in part.operators:
            if one.name not in codes:
                codes.append(one.name)
                code = schema.OperatorCodeT()
                code.builtinCode = getattr(schema.BuiltinOperator, one.name)
                code.deprecatedBuiltinCode = min(code.builtinCode, 127)
                code.version = 1
                model.operatorCodes.append(code)
            one.opcodeIndex = codes.index(one.name)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
