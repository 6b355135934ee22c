"""The hostile graphs harm an unconfined process as described; otherwise other tests would prove nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from attacks import mutated_graphs

CHILD = """
import json, resource, signal, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

def peak(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
graph, row = sys.stdin.buffer.read(), json.loads(sys.argv[1])
before = peak("VmPeak"), peak("VmHWM")
interpreter = Interpreter(model_content=graph, num_threads=1)
interpreter.allocate_tensors()
allocated = peak("VmPeak") - before[0]
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([row], dtype=np.float32))
signal.alarm(2)
interpreter.invoke()
scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].tolist()
print(json.dumps({"scores": scores, "allocated": allocated, "used": peak("VmHWM") - before[1]}))
"""

SECRET = b"Bearer of another tenant"


def run(graph: bytes, row: Sequence[float]) -> subprocess.CompletedProcess[bytes]:
    """Run a graph on one row in a separate process, for at most 2 s."""
    return subprocess.run([sys.executable, "-c", CHILD, str(list(row))], input=graph, capture_output=True, check=False)


def test_a_harmless_graph_runs() -> None:
    assert b'"scores": [1.5]' in run(mutated_graphs.harmless(), [1, 2]).stdout


def test_a_constant_that_claims_2_gb_reads_what_lies_behind_it() -> None:
    graph = mutated_graphs.reads_memory()
    answer = run(graph + 100 * SECRET, [len(graph) // mutated_graphs.READ_BYTES + 4]).stdout
    assert SECRET in bytes(int(score) for score in json.loads(answer)["scores"])


@pytest.mark.parametrize(
    ("attack", "row"),
    [
        (mutated_graphs.reads_memory, [3e7]),
        (mutated_graphs.too_many_splits, [1, 1]),
        (mutated_graphs.recursive, [1, 1]),
    ],
)
def test_graphs_crash_the_process(attack: Callable[[], bytes], row: Sequence[float]) -> None:
    assert run(attack(), row).returncode in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)


def test_a_loop_ends_for_some_rows_and_not_for_others() -> None:
    assert run(mutated_graphs.endless(), [0, 0]).returncode == 0
    assert run(mutated_graphs.endless(), [1e9, 0]).returncode == -signal.SIGALRM


def test_memory_is_taken_at_load_or_by_a_request() -> None:
    load = json.loads(run(mutated_graphs.takes_memory_at_load(2**26), [1]).stdout)
    assert load["allocated"] >= 2**26
    request = json.loads(run(mutated_graphs.takes_memory_by_request(), [2**24]).stdout)
    assert request["used"] >= 2**26


@pytest.mark.parametrize(
    ("attack", "reason"),
    [(mutated_graphs.tensor_out_of_range, b"Invalid tensor index"), (mutated_graphs.custom, b"Select TensorFlow op")],
)
def test_litert_refuses_what_it_checks_itself(attack: Callable[[], bytes], reason: bytes) -> None:
    assert reason in run(attack(), [1]).stderr
