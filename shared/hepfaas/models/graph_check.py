"""Checks the structure of a LiteRT graph (a TFLite FlatBuffer) before LiteRT loads it, which does not check it.

Rejects early what native code would trip over: wrong offsets, sizes and indices, and operations that no network needs.
It does not make a graph safe: graphs run in confined workers. Fields are those of
tensorflow/compiler/mlir/lite/schema/schema.fbs by number. Pure Python, so that it is light in a worker's cold start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hepfaas import flatbuffer
from hepfaas.errors import RequestError
from hepfaas.flatbuffer import F32, I8, I32, U8, U32, U64, Buffer, FlatBufferError, Table
from hepfaas.models.graph_operations import ANY, OPERATIONS, Operation

VERSION = 3
"""Version of the schema."""

MOST_SUBGRAPHS, MOST_OPERATORS, MOST_TENSORS, MOST_BUFFERS, MOST_CODES = 1_000, 50_000, 100_000, 200_000, 1_000
"""Limits of one graph."""

MOST_NAMED = 1_000
"""Limit of signatures, of tensors of a signature, and of metadata entries."""

MOST_RANK = 8
"""Limit of the dimensions of a tensor."""

MOST_CHANNELS = 1_000_000
"""Limit of the scales of a quantised tensor."""

MOST_TENSOR_BYTES = 2**30
"""Limit of a tensor that is not constant, at the batch size that the graph was exported with (1)."""

TYPES = {
    0: ("float32", 32),
    1: ("float16", 16),
    2: ("int32", 32),
    3: ("uint8", 8),
    4: ("int64", 64),
    6: ("bool", 8),
    7: ("int16", 16),
    8: ("complex64", 64),
    9: ("int8", 8),
    10: ("float64", 64),
    11: ("complex128", 128),
    12: ("uint64", 64),
    15: ("uint32", 32),
    16: ("uint16", 16),
    17: ("int4", 4),
    18: ("bfloat16", 16),
}
"""Name and bits of each type of tensor that is allowed: numbers, not strings, resources and variants (pointers)."""

FLOAT32 = 0

METADATA = {"min_runtime_version", "CONVERSION_METADATA"}
"""Metadata that the converter writes; LiteRT acts on other metadata."""

OPTION_VECTORS = {8: (5, 1), 17: (0, 4), 30: (0, 4), 115: (0, 4)}
"""Field and element size in bytes of the vector in the options of FullyConnected, Reshape, Squeeze and Bucketize."""

COUNTED = {49: "outputs", 83: "inputs", 88: "outputs", 102: "outputs"}
"""Tensors that the first option of SPLIT, PACK, UNPACK and SPLIT_V counts; LiteRT does not check it."""

CUSTOM = 32

SUBGRAPHS_OF = {118: "IF", 119: "WHILE"}

OPTIONAL = {3: 2, 4: 2, 9: 2, 67: 3, 132: 2, 141: 3}
"""By operation, the first input that may be absent: the bias of convolutions and dense layers."""


class _DamageError(Exception):
    """The graph is one that no converter writes."""


class _Tensor:
    """A tensor. shape: -1 for sizes that are known only when it is computed; constant: it has a buffer."""

    __slots__ = ("constant", "name", "shape", "type")

    def __init__(self, name: str, shape: tuple[int, ...], type_: int, constant: bool) -> None:
        self.name, self.shape, self.type, self.constant = name, shape, type_, constant


def check_graph(graph: Buffer, row: Sequence[int] | None = None, outputs: int | None = None) -> None:
    """Reject a graph that LiteRT should not be given.

    row: shape of the features of one event; outputs: scores of an event; None: any.

    Raises: RequestError naming what is wrong.
    """
    try:
        _Check(graph).check(row, outputs)
    except (FlatBufferError, _DamageError) as error:
        raise RequestError(
            f"the LiteRT graph is damaged: {error}; export the model again with TensorFlow's converter"
        ) from error


class _Check:
    """The check of one graph."""

    def __init__(self, graph: Buffer) -> None:
        self._model = flatbuffer.root(graph, b"TFL3")
        self._tensors_left, self._operators_left = MOST_TENSORS, MOST_OPERATORS

    def check(self, row: Sequence[int] | None, outputs: int | None) -> None:
        model = self._model
        version = model.number(0, U32)
        if version != VERSION:
            raise _DamageError(f"its schema has version {version}, not {VERSION}")
        if model.has(8) or model.has(9):
            raise _DamageError("it keeps constants in other files")
        model.text(3)
        self._sizes = [_buffer_size(number, table) for number, table in enumerate(model.tables(4, MOST_BUFFERS))]
        self._codes = [_operation(table) for table in model.tables(1, MOST_CODES)]
        self._subgraphs = model.tables(2, MOST_SUBGRAPHS)
        if not self._subgraphs or not self._codes or not self._sizes:
            raise _DamageError("it has no subgraph, no operation or no buffer")
        self._tensors = [self._tensors_of(number, table) for number, table in enumerate(self._subgraphs)]
        self._ends = [self._ends_of(number, table) for number, table in enumerate(self._subgraphs)]
        calls = [self._operators_of(number, table) for number, table in enumerate(self._subgraphs)]
        _check_no_recursion(calls)
        self._check_names()
        self._check_main(row, outputs)

    def _tensors_of(self, subgraph: int, table: Table) -> list[_Tensor]:
        table.text(4)
        tables = table.tables(0, self._tensors_left)
        self._tensors_left -= len(tables)
        return [self._tensor(f"tensor {number} of subgraph {subgraph}", one) for number, one in enumerate(tables)]

    def _tensor(self, place: str, table: Table) -> _Tensor:
        shape: tuple[int, ...] = table.numbers(0, I32, MOST_RANK)
        name = f"{place} ('{(table.text(3) or '')[:60]}')"
        type_, buffer = table.number(1, I8), table.number(2, U32)
        if type_ not in TYPES:
            raise _DamageError(f"{name} has type {type_}, which is not a number")
        if table.has(6):
            raise _DamageError(f"{name} is sparse")
        if table.number(5, U8) or table.has(9) or table.number(10, U32):
            raise _DamageError(f"{name} is a variable or kept elsewhere")
        signature = table.numbers(7, I32, MOST_RANK)
        exported = tuple(1 if size == -1 else size for size in signature)
        if min(shape, default=0) < 0 or (signature and exported != shape):
            raise _DamageError(f"{name} has shape {list(shape)}, signature {list(signature)}")
        if buffer >= len(self._sizes):
            raise _DamageError(f"{name} is in buffer {buffer}; there are {len(self._sizes)}")
        stored = self._sizes[buffer]
        kind, bits = TYPES[type_]
        size = (math.prod(shape) * bits + 7) // 8
        if stored and stored != size:
            raise _DamageError(f"{name}, {kind} {list(shape)}, has {size:,} bytes; its buffer {buffer} has {stored:,}")
        if size > MOST_TENSOR_BYTES and not stored:
            raise _DamageError(f"{name}, {kind} {list(shape)}, has {size:,} bytes; at most {MOST_TENSOR_BYTES:,} fit")
        quantization = table.table(4)
        if quantization is not None:
            _check_quantization(name, quantization, shape)
        return _Tensor(name, signature or shape, type_, stored > 0)

    def _ends_of(self, subgraph: int, table: Table) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the inputs and the outputs of a subgraph."""
        tensors = self._tensors[subgraph]
        ends = table.numbers(1, I32, len(tensors)), table.numbers(2, I32, MOST_TENSORS)
        for index in (*ends[0], *ends[1]):
            if not 0 <= index < len(tensors):
                raise _DamageError(f"subgraph {subgraph} takes or gives tensor {index}; it has {len(tensors)}")
        if len(set(ends[0])) < len(ends[0]) or any(tensors[index].constant for index in ends[0]):
            raise _DamageError(f"subgraph {subgraph} takes a tensor twice, or one that is constant")
        return ends

    def _operators_of(self, subgraph: int, table: Table) -> set[int]:
        """Return the subgraphs that the operators of a subgraph call."""
        tables = table.tables(3, self._operators_left)
        self._operators_left -= len(tables)
        inputs, outputs = self._ends[subgraph]
        tensors = self._tensors[subgraph]
        known = [tensor.constant for tensor in tensors]
        for index in inputs:
            known[index] = True
        calls: set[int] = set()
        for number, operator in enumerate(tables):
            self._check_operator(f"operator {number} of subgraph {subgraph}", operator, known, calls)
        for index in outputs:
            if not known[index]:
                raise _DamageError(f"no operator computes {tensors[index].name}, an output")
        return calls

    def _check_operator(self, place: str, table: Table, known: list[bool], calls: set[int]) -> None:
        """Check an operator; note in `known` what it computes and in `calls` what it calls."""
        opcode = table.number(0, U32)
        if opcode >= len(self._codes):
            raise _DamageError(f"{place} has operation {opcode} of {len(self._codes)}")
        code, operation = self._codes[opcode]
        place = f"{place} ({operation.name})"
        inputs, outputs = table.numbers(1, I32, len(known) + 1), table.numbers(2, I32, len(known))
        if not (
            operation.least_inputs <= len(inputs) <= operation.most_inputs
            and operation.least_outputs <= len(outputs) <= operation.most_outputs
        ):
            raise _DamageError(f"{place} has {len(inputs)} inputs and {len(outputs)} outputs")
        for number, index in enumerate(inputs):
            if index == -1 and number >= OPTIONAL.get(code, ANY):
                continue
            if not 0 <= index < len(known):
                raise _DamageError(f"{place} takes tensor {index}; there are {len(known)}")
            if not known[index]:
                raise _DamageError(f"{place} takes tensor {index}, which is not computed before it")
        for index in outputs:
            if not 0 <= index < len(known):
                raise _DamageError(f"{place} gives tensor {index}; there are {len(known)}")
            if known[index]:
                raise _DamageError(f"{place} writes tensor {index}, which is constant, an input or computed already")
            known[index] = True
        if table.has(5) or table.has(9) or table.has(10) or table.has(12):
            raise _DamageError(f"{place} has options of a custom operation")
        if table.vector(7, 1)[1] or table.vector(8, 4)[1]:
            raise _DamageError(f"{place} changes its inputs or has intermediate tensors")
        options = table.table(4)
        kind = table.number(3, U8)
        if (kind != 0) != (options is not None) or kind not in (0, operation.options):
            raise _DamageError(f"{place} has options of type {kind}; they are {operation.options}")
        if options is None:
            if operation.needs_options:
                raise _DamageError(f"{place} has no options")
            return
        if not options.scalars_are_inside():
            raise _DamageError(f"{place} has options that extend past the end")
        if kind in OPTION_VECTORS:
            options.vector(*OPTION_VECTORS[kind])
        if code in COUNTED:
            count = len(inputs if COUNTED[code] == "inputs" else outputs)
            if options.number(0, I32) != count:
                raise _DamageError(f"{place} has {count} {COUNTED[code]}; its options say {options.number(0, I32)}")
        if code in SUBGRAPHS_OF:
            self._check_call(place, code, options, inputs=inputs, outputs=outputs, calls=calls)

    def _check_call(
        self,
        place: str,
        code: int,
        options: Table,
        *,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        calls: set[int],
    ) -> None:
        """Check that the subgraphs of IF or WHILE exist and have as many inputs and outputs as the operator."""
        called = options.number(0, I32), options.number(1, I32)
        for index in called:
            if not 0 < index < len(self._subgraphs):
                raise _DamageError(f"{place} calls subgraph {index}; there are {len(self._subgraphs)}")
        calls.update(called)
        (first_in, first_out), (second_in, second_out) = (self._ends[index] for index in called)
        taken = len(inputs) - (code == 118)  # IF: without its condition
        first_gives = len(outputs) if code == 118 else 1
        counts = len(first_in), len(first_out), len(second_in), len(second_out)
        if counts != (taken, first_gives, taken, len(outputs)) or (code == 119 and taken != len(outputs)):
            raise _DamageError(f"{place} and the subgraphs {called} that it calls differ in their inputs or outputs")

    def _check_names(self) -> None:
        """Check metadata and signatures."""
        for index in self._model.numbers(5, I32, MOST_NAMED):
            if not 0 <= index < len(self._sizes):
                raise _DamageError(f"its metadata is in buffer {index}; there are {len(self._sizes)}")
        for table in self._model.tables(6, MOST_NAMED):
            name, index = table.text(0), table.number(1, U32)
            if name not in METADATA or index >= len(self._sizes):
                raise _DamageError(f"it has metadata '{(name or '')[:60]}' in buffer {index}")
        for signature in self._model.tables(7, MOST_NAMED):
            subgraph = signature.number(4, U32)
            if signature.text(2) is None or subgraph >= len(self._subgraphs):
                raise _DamageError(
                    f"it has a signature without a name, or of subgraph {subgraph}, which does not exist"
                )
            for tensor in (*signature.tables(0, MOST_NAMED), *signature.tables(1, MOST_NAMED)):
                index = tensor.number(1, U32)
                if tensor.text(0) is None or index >= len(self._tensors[subgraph]):
                    raise _DamageError(f"it has a signature with tensor {index}, which has no name or does not exist")

    def _check_main(self, row: Sequence[int] | None, outputs: int | None) -> None:
        """Check the input and the output of the graph."""
        inputs, gives = ([self._tensors[0][index] for index in indices] for indices in self._ends[0])
        if len(inputs) != 1 or len(gives) != 1:
            raise RequestError(f"the network has {len(inputs)} inputs and {len(gives)} outputs; it must have one each")
        for tensor in (*inputs, *gives):
            if tensor.type != FLOAT32:
                raise RequestError(
                    f"the network's input or output, {tensor.name}, is {TYPES[tensor.type][0]}; features and scores "
                    "are float32: begin the network with keras.Input(..., dtype='float32')"
                )
        if row is not None and not _fits(inputs[0].shape[1:], row):
            raise RequestError(f"the network takes rows of shape {list(inputs[0].shape[1:])}; an event has {list(row)}")
        if outputs is not None and not _fits(gives[0].shape[-1:], [outputs]):
            raise RequestError(f"the network gives {gives[0].shape[-1]} scores; {outputs} are expected")


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Return True if a shape may become the wanted one: -1 any size, an empty shape any shape."""
    return not shape or (
        len(shape) == len(wanted) and all(size in (-1, other) for size, other in zip(shape, wanted, strict=True))
    )


def _buffer_size(number: int, table: Table) -> int:
    """Return how many bytes a buffer has."""
    size = table.vector(0, 1)[1]  # at any multiple of 4: the converter does not align them to 16, as the schema says
    if table.number(1, U64) > 1 or table.number(2, U64) > 1:
        raise _DamageError(f"buffer {number} is outside of its FlatBuffer")
    return size


def _operation(table: Table) -> tuple[int, Operation]:
    """Return what an operator code stands for: the larger of the old and the new field, as LiteRT has it."""
    code = max(table.number(0, I8), table.number(3, I32))
    table.text(1)
    operation = OPERATIONS.get(code)
    if operation is None:
        raise RequestError(f"the network needs {_name(table, code)}; choose layers that do without it")
    if table.has(1):
        raise _DamageError(f"its operation {operation.name} is marked as a custom one")
    return code, operation


def _name(table: Table, code: int) -> str:
    """Return how a user knows an operation that is not served."""
    if code != CUSTOM:
        return f"LiteRT's operation {code}, which is not served"
    name = (table.text(1) or "")[:60]
    if name.startswith("FlexTensorList"):
        return f"'{name}', which LiteRT does not have: recurrent layers are served with unroll=True"
    return f"'{name}', which LiteRT does not have"


def _check_quantization(name: str, table: Table, shape: tuple[int, ...]) -> None:
    """Reject quantisation parameters that do not fit the tensor."""
    scales, zeros = table.numbers(2, F32, MOST_CHANNELS), table.vector(3, 8)[1]
    lows, highs = table.vector(0, 4)[1], table.vector(1, 4)[1]
    if table.number(4, U8) or table.has(5):
        raise _DamageError(f"{name} is quantised in a way of its own")
    if not scales and not zeros and lows == highs <= 1:
        return
    dimension = table.number(6, I32)
    channels = shape[dimension] if 0 <= dimension < len(shape) else 1
    sizes = {len(scales), zeros}
    if len(sizes) > 1 or len(scales) not in (1, channels) or lows != highs or lows not in (0, 1, channels):
        raise _DamageError(f"{name}, shape {list(shape)}, has {len(scales)} scales and {zeros} zero points")
    if not all(0 < scale < math.inf for scale in scales):
        raise _DamageError(f"{name} has a scale that is not above 0")


def _check_no_recursion(calls: list[set[int]]) -> None:
    """Reject subgraphs that call themselves, directly or by others."""
    callers = [0] * len(calls)
    for called in calls:
        for index in called:
            callers[index] += 1
    free = [index for index, count in enumerate(callers) if not count]
    for caller in free:  # grows while it is read: a subgraph whose callers have all been read is free
        for index in calls[caller]:
            callers[index] -= 1
            if not callers[index]:
                free.append(index)
    if len(free) < len(calls):
        raise _DamageError("a subgraph calls itself")
