"""Hostile LiteRT graphs: built by hand, one for each way to harm the process that runs it, and mutated at random.

The bytes of a graph are chosen by a tenant's code, so a test can publish each of these as a model.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Op, Type = schema.BuiltinOperator, schema.TensorType


class Graph:
    """A LiteRT graph that is put together by hand; the last subgraph added is the one that grows."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = b"built by hand"
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], []
        self.subgraph("main")

    def subgraph(self, name: str) -> int:
        """Begin a subgraph; return its number."""
        self._grows = schema.SubGraphT()
        self._grows.name = name.encode()
        self._grows.tensors, self._grows.operators, self._grows.inputs, self._grows.outputs = [], [], [], []
        self.model.subgraphs.append(self._grows)
        return len(self.model.subgraphs) - 1

    def tensor(self, shape: Sequence[int], type_: int = Type.FLOAT32, data: bytes | None = None) -> int:
        """Add a tensor, constant if it has data; return its number."""
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name = list(shape), type_, f"t{len(self._grows.tensors)}".encode()
        tensor.hasRank, tensor.buffer = True, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self._grows.tensors.append(tensor)
        return len(self._grows.tensors) - 1

    def constant(self, values: NDArray[Any]) -> int:
        """Add a constant tensor of float32 or int32; return its number."""
        kind = Type.FLOAT32 if values.dtype == np.float32 else Type.INT32
        return self.tensor(values.shape, kind, values.tobytes())

    def operator(self, code: int, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """Add an operator. options: the object of its options, e.g. GatherOptionsT()."""
        known = [one.builtinCode for one in self.model.operatorCodes]
        if code not in known:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            self.model.operatorCodes.append(entry)
            known.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._grows.operators.append(operator)

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Set what the subgraph takes and gives."""
        self._grows.inputs, self._grows.outputs = list(inputs), list(outputs)

    def packed(self) -> bytes:
        """Return the graph's FlatBuffer."""
        return packed(self.model)


class _Builder(flatbuffers.Builder):
    """Aligns the data of buffers to 16 bytes, as the schema wants it and Python's object API does not do."""

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802
        self.Prep(16, x.nbytes)
        return int(super().CreateNumpyVector(x))


def packed(model: Any) -> bytes:
    """Return the FlatBuffer of a ModelT."""
    builder = _Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def harmless(features: int = 2, outputs: int = 1) -> bytes:
    """Return a dense layer with weights of 0.5."""
    graph = Graph()
    taken, given = graph.tensor([1, features]), graph.tensor([1, outputs])
    weights = graph.constant(np.full((outputs, features), 0.5, dtype=np.float32))
    bias = graph.constant(np.zeros(outputs, dtype=np.float32))
    graph.operator(Op.FULLY_CONNECTED, [taken, weights, bias], [given], schema.FullyConnectedOptionsT())
    graph.ends([taken], [given])
    return graph.packed()


READ_BYTES = 64
"""Bytes of memory that a row of `reads_memory` gives."""


def reads_memory() -> bytes:
    """Return a graph that gives 64 bytes of the process's memory a row: those 64 · feature bytes behind a constant.

    The constant claims 2 GB over a buffer of one byte; LiteRT does not compare the two since the tensor is sparse. One
    feature, 64 outputs. An offset that is not mapped crashes the process.
    """
    graph = Graph()
    memory = graph.tensor([2**31 // READ_BYTES - 1, READ_BYTES], Type.UINT8, b"\0")
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap = [0, 1], []
    dense = [schema.DimensionMetadataT() for _ in range(2)]
    dense[0].denseSize, dense[1].denseSize = 2**31 // READ_BYTES - 1, READ_BYTES
    sparsity.dimMetadata = dense
    graph.model.subgraphs[0].tensors[memory].sparsity = sparsity
    taken, place = graph.tensor([1, 1]), graph.tensor([1, 1], Type.INT32)
    read, numbers, given = graph.tensor([1, 1, READ_BYTES], Type.UINT8), graph.tensor([1, 1, READ_BYTES]), 0
    row = graph.constant(np.array([-1, READ_BYTES], dtype=np.int32))
    given = graph.tensor([1, READ_BYTES])
    graph.operator(Op.CAST, [taken], [place], _cast(Type.FLOAT32, Type.INT32))
    graph.operator(Op.GATHER, [memory, place], [read], schema.GatherOptionsT())
    graph.operator(Op.CAST, [read], [numbers], _cast(Type.UINT8, Type.FLOAT32))
    graph.operator(Op.RESHAPE, [numbers, row], [given])
    graph.ends([taken], [given])
    return graph.packed()


def writes_memory() -> bytes:
    """Return a graph that writes at 4 · feature bytes from a tensor of its own: 0 is harmless, 10⁸ crashes the process.

    Nothing in its structure is wrong: SPARSE_TO_DENSE does not check its indices. One feature, one output.
    """
    graph = Graph()
    taken, place, flat = graph.tensor([1, 1]), graph.tensor([1, 1], Type.INT32), graph.tensor([1], Type.INT32)
    one, size = graph.constant(np.array([1], dtype=np.int32)), graph.constant(np.array([4], dtype=np.int32))
    value, default = graph.constant(np.array([7], dtype=np.float32)), graph.tensor([], Type.FLOAT32, bytes(4))
    dense, axis = graph.tensor([4]), graph.constant(np.array([0], dtype=np.int32))
    total, given = graph.tensor([1]), graph.tensor([1, 1])
    shape = graph.constant(np.array([1, 1], dtype=np.int32))
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    graph.operator(Op.CAST, [taken], [place], _cast(Type.FLOAT32, Type.INT32))
    graph.operator(Op.RESHAPE, [place, one], [flat])
    graph.operator(Op.SPARSE_TO_DENSE, [flat, size, value, default], [dense], schema.SparseToDenseOptionsT())
    graph.operator(Op.SUM, [dense, axis], [total], keep)
    graph.operator(Op.RESHAPE, [total, shape], [given])
    graph.ends([taken], [given])
    return graph.packed()


def tensor_out_of_range() -> bytes:
    """Return a graph whose operator takes tensor 1,000,000 of four. One feature, one output."""
    model = schema.ModelT.InitFromPackedBuf(harmless(1), 0)
    model.subgraphs[0].operators[0].inputs = [1_000_000, 1, 2]
    return packed(model)


def endless() -> bytes:
    """Return a graph with a WHILE that ends for features up to 0 at once, and for 10⁹ never: in float32 10⁹ - 1 is 10⁹.

    Two features, two outputs.
    """
    graph = Graph()
    taken, given = graph.tensor([1, 2]), graph.tensor([1, 2])
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
    graph.operator(Op.WHILE, [taken], [given], options)
    graph.ends([taken], [given])
    graph.subgraph("cond")
    value, highest, more = graph.tensor([1, 2]), graph.tensor([]), graph.tensor([], Type.BOOL)
    axes, zero = graph.constant(np.array([0, 1], dtype=np.int32)), graph.tensor([], Type.FLOAT32, bytes(4))
    graph.operator(Op.REDUCE_MAX, [value, axes], [highest], schema.ReducerOptionsT())
    graph.operator(Op.GREATER, [highest, zero], [more], schema.GreaterOptionsT())
    graph.ends([value], [more])
    graph.subgraph("body")
    value, less, one = graph.tensor([1, 2]), graph.tensor([1, 2]), graph.constant(np.ones(1, dtype=np.float32))
    graph.operator(Op.SUB, [value, one], [less], schema.SubOptionsT())
    graph.ends([value], [less])
    return graph.packed()


def recursive() -> bytes:
    """Return a graph whose WHILE calls the subgraph that it is in: loading it overflows the stack."""
    graph = Graph()
    taken, given = graph.tensor([1, 2]), graph.tensor([1, 2])
    for number in (0, 1, 2):
        if number:
            graph.subgraph(f"again{number}")
            taken, given = graph.tensor([1, 2]), graph.tensor([1, 2])
        options = schema.WhileOptionsT()
        options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
        graph.operator(Op.WHILE, [taken], [given], options)
        graph.ends([taken], [given])
    return graph.packed()


def takes_memory_at_load(size: int = 2**36) -> bytes:
    """Return a graph that needs `size` bytes when its tensors are allocated, before any request. One feature and output."""
    graph = Graph()
    side = int((size // 4) ** 0.5)
    taken, given = graph.tensor([1, 1]), graph.tensor([1, 1])
    shape = graph.constant(np.array([side, side], dtype=np.int32))
    wide, axes, total = graph.tensor([side, side]), graph.constant(np.array([0, 1], dtype=np.int32)), graph.tensor([1, 1])
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    graph.operator(Op.BROADCAST_TO, [taken, shape], [wide], schema.BroadcastToOptionsT())
    graph.operator(Op.SUM, [wide, axes], [total], keep)
    graph.operator(Op.ADD, [total, taken], [given], schema.AddOptionsT())
    graph.ends([taken], [given])
    return graph.packed()


def takes_memory_by_request() -> bytes:
    """Return a graph that needs 4 · feature bytes: a FILL whose size is the feature. One feature, one output."""
    graph = Graph()
    taken, size, flat = graph.tensor([1, 1]), graph.tensor([1, 1], Type.INT32), graph.tensor([1], Type.INT32)
    one, value = graph.constant(np.array([1], dtype=np.int32)), graph.tensor([], Type.FLOAT32, struct.pack("<f", 1))
    filled, axis = graph.tensor([1]), graph.constant(np.array([0], dtype=np.int32))
    total, shape, given = graph.tensor([1]), graph.constant(np.array([1, 1], dtype=np.int32)), graph.tensor([1, 1])
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    graph.operator(Op.CAST, [taken], [size], _cast(Type.FLOAT32, Type.INT32))
    graph.operator(Op.RESHAPE, [size, one], [flat])
    graph.operator(Op.FILL, [flat, value], [filled], schema.FillOptionsT())
    graph.operator(Op.SUM, [filled, axis], [total], keep)
    graph.operator(Op.RESHAPE, [total, shape], [given])
    graph.ends([taken], [given])
    return graph.packed()


def custom(name: str = "FlexPyFunc") -> bytes:
    """Return a graph with one custom operation, by default one of TensorFlow's. One feature, one output."""
    graph = Graph()
    taken, given = graph.tensor([1, 1]), graph.tensor([1, 1])
    graph.operator(Op.CUSTOM, [taken], [given])
    graph.model.operatorCodes[0].customCode = name.encode()
    graph.ends([taken], [given])
    return graph.packed()


def _cast(from_: int, to: int) -> Any:
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = from_, to
    return options
