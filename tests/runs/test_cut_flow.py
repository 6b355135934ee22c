"""The cut flow counts what each cut leaves, raw and weighted, and shows both."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hepfaas.exact import ExactSum
from hepfaas.local.tables import cut_flow_rows
from hepfaas.runs.cut_flow import CutFlow, cut_flow
from hepfaas.runs.results import PreparedPart, prepared_parts
from hepfaas.steps.sum import added
from hypothesis import given
from hypothesis import strategies as st

EVENTS = st.lists(st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6)), max_size=30)
"""Number of the cut that rejects an event (2: none), and its weight."""


def part(file: str, events: list[tuple[int, float]]) -> PreparedPart:
    """Return a prepared part of events that two cuts reject or none."""
    cuts, weights = np.array([cut for cut, _ in events], int), np.array([weight for _, weight in events], float)
    counts = np.bincount(cuts, minlength=3).tolist()
    groups = [weights[cuts == cut] for cut in range(3)]
    flow = tuple((ExactSum.of(group).to_json(), ExactSum.of_squares(group).to_json()) for group in groups)
    return PreparedPart("key", 0, file, (0, len(events)), 0, (counts[2], 0, 0), 0, "", tuple(counts[:2]), flow)


@given(EVENTS, EVENTS, EVENTS)
def test_the_flow_is_that_of_masks_on_all_events_of_a_sample(
    one: list[tuple[int, float]], other: list[tuple[int, float]], top: list[tuple[int, float]]
) -> None:
    parts = [part("a", one), part("b", top), part("c", other)]
    flow = cut_flow(["x", "y"], parts, {"a": "higgs", "b": "top", "c": "higgs"})
    assert flow.cuts == ("all events", "x", "y")
    assert [sample.sample for sample in flow.samples] == ["higgs", "top"]
    for sample, events in zip(flow.samples, (one + other, top), strict=True):
        left = [[weight for cut, weight in events if cut >= number] for number in range(3)]
        assert sample.events == tuple(map(len, left))
        assert sample.weights == pytest.approx([math.fsum(weights) for weights in left], rel=1e-12, abs=1e-9)
        assert sample.uncertainties == pytest.approx([math.hypot(*weights) for weights in left], rel=1e-12)
    assert CutFlow.from_json(flow.to_json()) == flow


def test_a_row_has_what_each_sample_has_left_raw_and_weighted() -> None:
    flow = cut_flow(["x", "y"], [part("a", [(0, 600.0), (1, -30.0), (2, 4.0), (2, 1_230.0)])], {"a": "top"})
    assert cut_flow_rows(flow) == [
        {"cut": "all events", "top": "4 (1,800 ± 1,400)"},
        {"cut": "x", "top": "3 (1,200 ± 1,200)"},
        {"cut": "y", "top": "2 (1,200 ± 1,200)"},
    ]


@given(st.tuples(EVENTS, EVENTS, EVENTS, EVENTS))
def test_sums_of_parts_have_the_flow_of_each_file_once(events: tuple[list[tuple[int, float]], ...]) -> None:
    def result(*some: PreparedPart) -> Any:
        return json.loads(json.dumps({"parts": list(map(vars, some))}))

    parts = [part(file, some) for file, some in zip("abaa", events, strict=True)]
    first = added("prepare", [result(parts[0]), result(*parts[1:3])])
    summed = prepared_parts(added("prepare", [first, result(parts[3])]))
    assert [bool(one.flow) for one in summed] == [True, True, False, False]
    samples = {"a": "higgs", "b": "top"}
    assert cut_flow(["x", "y"], summed, samples) == cut_flow(["x", "y"], parts, samples)


def test_a_flow_without_weights_has_counts_alone() -> None:
    bare = PreparedPart("key", 0, "a", (0, 5), 0, (2, 1, 1), 0, "", (1,))
    flow = cut_flow(["x"], [bare], {"a": "higgs"})
    assert cut_flow_rows(flow) == [{"cut": "all events", "higgs": "5"}, {"cut": "x", "higgs": "4"}]
    assert CutFlow.from_json(flow.to_json()) == flow
