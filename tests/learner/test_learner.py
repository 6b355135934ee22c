"""The learner process: bit-identical training, errors with their place in the user's code, an empty environment."""

import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.learner import scratch
from hepfaas.learner.learner import Learner, LearnerLimits, LearnerProcess, LearnerSettings
from hepfaas.models.litert import LiteRtModel
from hepfaas.training.segments import Rows, Slice, blocks_of, rows_in
from numpy.typing import NDArray
from support.learners import (
    FEATURES,
    HEAD,
    IDS,
    MODEL,
    PARTS,
    RNG,
    ROWS,
    X,
    Y,
    epoch,
    fetch,
    ignore,
    ignore_line,
    learner,
    network,
    same,
    train,
)
from support.reused_learner import ReusedLearner


@pytest.fixture(scope="module")
def reused() -> Iterator[ReusedLearner]:
    with ReusedLearner() as process:
        yield process


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def warm(reused: ReusedLearner, lines: list[str]) -> Learner:
    return reused(on_log=lines.append)


@pytest.fixture(scope="module")
def limited() -> Iterator[ReusedLearner]:
    """Return one with limits."""
    with ReusedLearner(LearnerLimits(memory_mb=1_500, cpus=1)) as process:
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
def test_a_training_that_moves_to_another_process_ends_with_the_same_bits(warm: Learner, xla: bool) -> None:
    with learner(xla=xla) as one, learner(xla=xla, cache_bytes=0) as other:
        one.make()
        whole = train(one, range(3))
        if not xla:
            warm.make()
            train(warm, range(2))
            other.make()
            other.load(warm.state())
        else:
            other.make()
            train(other, range(2))
        assert train(other, range(2, 3)) == whole
        assert same(one.state(), other.state())


def test_a_process_that_was_started_before_its_settings_gives_the_same_bits(warm: Learner) -> None:
    states = []
    with learner(started=LearnerProcess()) as early:
        for worker in (early, warm):
            worker.make()
            train(worker, range(1))
            states.append(worker.state())
    assert same(*states)


OPTIONAL = (
    """
import sys
import keras
import matplotlib, scipy, sklearn
hidden = [module for module in (matplotlib, scipy, sklearn) if "site-packages" not in module.__file__]
print("hidden:", hidden, [name for name in sys.modules if sys.modules[name] is None])
"""
    + MODEL
)


def test_packages_that_are_not_imported_with_the_framework_can_be_imported_by_the_code() -> None:
    lines: list[str] = []
    with learner(OPTIONAL, on_log=lines.append) as worker:
        worker.make()
    assert "hidden: [] []" in lines


@pytest.mark.slow
def test_a_slow_store_changes_nothing(reused: ReusedLearner) -> None:
    def slow(batch: str) -> Rows:
        time.sleep(0.05)
        return fetch(batch)

    states = []
    for source in (fetch, slow):
        worker = reused()
        worker.make()
        worker.fit(epoch(0)[0], source, seed=1, first=True, on_rows=ignore)
        states.append(worker.state())
    assert same(*states)


def test_xla_compiles_once_whatever_a_block_leaves_to_the_next(reused: ReusedLearner) -> None:
    worker = reused(xla=True)
    worker.make()
    compile_s = worker.fit([[Slice("p/0", 0, 1)]], fetch, seed=1, first=True, on_rows=ignore).compile_s
    uneven = [[Slice("p/0", 0, 100 + 7 * number)] for number in range(8)]
    assert worker.fit(uneven, fetch, seed=1, first=True, on_rows=ignore).seconds < compile_s


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "chosen"), [("L.Dense(8), L.Dropout(0.4), L.Dense(1)", False), ("L.Dense(1)", True)]
)
def test_xla_is_chosen_for_networks_that_draw_no_random_numbers(
    reused: ReusedLearner, layers: str, chosen: bool
) -> None:
    states = {}
    for xla in (None, False, True):
        worker = reused(network(layers, BINARY), xla=xla)
        worker.make()
        train(worker, range(1))
        states[xla] = worker.state()
    assert same(states[None], states[chosen])
    assert not same(states[False], states[True])


RANDOM = """
import random, keras, tensorflow as tf
width = random.randint(3, 300)
class Noise(keras.layers.Layer):
    def call(self, x, training=False):
        if not training:
            return x
        shape = keras.ops.shape(x)
        return x + random.random() + keras.random.normal(shape) + tf.random.normal(shape)
def model(idim):
    names = {"a", "bb", "ccc", "dddd"}
    net = keras.Sequential([keras.Input((idim,)), Noise(), keras.layers.Dense(width)]
                           + [keras.layers.Dense(len(name)) for name in names] + [keras.layers.Dense(1)])
    net.compile(loss="mse", optimizer="adam")
    return net
"""


@pytest.mark.slow
def test_randomness_of_the_users_own_is_the_same_in_another_process() -> None:
    """Numbers are drawn when the file runs, when the graph is traced, and in each update without Keras's generators."""
    with learner(RANDOM) as one, learner(RANDOM) as other:
        one.make()
        fresh = one.state()
        train(one, range(2))
        half = one.state()
        train(one, range(2, 3))
        whole = one.state()
        one.make()
        assert same(one.state(), fresh)
        other.make()
        assert same(other.state(), fresh)
        other.load(half)
        train(other, range(2, 3))
        assert same(other.state(), whole)


def test_every_row_is_trained_once_and_told(warm: Learner) -> None:
    warm.make()
    seen: list[int] = []
    blocks = blocks_of(PARTS, 1)
    fitted = warm.fit(blocks, fetch, seed=1, first=True, on_rows=seen.append)
    assert fitted.rows == sum(seen) == rows_in(blocks) == ROWS
    assert fitted.id_sum == int(IDS.sum(dtype=np.uint64))
    assert set(fitted.metrics) == {"loss", "accuracy"}
    assert fitted.compile_s > 0
    assert warm.fit(blocks, fetch, seed=1, first=False, on_rows=ignore).compile_s == 0


def test_blocks_of_any_size_follow_each_other(warm: Learner) -> None:
    """Also a block larger than any of `blocks_of`, which needs a larger graph."""
    warm.make()
    large = [Slice("p/0", 0, 2_000)] * 17
    for block in ([Slice("p/0", 0, 1)], large, [Slice("q/0", 5, 5)], [Slice("p/0", 0, 150), Slice("q/1", 0, 350)]):
        fitted = warm.fit([block], fetch, seed=1, first=True, on_rows=ignore)
        assert fitted.rows == rows_in([block])
    assert warm.fit([], fetch, seed=1, first=True, on_rows=ignore).rows == 0
    assert warm.predict(X[:0]).shape == (0, 1)


def test_the_network_learns_and_validation_changes_nothing(warm: Learner) -> None:
    warm.make()
    train(warm, range(4))
    before = warm.state()
    found = warm.validate(blocks_of(PARTS, 9), fetch, ignore)
    assert found["accuracy"] > 0.8
    after = warm.state()
    assert same({k: v for k, v in before.items() if not k.startswith("metrics")},
                {k: v for k, v in after.items() if not k.startswith("metrics")})  # fmt: skip


def test_what_is_served_computes_what_the_network_computes(warm: Learner) -> None:
    warm.make()
    train(warm, range(1))
    exported = warm.export()
    assert exported.keras[:2] == b"PK"
    np.testing.assert_allclose(LiteRtModel(exported.graph).predict(X), warm.predict(X), atol=1e-5)


def test_several_networks_are_exported_as_their_mean_and_side_by_side(warm: Learner) -> None:
    states, outputs = [], []
    for number in range(2):
        warm.make()
        train(warm, range(1 + number))
        states.append(warm.state())
        outputs.append(warm.predict(X))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    exported = warm.export(states)
    assert exported.keras[:2] == b"PK"
    for graph, expected in (
        (exported.graph, (outputs[0] + outputs[1]) / 2),
        (exported.each, np.concatenate(outputs, axis=1)),
    ):
        np.testing.assert_allclose(LiteRtModel(graph).predict(X), expected, atol=1e-5)


def test_a_model_may_take_no_argument(reused: ReusedLearner) -> None:
    code = network('L.Dense(1, activation="sigmoid")', BINARY)
    worker = reused(code.replace("model(idim)", "model()").replace("(idim,)", f"({FEATURES},)"))
    assert worker.make().outputs == 1


def test_what_the_code_prints_is_the_log_and_nothing_else(warm: Learner, lines: list[str]) -> None:
    warm.make()
    deadline = time.monotonic() + 10
    while not lines and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(lines) == {"made a network of 6"}


def test_what_the_network_is_made_of_is_known(warm: Learner) -> None:
    facts = warm.make()
    assert (facts.parameters, facts.outputs, facts.score, facts.own_fit) == (6 * 16 + 16 + 64 + 17, 1, "", False)
    assert facts.loss == "binary_crossentropy"
    assert set(facts.versions) == {"python", "numpy", "tensorflow", "keras"}
    assert "Total params" in facts.summary


def test_a_checkpoint_of_another_network_is_refused(warm: Learner) -> None:
    warm.make()
    state = warm.state()
    name = next(iter(state))
    with pytest.raises(RequestError, match=f"another network than the checkpoint's: '{name}' has shape"):
        warm.load({**state, name: np.zeros((2, 2), dtype=np.float32)})


def test_an_error_of_the_store_is_passed_on(reused: ReusedLearner) -> None:
    def away(batch: str) -> Rows:
        raise UnavailableError("the store is away")

    worker = reused()
    worker.make()
    with pytest.raises(UnavailableError, match="the store is away"):
        worker.fit(blocks_of(PARTS, 1), away, seed=1, first=True, on_rows=ignore)
    assert worker.closed


BINARY = 'loss="binary_crossentropy", optimizer="sgd"'
WRONG = {
    "def model(idim:\n    pass": r"model.py line 1: SyntaxError: '\(' was never closed",
    "x = 1 / 0": "model.py line 1, in <module>: ZeroDivisionError: division by zero",
    "def model(idim):\n    return help_me(idim)\ndef help_me(n):\n    return n.nothing": (
        r"model.py line 2, in model; model.py line 4, in help_me: AttributeError: 'int' object has no attribute"
    ),
    "import sys\nsys.exit(3)": "model.py line 2, in <module>: SystemExit: 3",
    "import nowhere": "model.py line 1, in <module>: ModuleNotFoundError: No module named 'nowhere'",
    "net = 1": "model.py has no function 'model'; define model",
    "def model(a, b, c): return 1": (
        r"model.py: model takes \(a, b, c\); it must take idim, idim and columns, or nothing"
    ),
    "def model(idim): pass": "model.py: model\\(idim\\) returned nothing; end it with 'return'",
    "def model(idim): return [1]": "model.py: model\\(idim\\) returned a list; return a keras.Model",
    f"{HEAD}def model(idim): return keras.Sequential([keras.Input((idim,)), L.Dense(1)])": (
        "model.py: the model is not compiled; call model.compile"
    ),
    f"{HEAD}def model(idim):\n    n = keras.Sequential([keras.Input((5,)), L.Dense(1)])\n    n.compile({BINARY})\n"
    "    return n": "model.py: the network does not take 6 features: ",
    network("L.Reshape((2, 3))", BINARY): r"model.py: an event gives shape \(2, 3\); it must be a row of scores",
    "import os, signal\ndef model(idim): os.kill(os.getpid(), signal.SIGSEGV)": (
        r"model.py: the learner process ended by signal 11 \(SIGSEGV\). It ran out of memory, or the model's code ended"
    ),
    "import os\nprint('so far')\nos._exit(3)": r".* ended with exit code 3\..* Its last output:\n  so far",
    "input()": "model.py line 1, in <module>: EOFError: EOF when reading a line",
}


@pytest.mark.slow
def test_code_that_is_wrong_is_told_where_and_what(reused: ReusedLearner) -> None:
    for code, message in WRONG.items():
        worker = reused(code)
        with pytest.raises(RequestError) as caught:
            worker.make()
        assert re.match(message, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("output", "labels", "message"),
    [
        ('L.Dense(1, activation="sigmoid")', (1, 2), "one output separates labels 0 and 1; the labels are 1, 2"),
        (
            'L.Dense(1, activation="sigmoid")',
            (0, 1, 2),
            "one output separates labels 0 and 1; the labels are 0, 1, 2",
        ),
        ('L.Dense(2, activation="softmax")', (0, 2), "2 outputs separate labels 0 to 1; the labels are 0, 2"),
    ],
)
def test_outputs_that_do_not_fit_the_labels_are_told(
    reused: ReusedLearner, output: str, labels: tuple[int, ...], message: str
) -> None:
    worker = reused(network(output, BINARY), labels=labels)
    with pytest.raises(RequestError, match=message):
        worker.make()


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_two_outputs_learn_too(reused: ReusedLearner, loss: str) -> None:
    code = network(
        'L.Dense(2, activation="softmax")', f'loss="{loss}", optimizer=keras.optimizers.Adam(0.1), metrics=["accuracy"]'
    )
    worker = reused(code)
    worker.make()
    train(worker, range(6))
    assert worker.validate(blocks_of(PARTS, 1), fetch, ignore)["accuracy"] > 0.7
    assert worker.predict(X[:7]).shape == (7, 2)


OWN = """
import keras, tensorflow as tf
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, activation="sigmoid")
    def call(self, x, training=False):
        return self.dense(x)
"""
OWN_STEP = """
    def train_step(self, data):
        x, y = data
        for variable in self.trainable_variables:
            variable.assign_add(tf.ones_like(variable))
        return {"added": tf.constant(4.0)}
"""
OWN_FIT = """
    def fit(self, x, y, batch_size, epochs, verbose):
        print("fit of my own", x.shape, y.shape, batch_size)
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, verbose=verbose)
"""
MAKE = f"\ndef model(idim):\n    net = Net()\n    net.compile({BINARY})\n    return net\n"


def test_a_train_step_of_the_users_own_is_the_one_that_runs(reused: ReusedLearner) -> None:
    worker = reused(OWN + OWN_STEP + MAKE)
    worker.make()
    before = worker.state()
    fitted = worker.fit(blocks_of(PARTS, 1), fetch, seed=1, first=True, on_rows=ignore)
    assert fitted.metrics == {"added": 4.0}
    after = worker.state()
    updates = ROWS // 100
    name = next(name for name in after if name.endswith("kernel"))
    np.testing.assert_allclose(after[name] - before[name], updates, rtol=1e-5)


def test_a_fit_of_the_users_own_is_the_one_that_runs(reused: ReusedLearner) -> None:
    lines: list[str] = []
    worker = reused(OWN + OWN_FIT + MAKE, on_log=lines.append)
    assert worker.make().own_fit
    fitted = worker.fit(blocks_of(PARTS, 1), fetch, seed=1, first=True, on_rows=ignore)
    reused.read_all()
    assert fitted.rows == ROWS
    assert "loss" in fitted.metrics
    assert lines == [f"fit of my own ({ROWS}, 6) ({ROWS},) 100"]


CHECKED_FIT = """
    def fit(self, x, y, batch_size, epochs, verbose):
        print("rows", len(x), "of them right", int(((x[:, 0] + 0.3 * x[:, 1] > 0.7) == y).sum()))
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, verbose=verbose)
"""


@pytest.mark.parametrize("by_block", [False, True])
def test_a_fit_of_the_users_own_gets_each_label_with_its_features(reused: ReusedLearner, by_block: bool) -> None:
    """The feed has room for two blocks: the features of the third take the place of those of the first."""
    lines: list[str] = []
    worker = reused(OWN + CHECKED_FIT + MAKE, on_log=lines.append)
    worker.make()
    blocks = [[Slice("p/0", 0, 900)], [Slice("q/0", 100, 1_100)], [Slice("p/1", 0, 700)], [Slice("q/1", 0, 400)]]
    seen: list[int] = []
    fitted = worker.fit(blocks, fetch, seed=1, first=True, by_block=by_block, on_rows=seen.append)
    reused.read_all()
    sizes = [900, 1_000, 700, 400] if by_block else [3_000]
    assert lines == [f"rows {rows} of them right {rows}" for rows in sizes]
    assert (fitted.rows, seen) == (3_000, sizes)


LAYER = """
import keras, tensorflow as tf
class Odd(keras.layers.Layer):
    def call(self, x, training=False):
        BODY
def model(idim):
    net = keras.Sequential([keras.Input((idim,)), Odd(), keras.layers.Dense(1)])
    net.compile(loss="mse", optimizer="adam")
    return net
"""


def fit(worker: Learner) -> None:
    worker.fit(blocks_of(PARTS, 1), fetch, seed=1, first=True, on_rows=ignore)


@pytest.mark.parametrize(
    ("body", "use", "message"),
    [
        (
            "return nothing(x) if training else x",
            fit,
            "model.py line 5, in call: NameError: name 'nothing' is not defined",
        ),
        (
            "return x + tf.gather(x, [9 + tf.cast(0 * x[0, 0], tf.int32)], axis=1) if training else x",
            fit,
            "model.py line 5, in call: InvalidArgumentError: indices[0] = 9 is not in [0, 6)",
        ),
        (
            "return x + tf.reduce_sum(tf.linalg.svd(tf.reshape(x, (-1, 2, 3)), compute_uv=False))",
            Learner.export,
            "model.py: LiteRT, which serves the network, has no operation Svd; use layers without it",
        ),
        (
            "counter.assign_add(1.0); return x\ncounter = tf.Variable(0.0, name='seen')",
            fit,
            "model.py: the network uses variable 'seen:0', which is not its own and would not be stored; "
            "create it in a layer by self.add_weight, and random generators as its attributes",
        ),
    ],
)
def test_a_layer_that_fails_in_the_graph_is_told(
    reused: ReusedLearner, body: str, use: Callable[[Learner], object], message: str
) -> None:
    worker = reused(LAYER.replace("BODY", body))
    worker.make()
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        use(worker)


def test_code_outside_of_its_folder_is_refused() -> None:
    settings = LearnerSettings(
        code={"../net.py": b""},
        module="../net.py",
        n_features=FEATURES,
        labels=(0, 1),
        batch_size=100,
        seed=3,
        threads=1,
        xla=False,
    )
    with pytest.raises(RequestError, match=r"code file '\.\./net\.py' lies outside its folder"):
        Learner(settings, on_log=ignore_line)


LOOKS = """
import os, keras
print(sorted(os.environ))
print(os.getcwd() == os.environ["HOME"], sorted(os.listdir("code")))
import helper
def model(idim): return helper.net(idim)
"""


def test_the_process_has_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("X509_USER_PROXY", "/tmp/x509up")
    lines: list[str] = []
    helper = network("L.Dense(1)", BINARY).replace("def model", "def net")
    code = {"sub/net.py": LOOKS.encode(), "helper.py": helper.encode()}
    settings = LearnerSettings(
        code=code, module="sub/net.py", n_features=FEATURES, labels=(0, 1), batch_size=100, seed=3, threads=1, xla=False
    )
    with Learner(settings, on_log=lines.append) as worker:
        worker.make()
        worker.state()
    variables = lines[0]
    assert "AWS" not in variables
    assert "X509" not in variables
    assert lines[1] == "True ['helper.py', 'sub']"


HANGS = """
import os
print(os.getcwd(), os.getpid())
while True:
    pass
"""


def test_code_that_hangs_is_ended() -> None:
    lines: list[str] = []
    with learner(HANGS, limits=LearnerLimits(silence_s=3), on_log=lines.append) as worker:
        with pytest.raises(RequestError, match="did not answer for 3 s and was stopped; does the model's code wait"):
            worker.make()
        assert worker.closed
    assert not assert_gone(lines[0]).exists()


GREEDY = """
import os
print(len(os.sched_getaffinity(0)))
import numpy as np
def model(idim):
    return np.ones(1_500_000_000, dtype=np.uint8)
"""


def test_code_that_takes_more_than_it_may_is_told_so(limited: ReusedLearner) -> None:
    lines: list[str] = []
    worker = limited(GREEDY, on_log=lines.append)
    with pytest.raises(RequestError, match=r"MemoryError: .*1\.40 GiB.*; its limit is 1,500 MB$"):
        worker.make()
    assert lines[0] == "1"


def test_a_layer_that_takes_more_than_it_may_is_told_so(limited: ReusedLearner) -> None:
    worker = limited(network("L.Dense(100_000), L.Dense(100_000), L.Dense(1)", BINARY))
    message = r"OOM when allocating tensor with shape\[100000,100000\].*; its limit is 1,500 MB$"
    with pytest.raises(RequestError, match=message):
        worker.make()


def test_a_network_is_trained_within_a_limit(limited: ReusedLearner) -> None:
    worker = limited()
    worker.make()
    train(worker, range(1))


ALONE = f"""
from hepfaas.learner.learner import Learner, LearnerSettings
settings = LearnerSettings(code={{"model.py": {HANGS!r}.encode()}},
    module="model.py", n_features=6, labels=(0, 1), batch_size=100, seed=3, threads=1, xla=False)
with Learner(settings, on_log=lambda line: print(line, flush=True)) as worker:
    worker.make()
"""


def test_the_process_ends_when_the_function_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ALONE], stdout=subprocess.PIPE, text=True) as function:
        assert function.stdout is not None
        printed = function.stdout.readline()
        function.kill()
        scratch.remove(assert_gone(printed))  # else the next learner removes its folder


def assert_gone(printed: str) -> Path:
    """Wait until the process of `HANGS` has ended; return its folder. printed: its line, '<folder> <process>'."""
    folder, pid = printed.split()
    end = time.monotonic() + 10
    while runs(int(pid)):
        assert time.monotonic() < end, f"there is still {pid}"
        time.sleep(0.01)
    return Path(folder)


def runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


FLOOD = """
import os
print("the beginning")
block = (b"y" * 199 + b"\\n") * 5_000
for _ in range(100):
    os.write(1, block)
os.write(1, b"z" * 100_000_000 + b"\\n")
for _ in range(10):
    os.write(1, b"y\\n" * 100_000)
print("the end")
raise ValueError("e" * 1_000_000)
"""

MEASURED = f"""
import re, resource, sys
from hepfaas.errors import RequestError
from hepfaas.learner.learner import Learner, LearnerSettings
from hepfaas.learner.step_log import StepLog
log = StepLog()
settings = LearnerSettings(code={{"model.py": {FLOOD!r}.encode()}},
    module="model.py", n_features=6, labels=(0, 1), batch_size=100, seed=3, threads=1, xla=False)
with Learner(settings, on_log=log.append) as worker:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        worker.make()
    except RequestError as error:
        print(len(str(error)), str(error)[:60])
lines = log.take()
print(lines[0], "|", lines[-1])
print(sum(map(sys.getsizeof, lines)))
print(*[line for line in lines if "left out here" in line])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_model_that_prints_without_end_costs_the_function_little() -> None:
    """100 MB of lines, one line of 100 MB, a million short ones: all are read, so that nothing blocks; few are kept."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    refused, ends, size_bytes, gap, grown_kb = done.stdout.splitlines()
    length, _, words = refused.partition(" ")
    assert words.startswith("model.py line 11, in <module>: ValueError: eeee")
    assert int(length) < 12_000
    assert ends == "the beginning | the end"
    assert int(size_bytes) < 2_100_000
    assert re.match(r"… 1,[\d,]+ lines \([\d.]+ MB\) are left out here", gap)
    assert int(grown_kb) < 200_000


FORGED = """
import os, sys
os.write(int(sys.argv[1]), MESSAGE)
"""


def test_code_that_answers_in_the_learners_place_is_ended() -> None:
    """Other messages: tests/attacks/test_learner.py."""
    assert "Expecting property name" in answered(struct.pack("<I", 2) + b"{]")


def answered(message: bytes) -> str:
    """Return the error for code that writes this to the learner's socket."""
    with learner(FORGED.replace("MESSAGE", repr(message)), limits=LearnerLimits(silence_s=30)) as worker:
        with pytest.raises(RequestError, match=r"sent an invalid answer \(.*\) and was stopped; does") as caught:
            worker.make()
        assert worker.closed
    return str(caught.value)


WEIGHTS = RNG.uniform(-0.5, 2, ROWS).astype(np.float32)


def weighted(batch: str) -> Rows:
    part, number = batch.split("/")
    start = (0 if part == "p" else 2_800) + int(number) * 2_000
    rows = fetch(batch)
    return rows._replace(weights=WEIGHTS[start : start + len(rows.labels)])


LINEAR = network(
    "L.Dense(1, activation='sigmoid')",
    'loss="binary_crossentropy", optimizer=keras.optimizers.SGD(0.5), metrics=["accuracy"], '
    'weighted_metrics=[keras.metrics.BinaryAccuracy(name="weighted_accuracy")]',
)


def cross_entropy(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    return -np.where(Y == 1, np.log(clipped), np.log(1 - clipped))


def test_loss_and_weighted_metrics_of_validation_use_the_weights(reused: ReusedLearner) -> None:
    factors = np.where(Y == 1, 5.0, 0.5)
    worker = reused(LINEAR, weighted=True, class_weight=(0.5, 5.0))
    worker.make()
    found = worker.validate(blocks_of(PARTS, 1), weighted, ignore)
    scores = worker.predict(X)[:, 0].astype(float)
    weights = WEIGHTS * factors
    right = (scores > 0.5) == Y
    assert found["loss"] == pytest.approx((weights * cross_entropy(scores)).sum() / ROWS, rel=1e-4)
    assert found["accuracy"] == pytest.approx(right.mean(), rel=1e-4)
    assert found["weighted_accuracy"] == pytest.approx((weights * right).sum() / weights.sum(), rel=1e-4)


@pytest.mark.parametrize("eagerly", [False, True])
def test_an_update_follows_the_gradient_of_the_weighted_loss(reused: ReusedLearner, eagerly: bool) -> None:
    code = LINEAR.replace("metrics=", f"run_eagerly={eagerly}, metrics=", 1)
    worker = reused(code, weighted=True, batch_size=ROWS)
    worker.make()
    before = worker.state()
    scores = worker.predict(X)[:, 0].astype(float)
    worker.fit(blocks_of(PARTS, 1), weighted, seed=1, first=True, on_rows=ignore)
    after = worker.state()
    name = next(name for name in before if name.endswith("kernel"))
    gradient = (WEIGHTS * (scores - Y)) @ X / ROWS
    np.testing.assert_allclose((after[name] - before[name])[:, 0], -0.5 * gradient, rtol=1e-3, atol=1e-6)


def test_weights_of_one_change_no_bit(reused: ReusedLearner) -> None:
    def ones(batch: str) -> Rows:
        return fetch(batch)._replace(weights=np.ones(len(fetch(batch).labels), dtype=np.float32))

    states = []
    for source in (ones, fetch):
        worker = reused(weighted=True)
        worker.make()
        worker.fit(epoch(0)[0], source, seed=1, first=True, on_rows=ignore)
        states.append(worker.state())
    assert same(*states)


@pytest.mark.slow
def test_a_weighted_training_that_moves_to_another_process_ends_with_the_same_bits() -> None:
    given: dict[str, Any] = {"weighted": True, "class_weight": (1.0, 3.0)}
    with learner(**given) as one, learner(cache_bytes=0, **given) as other:
        one.make()
        train(one, range(1), weighted)
        half = one.state()
        whole = train(one, range(1, 2), weighted)
        other.make()
        other.load(half)
        assert train(other, range(1, 2), weighted) == whole
        assert same(one.state(), other.state())


OWN_WEIGHTED_STEP = """
    def train_step(self, data):
        x, y, w = data
        for variable in self.trainable_variables:
            variable.assign_add(tf.ones_like(variable) * tf.reduce_sum(w))
        return {"sum": tf.reduce_sum(w)}
"""


def test_a_train_step_of_the_users_own_gets_the_weights(reused: ReusedLearner) -> None:
    worker = reused(OWN + OWN_WEIGHTED_STEP + MAKE, weighted=True)
    worker.make()
    before = worker.state()
    worker.fit(blocks_of(PARTS, 1), weighted, seed=1, first=True, on_rows=ignore)
    after = worker.state()
    name = next(name for name in after if name.endswith("kernel"))
    np.testing.assert_allclose(after[name] - before[name], WEIGHTS.sum(dtype=float), rtol=1e-4)


OWN_WEIGHTED_FIT = """
    def fit(self, x, y, batch_size, epochs, verbose, sample_weight):
        print(f"{sample_weight.sum():.2f}")
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, sample_weight=sample_weight)
"""


def test_a_fit_of_the_users_own_gets_the_weights(reused: ReusedLearner) -> None:
    lines: list[str] = []
    worker = reused(OWN + OWN_WEIGHTED_FIT + MAKE, weighted=True, on_log=lines.append)
    worker.make()
    worker.fit(blocks_of(PARTS, 1), weighted, seed=1, first=True, on_rows=ignore)
    reused.read_all()
    assert float(lines[-1]) == pytest.approx(WEIGHTS.sum(dtype=float), abs=0.01)


OWN_TEST_STEP = OWN_STEP.replace("train_step", "test_step")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (OWN_STEP, "model.py: train_step unpacks two values, and events have weights; write 'x, y, sample_weight ="),
        (OWN_TEST_STEP, "model.py: test_step unpacks two values, and events have weights; write"),
        (OWN_FIT, "model.py: fit takes (x, y, batch_size, epochs, verbose); events have weights, so it gets another"),
    ],
)
def test_code_that_takes_no_weights_is_refused_before_the_first_epoch(
    reused: ReusedLearner, part: str, message: str
) -> None:
    worker = reused(OWN + part + MAKE, weighted=True)
    with pytest.raises(RequestError, match=re.escape(message)):
        worker.make()


def test_metrics_that_keras_does_not_weight_are_told(reused: ReusedLearner) -> None:
    lines: list[str] = []
    reused(weighted=True, on_log=lines.append).make()
    reused.read_all()
    assert [line for line in lines if line.startswith("note: events have weights, and Keras leaves them out of")]
