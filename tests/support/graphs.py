"""Small LiteRT graphs, written operation by operation, since TensorFlow takes seconds to make one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FLOAT32, INT32 = schema.TensorType.FLOAT32, schema.TensorType.INT32


def doubling(n_features: int) -> bytes:
    """Return a graph whose outputs are the features times two."""
    return graph([constant(np.float32(2))], [operator("MUL", [0, 1], [2])], n_features, n_features)


def picking(n_features: int, values: Sequence[float]) -> bytes:
    """Return an embedding, whose output is values[k] for the first feature k; LiteRT refuses k out of range."""
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
    """Return a constant tensor."""
    values = np.asarray(values)
    kind = INT32 if values.dtype == np.int32 else FLOAT32
    return tensor(values.shape, kind)[0], values.tobytes()


def tensor(shape: Sequence[int], kind: int) -> tuple[Any, bytes]:
    """Return a computed tensor; size -1 stands for the number of rows."""
    result = schema.TensorT()
    result.type, result.shape = kind, [abs(size) for size in shape]
    result.shapeSignature = list(shape) if -1 in shape else None
    return result, b""


def operator(name: str, inputs: Sequence[int], outputs: Sequence[int], options: tuple[int, Any] | None = None) -> Any:
    """Return an operation by its name. options: their kind and values."""
    result = schema.OperatorT()
    result.name, result.inputs, result.outputs = name, list(inputs), list(outputs)
    if options:
        result.builtinOptionsType, result.builtinOptions = options
    return result


def cast() -> tuple[int, Any]:
    """Return the options of CAST from float32 to int32."""
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = FLOAT32, INT32
    return schema.BuiltinOptions.CastOptions, options


def subgraph(
    tensors: Sequence[tuple[Any, bytes]], operators: Sequence[Any], inputs: list[int], outputs: list[int]
) -> Any:
    """Return a subgraph. Its buffers stay with the tensors until `graph` collects them."""
    result = schema.SubGraphT()
    result.tensors, result.operators, result.inputs, result.outputs = list(tensors), list(operators), inputs, outputs
    return result


def graph(
    tensors: Sequence[tuple[Any, bytes]],
    operators: Sequence[Any],
    n_features: int,
    n_outputs: int,
    *,
    others: Sequence[Any] = (),
) -> bytes:
    """Return the whole model. Tensor 0 is the features; the last one, added here, is the output."""
    all_tensors = [tensor([-1, n_features], FLOAT32), *tensors, tensor([-1, n_outputs], FLOAT32)]
    main = subgraph(all_tensors, operators, [0], [len(all_tensors) - 1])
    model = schema.ModelT()
    model.version, model.description = 3, b"written by a test"
    model.buffers, model.operatorCodes, model.subgraphs = [schema.BufferT()], [], [main, *others]
    codes: list[str] = []
    for part in model.subgraphs:
        for part_tensor, data in part.tensors:
            part_tensor.buffer = 0
            if data:
                part_tensor.buffer = len(model.buffers)
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(data, dtype=np.uint8)
                model.buffers.append(buffer)
        part.tensors = [part_tensor for part_tensor, _ in part.tensors]
        for operation in part.operators:
            if operation.name not in codes:
                codes.append(operation.name)
                code = schema.OperatorCodeT()
                code.builtinCode = getattr(schema.BuiltinOperator, operation.name)
                code.deprecatedBuiltinCode = min(code.builtinCode, 127)
                code.version = 1
                model.operatorCodes.append(code)
            operation.opcodeIndex = codes.index(operation.name)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
