"""The check of a graph accepts what the exporter makes, and names what is wrong with another."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from attacks import mutated_graphs
from attacks.mutated_graphs import Graph, Op, Type, harmless, packed
from hepfaas.errors import RequestError
from hepfaas.models.graph_check import check_graph
from hypothesis import given, settings
from hypothesis import strategies as st

GRAPHS = {path.stem: path.read_bytes() for path in sorted(Path(__file__).with_name("graphs").glob("*.tflite"))}
SERVED = {name: graph for name, graph in GRAPHS.items() if name != "lstm"}


def refusal(graph: bytes, *expected: Any) -> str:
    """Return why a graph is refused."""
    with pytest.raises(RequestError) as refused:
        check_graph(graph, *expected)
    return str(refused.value)


def changed(change: Callable[[Any], None], graph: bytes = harmless()) -> bytes:
    """Return a graph after a change of its model."""
    model = schema.ModelT.InitFromPackedBuf(graph, 0)
    change(model)
    return packed(model)


@pytest.mark.parametrize("name", SERVED)
def test_what_the_exporter_makes_is_accepted(name: str) -> None:
    row, outputs = ([12, 12, 1], 10) if name == "conv2d" else ([16], 1)
    check_graph(SERVED[name], row, outputs)
    check_graph(memoryview(SERVED[name]))


def test_a_network_that_is_exported_now_is_accepted(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3, "softmax")])
    network.compile(loss="categorical_crossentropy")
    network.export(tmp_path / "model.tflite", format="litert", verbose=False)
    check_graph((tmp_path / "model.tflite").read_bytes(), [5], 3)


def test_another_number_of_features_or_scores_is_named() -> None:
    assert "takes rows of shape [16]; an event has [15]" in refusal(GRAPHS["dense"], [15])
    assert "gives 1 scores; 2 are expected" in refusal(GRAPHS["dense"], [16], 2)


def test_operations_of_tensorflow_are_named_with_the_way_out() -> None:
    assert "'FlexTensorListReserve', which LiteRT does not have: recurrent layers" in refusal(GRAPHS["lstm"])
    assert "'FlexPyFunc', which LiteRT does not have; choose layers" in refusal(mutated_graphs.custom())


def test_an_input_of_integers_is_refused() -> None:
    graph = Graph()
    taken, given_ = graph.tensor([1, 2], Type.INT32), graph.tensor([1, 2])
    graph.operator(Op.CAST, [taken], [given_], schema.CastOptionsT())
    graph.ends([taken], [given_])
    assert "is int32; features and scores are float32" in refusal(graph.packed())


@pytest.mark.parametrize(
    ("attack", "finding"),
    [
        (mutated_graphs.reads_memory, "tensor 0 of subgraph 0 ('t0') is sparse"),
        (mutated_graphs.tensor_out_of_range, "operator 0 of subgraph 0 (FULLY_CONNECTED) takes tensor 1000000"),
        (mutated_graphs.recursive, "a subgraph calls itself"),
        (mutated_graphs.too_many_splits, "(SPLIT) has 2 outputs; its options say 1000"),
        (mutated_graphs.takes_memory_at_load, "has 68,719,476,736 bytes; at most 1,073,741,824 fit"),
    ],
)
def test_hostile_graphs_are_refused(attack: Callable[[], bytes], finding: str) -> None:
    assert finding in refusal(attack())


def tensor(model: Any, number: int = 0) -> Any:
    return model.subgraphs[0].tensors[number]


def operator(model: Any) -> Any:
    return model.subgraphs[0].operators[0]


def many_channels(model: Any) -> None:
    tensor(model, 2).quantization = schema.QuantizationParametersT()
    tensor(model, 2).quantization.scale, tensor(model, 2).quantization.zeroPoint = [1.0, 1.0, 1.0], [0, 0, 0]


def of_no_type(model: Any) -> None:
    tensor(model).type = Type.RESOURCE


CHANGES: dict[str, Callable[[Any], object]] = {
    "has 8 bytes; its buffer 1 has 7": lambda model: setattr(model.buffers[1], "data", np.zeros(7, np.uint8)),
    "which is not a number": of_no_type,
    "has shape [1, -2]": lambda model: setattr(tensor(model), "shape", [1, -2]),
    "a vector has 9 numbers": lambda model: setattr(tensor(model), "shape", [1] * 9),
    "signature [-1]": lambda model: setattr(tensor(model), "shapeSignature", [-1]),
    "is in buffer 99": lambda model: setattr(tensor(model), "buffer", 99),
    "is a variable": lambda model: setattr(tensor(model), "isVariable", True),
    "has 3 scales": many_channels,
    "buffer 0 is outside": lambda model: (
        setattr(model.buffers[0], "offset", 64),
        setattr(model.buffers[0], "size", 9),
    ),
    "has version 4": lambda model: setattr(model, "version", 4),
    "LiteRT's operation 129": lambda model: setattr(model.operatorCodes[0], "builtinCode", Op.CALL_ONCE),
    "has operation 7 of 1": lambda model: setattr(operator(model), "opcodeIndex", 7),
    "has 1 inputs and 1 outputs": lambda model: setattr(operator(model), "inputs", [0]),
    "takes tensor -1": lambda model: setattr(operator(model), "inputs", [-1, 2, 3]),
    "which is not computed before it": lambda model: setattr(operator(model), "inputs", [1, 2, 3]),
    "writes tensor 2, which is constant": lambda model: setattr(operator(model), "outputs", [2]),
    "has options of type 1": lambda model: setattr(operator(model), "builtinOptionsType", 1),
    "no operator computes": lambda model: setattr(model.subgraphs[0], "operators", []),
    "the network has 1 inputs and 2 outputs": lambda model: setattr(model.subgraphs[0], "outputs", [1, 1]),
    "takes or gives tensor 9": lambda model: setattr(model.subgraphs[0], "outputs", [9]),
    "takes a tensor twice": lambda model: setattr(model.subgraphs[0], "inputs", [0, 0]),
}


@pytest.mark.parametrize("finding", CHANGES)
def test_what_is_wrong_is_named(finding: str) -> None:
    check_graph(harmless())
    assert finding in refusal(changed(CHANGES[finding]))


@pytest.mark.parametrize("called", [0, 3, -1])
def test_subgraphs_that_are_not_there_are_refused(called: int) -> None:
    def change(model: Any) -> None:
        operator(model).builtinOptions.bodySubgraphIndex = called

    check_graph(mutated_graphs.endless())
    assert f"calls subgraph {called}" in refusal(changed(change, mutated_graphs.endless()))


@pytest.mark.parametrize("name", [None, b"model_control_dependencies"])
def test_metadata_that_litert_acts_on_is_refused(name: bytes | None) -> None:
    def change(model: Any) -> None:
        model.metadata[0].name = name

    assert "it has metadata" in refusal(changed(change, GRAPHS["dense"]))


@pytest.mark.parametrize(("name", "finding"), [(b"\xff", "is not UTF-8"), (None, "which has no name")])
def test_names_of_signatures_must_be_text(name: bytes | None, finding: str) -> None:
    def change(model: Any) -> None:
        model.signatureDefs[0].inputs[0].name = name

    assert finding in refusal(changed(change, GRAPHS["dense"]))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    assert "damaged" in refusal(data)
    assert "damaged" in refusal(struct.pack("<I", 8) + b"TFL3" + data)


@settings(max_examples=500)
@given(st.sampled_from(sorted(SERVED)), st.data())
def test_a_changed_graph_is_accepted_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    graph = bytearray(SERVED[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(graph) - 4))
        graph[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    with contextlib.suppress(RequestError):
        check_graph(graph)


def test_mutations_are_accepted_or_refused_and_the_same_for_one_seed() -> None:
    corpus = list(SERVED.values())
    mutations = list(mutated_graphs.mutated(corpus, 200, seed=3))
    assert mutations == list(mutated_graphs.mutated(corpus, 200, seed=3))
    refused = 0
    for _, graph in mutations:
        try:
            check_graph(graph)
        except RequestError:
            refused += 1
    assert 0 < refused < 200


def test_every_truncation_is_accepted_or_refused() -> None:
    graph = SERVED["lambda_while"]
    for size in range(0, len(graph), 7):
        with pytest.raises(RequestError):
            check_graph(graph[:size])


def test_parts_that_are_read_many_times_are_refused() -> None:
    """2,000 tensors at one place, whose name is long: 150 kB would take as long as 180 MB."""
    graph = Graph()
    first = graph.tensor([1, 2])
    graph.operator(Op.RELU, [first], [first])
    graph.model.subgraphs[0].tensors *= 1_999
    last = graph.tensor([1, 2])
    graph.model.subgraphs[0].tensors[last].name = b"n" * 90_000
    graph.ends([first], [first])
    data = bytearray(graph.packed())
    (vector,) = (at for at in range(0, len(data) - 4, 4) if struct.unpack_from("<I", data, at)[0] == 2_000)
    end = vector + 4 + 4 * last
    place = end + struct.unpack_from("<I", data, end)[0]
    for at in range(vector + 4, end, 4):
        struct.pack_into("<I", data, at, place - at)
    assert "its parts overlap" in refusal(bytes(data))
