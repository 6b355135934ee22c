"""Hostile LiteRT graphs: built by hand, one for each way to harm the process that runs it, or mutated at random.

A tenant's code chooses the bytes of a graph, so a test can publish each of these as a model.
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
    """A LiteRT graph built step by step. Tensors and operators are added to the last subgraph."""

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

    def operator(
        self, code: int, inputs: Sequence[int], outputs: Sequence[int], options: Any = None, version: int = 1
    ) -> None:
        """Add an operator. options: the object of its options, e.g. GatherOptionsT()."""
        known = [one.builtinCode for one in self.model.operatorCodes]
        if code not in known:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
            self.model.operatorCodes.append(entry)
            known.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._grows.operators.append(operator)

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Set the inputs and outputs of the subgraph."""
        self._grows.inputs, self._grows.outputs = list(inputs), list(outputs)

    def packed(self) -> bytes:
        """Return the graph's FlatBuffer."""
        return packed(self.model)


def packed(model: Any) -> bytes:
    """Return the FlatBuffer of a ModelT."""
    builder = flatbuffers.Builder(4096)
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
"""Bytes of memory in one output row of `reads_memory`."""


def reads_memory() -> bytes:
    """Return a graph whose output row is 64 bytes of the process's memory, 64 · feature bytes behind a constant.

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


def too_many_splits() -> bytes:
    """Return a graph whose SPLIT has two outputs and claims 1,000: LiteRT writes through pointers behind the two.

    Two features, one output.
    """
    graph = Graph()
    taken, axis = graph.tensor([1, 2]), graph.tensor([], Type.INT32, struct.pack("<i", 1))
    given, other = graph.tensor([1, 1]), graph.tensor([1, 1])
    options = schema.SplitOptionsT()
    options.numSplits = 1_000
    graph.operator(Op.SPLIT, [axis, taken], [given, other], options)
    graph.ends([taken], [given])
    return graph.packed()


def tensor_out_of_range() -> bytes:
    """Return a graph whose operator takes tensor 1,000,000 of four. One feature, one output."""
    model = schema.ModelT.InitFromPackedBuf(harmless(1), 0)
    model.subgraphs[0].operators[0].inputs = [1_000_000, 1, 2]
    return packed(model)


def endless() -> bytes:
    """Return a graph with a WHILE that ends at once for features up to 0, and never for 10⁹: in float32 10⁹ - 1 is 10⁹.

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
    """Return a graph whose IF calls its own subgraph, so that loading it overflows the stack. Two features."""
    graph = Graph()
    for number in range(2):
        if number:
            graph.subgraph("again")
        taken, given = graph.tensor([1, 2]), graph.tensor([1, 2])
        options = schema.IfOptionsT()
        options.thenSubgraphIndex = options.elseSubgraphIndex = 1
        graph.operator(Op.IF, [graph.tensor([1], Type.BOOL, b"\1"), taken], [given], options)
        graph.ends([taken], [given])
    return graph.packed()


def takes_memory_at_load(size: int = 2**36) -> bytes:
    """Return a graph that needs `size` bytes when its tensors are allocated, before any request.

    One feature, one output.
    """
    graph = Graph()
    side = int((size // 4) ** 0.5)
    taken, given = graph.tensor([1, 1]), graph.tensor([1, 1])
    shape = graph.constant(np.array([side, side], dtype=np.int32))
    wide, axes, total = (
        graph.tensor([side, side]),
        graph.constant(np.array([0, 1], dtype=np.int32)),
        graph.tensor([1, 1]),
    )
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    graph.operator(Op.BROADCAST_TO, [taken, shape], [wide], schema.BroadcastToOptionsT(), version=2)
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


NUMBERS = (0, 1, -1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 1_000, 65_535, 2**20, 2**29, 2**30, 2**31 - 1, -(2**31), -2)
"""Numbers at which sizes, counts and indices overflow."""

LEAST_BYTES = 64
"""Smallest size of a mutated graph."""


def mutated(corpus: Sequence[bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield mutations of graphs of the corpus, each with the names of its changes; equal for equal seeds.

    Half of them change the bytes, half the model, with one to three changes each.
    """
    draw = random.Random(seed)
    models = [schema.ModelT.InitFromPackedBuf(graph, 0) for graph in corpus]
    made = 0
    while made < count:
        chosen = draw.randrange(len(corpus))
        if draw.random() < 0.5:
            data = bytearray(corpus[chosen])
            changes = draw.choices(BYTE_CHANGES, k=draw.choice((1, 1, 1, 2, 3)))
            for change in changes:
                change(data, draw)
            graph = bytes(data)
        else:
            model = copy.deepcopy(models[chosen])
            changes = draw.choices(MODEL_CHANGES, k=draw.choice((1, 1, 1, 2, 3)))
            try:
                for change in changes:
                    change(model, draw)
                graph = packed(model)
            except (struct.error, TypeError, ValueError, IndexError, AttributeError, OverflowError):
                continue  # flatbuffers cannot write the number, or an earlier change removed the target of this one
        made += 1
        yield "+".join(change.__name__.lstrip("_") for change in changes), graph


def _flip_bits(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _word(data: bytearray, draw: random.Random) -> None:
    at = 4 * draw.randrange(len(data) // 4)
    data[at : at + 4] = struct.pack("<I", draw.choice((*NUMBERS, len(data), draw.randrange(len(data)))) % 2**32)


def _word_by_a_little(data: bytearray, draw: random.Random) -> None:
    at = 4 * draw.randrange(len(data) // 4)
    (word,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, (word + draw.choice((-8, -4, -2, -1, 1, 2, 4, 8))) % 2**32)


def _half_word(data: bytearray, draw: random.Random) -> None:
    at = 2 * draw.randrange(len(data) // 2)
    struct.pack_into("<H", data, at, draw.choice((0, 2, 4, 6, 8, 12, 16, 20, 0xFFFF, draw.randrange(65_536))))


def _truncate(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(min(LEAST_BYTES, len(data)), len(data) + 1) :]


def _extend(data: bytearray, draw: random.Random) -> None:
    at = draw.choice((len(data), draw.randrange(len(data))))
    data[at:at] = draw.randbytes(draw.choice((1, 2, 4, 16, 64, 4096)))


def _swap(data: bytearray, draw: random.Random) -> None:
    size = draw.choice((4, 8, 16, 32))
    one, other = (4 * draw.randrange(max(1, (len(data) - size) // 4)) for _ in range(2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def _copy_over(data: bytearray, draw: random.Random) -> None:
    size = draw.choice((4, 16, 64, 256))
    one, other = (4 * draw.randrange(max(1, (len(data) - size) // 4)) for _ in range(2))
    data[one : one + size] = data[other : other + size]


BYTE_CHANGES: Sequence[Callable[[bytearray, random.Random], None]] = (
    _flip_bits,
    _flip_bits,
    _word,
    _word,
    _word_by_a_little,
    _half_word,
    _truncate,
    _extend,
    _swap,
    _copy_over,
)


def _subgraph(model: Any, draw: random.Random) -> Any:
    return draw.choice(model.subgraphs)


def _tensor(model: Any, draw: random.Random) -> Any:
    return draw.choice(_subgraph(model, draw).tensors)


def _operator(model: Any, draw: random.Random) -> Any:
    return draw.choice(_subgraph(model, draw).operators)


def _shape(model: Any, draw: random.Random) -> None:
    tensor = _tensor(model, draw)
    tensor.shape = [int(size) for size in tensor.shape]
    tensor.shape[draw.randrange(len(tensor.shape))] = draw.choice(NUMBERS)


def _rank(model: Any, draw: random.Random) -> None:
    _tensor(model, draw).shape = [draw.choice((0, 1, 2, 3, 16)) for _ in range(draw.choice((0, 1, 2, 3, 4, 5, 9)))]


def _huge_shape(model: Any, draw: random.Random) -> None:
    _tensor(model, draw).shape = draw.choice(([2**16, 2**16], [2**31 - 1], [2**16, 2**16, 2**16, 2**16], [2**28, 16]))


def _shape_signature(model: Any, draw: random.Random) -> None:
    _tensor(model, draw).shapeSignature = draw.choice(([-1], [-1, -1], [-2, 4], [], [2**31 - 1, -1]))


def _type(model: Any, draw: random.Random) -> None:
    _tensor(model, draw).type = draw.randrange(24)


def _buffer_index(model: Any, draw: random.Random) -> None:
    _tensor(model, draw).buffer = draw.choice((0, 1, len(model.buffers), 2**32 - 1, draw.randrange(len(model.buffers))))


def _variable(model: Any, draw: random.Random) -> None:
    _tensor(model, draw).isVariable = True


def _sparsity(model: Any, draw: random.Random) -> None:
    tensor, sparsity = _tensor(model, draw), schema.SparsityParametersT()
    rank = len(tensor.shape)
    sparsity.traversalOrder, sparsity.blockMap = list(range(rank)), []
    sparsity.dimMetadata = [schema.DimensionMetadataT() for _ in range(rank)]
    for size, dimension in zip(tensor.shape, sparsity.dimMetadata, strict=True):
        dimension.format, dimension.denseSize = draw.randrange(2), draw.choice((int(size), *NUMBERS))
    tensor.sparsity = sparsity


def _quantization(model: Any, draw: random.Random) -> None:
    quantization = schema.QuantizationParametersT()
    quantization.scale = [draw.choice((1.0, 0.0, -1.0, float("nan"), 1e-38)) for _ in range(draw.randrange(4))]
    quantization.zeroPoint = [draw.choice((0, 1, -(2**63), 2**63 - 1)) for _ in range(draw.randrange(4))]
    quantization.quantizedDimension = draw.choice(NUMBERS)
    tensor = _tensor(model, draw)
    tensor.quantization = quantization
    if draw.random() < 0.5:
        tensor.type = draw.choice((Type.INT8, Type.UINT8, Type.INT16, Type.INT4))


def _operator_code(model: Any, draw: random.Random) -> None:
    code = draw.choice(model.operatorCodes)
    code.builtinCode = draw.choice((draw.randrange(211), *NUMBERS))
    code.deprecatedBuiltinCode = min(max(code.builtinCode, -128), 127)


def _operator_version(model: Any, draw: random.Random) -> None:
    draw.choice(model.operatorCodes).version = draw.choice(NUMBERS)


def _custom_code(model: Any, draw: random.Random) -> None:
    code = draw.choice(model.operatorCodes)
    code.builtinCode = code.deprecatedBuiltinCode = Op.CUSTOM
    code.customCode = draw.choice((b"FlexAdd", b"TFLite_Detection_PostProcess", b"", None))


def _operator_index(model: Any, draw: random.Random) -> None:
    _operator(model, draw).opcodeIndex = draw.choice((draw.randrange(len(model.operatorCodes)), 1_000, 2**32 - 1))


def _operator_tensors(model: Any, draw: random.Random) -> None:
    subgraph = _subgraph(model, draw)
    operator = draw.choice(subgraph.operators)
    name = draw.choice(("inputs", "inputs", "outputs"))
    tensors = [int(index) for index in getattr(operator, name)]
    new = draw.choice((draw.randrange(len(subgraph.tensors)), draw.randrange(len(subgraph.tensors)), *NUMBERS))
    tensors[draw.randrange(len(tensors))] = new
    setattr(operator, name, tensors)


def _operator_arity(model: Any, draw: random.Random) -> None:
    operator = _operator(model, draw)
    name = draw.choice(("inputs", "outputs"))
    tensors = [int(index) for index in getattr(operator, name)]
    setattr(operator, name, draw.choice((tensors[:-1], tensors[1:], tensors + tensors, tensors[::-1], [], None)))


def _operator_order(model: Any, draw: random.Random) -> None:
    draw.shuffle(_subgraph(model, draw).operators)


def _operator_gone(model: Any, draw: random.Random) -> None:
    operators = _subgraph(model, draw).operators
    del operators[draw.randrange(len(operators))]


def _operator_twice(model: Any, draw: random.Random) -> None:
    operators = _subgraph(model, draw).operators
    operators.append(draw.choice(operators))


def _option(model: Any, draw: random.Random) -> None:
    options = draw.choice([one for one in _subgraph(model, draw).operators if one.builtinOptions]).builtinOptions
    name = draw.choice(list(vars(options)))
    value = getattr(options, name)
    if isinstance(value, float):
        setattr(options, name, draw.choice((0.0, -1.0, float("nan"), float("inf"), 1e38)))
    elif isinstance(value, bool):
        setattr(options, name, not value)
    else:
        setattr(options, name, draw.choice(NUMBERS))


def _options_gone(model: Any, draw: random.Random) -> None:
    operator = _operator(model, draw)
    operator.builtinOptions = None
    if draw.random() < 0.5:
        operator.builtinOptionsType = 0


def _options_of_another(model: Any, draw: random.Random) -> None:
    _operator(model, draw).builtinOptionsType = draw.randrange(130)


def _buffer_size(model: Any, draw: random.Random) -> None:
    buffer = draw.choice([one for one in model.buffers if one.data is not None])
    data = bytes(buffer.data)
    data = draw.choice((data[:-1], data[:1], b"", data + b"\0", data + data, data[: len(data) // 2]))
    buffer.data = np.frombuffer(data, np.uint8)


def _buffer_numbers(model: Any, draw: random.Random) -> None:
    """Change a constant, which may be a shape, axis, index or padding."""
    data = bytearray(draw.choice([one for one in model.buffers if one.data is not None]).data)
    buffer = draw.choice([one for one in model.buffers if one.data is not None and len(one.data) >= 4])
    data = bytearray(buffer.data)
    for _ in range(draw.choice((1, 1, 4))):
        struct.pack_into("<i", data, 4 * draw.randrange(len(data) // 4), draw.choice(NUMBERS))
    buffer.data = np.frombuffer(bytes(data), np.uint8)


def _small_constant(model: Any, draw: random.Random) -> None:
    """Change a constant of a few integers: a shape, an axis or a padding."""
    buffers = [one for one in model.buffers if one.data is not None and 4 <= len(one.data) <= 32]
    buffer = draw.choice(buffers)
    data = bytearray(buffer.data)
    struct.pack_into("<i", data, 4 * draw.randrange(len(data) // 4), draw.choice(NUMBERS))
    buffer.data = np.frombuffer(bytes(data), np.uint8)


def _buffer_elsewhere(model: Any, draw: random.Random) -> None:
    buffer = draw.choice(model.buffers)
    buffer.offset, buffer.size = draw.choice((1, 2, 64, 2**31, 2**63)), draw.choice((1, 2, 64, 2**31, 2**63))
    if draw.random() < 0.5:
        buffer.data = None


def _swap_tensors(model: Any, draw: random.Random) -> None:
    tensors = _subgraph(model, draw).tensors
    one, other = draw.randrange(len(tensors)), draw.randrange(len(tensors))
    tensors[one], tensors[other] = tensors[other], tensors[one]


def _swap_buffers(model: Any, draw: random.Random) -> None:
    one, other = draw.randrange(len(model.buffers)), draw.randrange(len(model.buffers))
    model.buffers[one], model.buffers[other] = model.buffers[other], model.buffers[one]


def _ends(model: Any, draw: random.Random) -> None:
    subgraph = _subgraph(model, draw)
    index = draw.choice((draw.randrange(len(subgraph.tensors)), *NUMBERS))
    setattr(subgraph, draw.choice(("inputs", "outputs")), draw.choice(([index], [index, index], [], None)))


def _no_vector(model: Any, draw: random.Random) -> None:
    holder, name = draw.choice(
        [(model, "buffers"), (model, "operatorCodes"), (model, "metadata"), (model, "signatureDefs")]
        + [(one, name) for one in model.subgraphs for name in ("tensors", "operators")]
    )
    setattr(holder, name, draw.choice((None, [])))


def _called_subgraph(model: Any, draw: random.Random) -> None:
    options = draw.choice(
        [
            operator.builtinOptions
            for subgraph in model.subgraphs
            for operator in subgraph.operators
            if isinstance(operator.builtinOptions, schema.WhileOptionsT | schema.IfOptionsT)
        ]
    )
    setattr(options, draw.choice(list(vars(options))), draw.choice((*range(len(model.subgraphs)), *NUMBERS)))


def _metadata(model: Any, draw: random.Random) -> None:
    entry = draw.choice(model.metadata)
    entry.buffer = draw.choice((0, 1, len(model.buffers), 2**32 - 1))
    entry.name = draw.choice((entry.name, None, b"model_control_dependencies", b"\xff\xfe"))


def _signature(model: Any, draw: random.Random) -> None:
    signature = draw.choice(model.signatureDefs)
    signature.subgraphIndex = draw.choice((0, len(model.subgraphs), 2**32 - 1))
    entry = draw.choice([*signature.inputs, *signature.outputs])
    entry.tensorIndex = draw.choice((0, 1_000, 2**32 - 1))
    entry.name = draw.choice((entry.name, None, b"\xff"))


MODEL_CHANGES: Sequence[Callable[[Any, random.Random], None]] = (
    _shape,
    _shape,
    _rank,
    _huge_shape,
    _shape_signature,
    _type,
    _buffer_index,
    _variable,
    _sparsity,
    _quantization,
    _operator_code,
    _operator_version,
    _custom_code,
    _operator_index,
    _operator_tensors,
    _operator_tensors,
    _operator_arity,
    _operator_order,
    _operator_gone,
    _operator_twice,
    _option,
    _option,
    _options_gone,
    _options_of_another,
    _buffer_size,
    _buffer_numbers,
    _small_constant,
    _small_constant,
    _buffer_elsewhere,
    _swap_tensors,
    _swap_buffers,
    _ends,
    _no_vector,
    _called_subgraph,
    _metadata,
    _signature,
)
