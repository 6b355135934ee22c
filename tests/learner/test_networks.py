"""Networks as users write them: their labels, their scores, what can be served, and spellings of Keras 2."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.learner.learner import Learner
from hepfaas.models.graph_check import check_graph
from hepfaas.models.litert import LiteRtModel
from hepfaas.training.segments import Rows, blocks_of
from numpy.typing import NDArray
from support.learners import FEATURES, HEAD, PARTS, X, Y, fetch, ignore, network, same, train
from support.reused_learner import ReusedLearner

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def reused() -> Iterator[ReusedLearner]:
    with ReusedLearner() as process:
        yield process


@pytest.fixture
def lines() -> list[str]:
    return []


def made(reused: ReusedLearner, code: str, **settings: Any) -> Learner:
    worker = reused(code, **settings)
    worker.make()
    return worker


def served(worker: Learner, features: Floats = X) -> Floats:
    """Return the scores of the graph, which is one that a worker accepts."""
    graph = worker.graph()
    check_graph(graph, [FEATURES], worker.facts.outputs)
    return LiteRtModel(graph).predict(features)


SGD = "optimizer=keras.optimizers.SGD(0.1)"

BRIER = """
class Brier(keras.losses.Loss):
    def call(self, y, p):
        assert y.shape[1:] == p.shape[1:], (y.shape, p.shape)
        return keras.ops.mean(keras.ops.square(keras.ops.cast(y, p.dtype) - p), axis=-1)
"""


def trained(reused: ReusedLearner, code: str, **settings: Any) -> dict[str, NDArray[Any]]:
    worker = made(reused, code, **settings)
    train(worker, range(1))
    return {name: array for name, array in worker.state().items() if name.startswith("model/")}


@pytest.mark.parametrize("xla", [False, True])
def test_a_loss_of_the_users_own_learns_what_the_built_in_one_learns(reused: ReusedLearner, xla: bool) -> None:
    layers = "L.Dense(4, activation='relu'), L.Dense(1, activation='sigmoid')"
    own = BRIER + network(layers, f"loss=Brier(), {SGD}").removeprefix(HEAD)
    built_in = network(layers, f"loss='mse', {SGD}")
    states = [trained(reused, code, xla=xla) for code in (HEAD + own, built_in)]
    assert same(*states)


OWN_STEP = """
import keras, tensorflow as tf
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, activation="sigmoid")
    def call(self, x, training=False):
        return self.dense(x)
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(y, tf.float32) - self(x, training=True)))
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return {"loss": loss}
def model(idim):
    net = Net()
    net.compile(loss="mse", optimizer=keras.optimizers.SGD(0.1))
    return net
"""


def test_a_step_of_the_users_own_learns_what_the_usual_one_learns(reused: ReusedLearner) -> None:
    usual = OWN_STEP.replace("def train_step", "def unused")
    one, other = (list(trained(reused, code).values()) for code in (OWN_STEP, usual))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_fit_of_the_users_own_leads_to_labels_of_the_shape_of_the_scores(reused: ReusedLearner) -> None:
    own = """
class Net(keras.Sequential):
    def fit(self, x, y, **options):
        assert y.shape == (len(x),)
        return super().fit(x, y, shuffle=False, **options)
"""
    layers = "L.Dense(4, activation='relu'), L.Dense(1, activation='sigmoid')"
    code = (
        HEAD
        + BRIER
        + own
        + network(layers, f"loss=Brier(), {SGD}").removeprefix(HEAD).replace("keras.Sequential", "Net")
    )
    usual = code.replace("Brier()", "'mse'")
    one, other = (list(trained(reused, each).values()) for each in (code, usual))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


METRIC = """
def distance(y, p):
    assert y.shape[1:] == p.shape[1:], (y.shape, p.shape)
    return keras.ops.abs(keras.ops.cast(y, p.dtype) - p)
"""


def test_a_metric_of_the_users_own_gets_labels_of_the_shape_of_the_scores(reused: ReusedLearner) -> None:
    code = network("L.Dense(1, activation='sigmoid')", "loss='mse', metrics=[distance], optimizer='sgd'")
    worker = made(reused, HEAD + METRIC + code.removeprefix(HEAD))
    found = worker.validate(blocks_of(PARTS, 1), fetch, ignore)
    assert found["distance"] == pytest.approx(np.abs(worker.predict(X)[:, 0] - Y).mean(), rel=1e-4)


@pytest.mark.parametrize("loss", ["'mse'", "'categorical_hinge'", "'kl_divergence'", "Brier()"])
def test_losses_of_several_outputs_that_take_one_hot_labels_get_them(reused: ReusedLearner, loss: str) -> None:
    code = network("L.Dense(3, activation='softmax')", f"loss={loss}, metrics=['accuracy'], optimizer='sgd'")
    worker = made(reused, HEAD + BRIER + code.removeprefix(HEAD), labels=(0, 1, 2))
    found = worker.validate(blocks_of(PARTS, 1), fetch, ignore)
    assert found["accuracy"] == pytest.approx((worker.predict(X).argmax(axis=1) == Y).mean(), abs=1e-4)


def sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def softmax(values: Floats) -> Floats:
    powers = np.exp(values)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def clipped(values: Floats) -> Floats:
    return np.clip(values, 0, 1)


HIDDEN = "lambda y, p: keras.losses.binary_crossentropy(y, p, from_logits=True)"
SCORES = [
    ("linear", "'mse'", clipped, "clipped to 0 to 1"),
    ("tanh", "'hinge'", lambda x: (x + 1) / 2, "(output + 1) / 2"),
    ("tanh", "'mse'", clipped, "clipped to 0 to 1"),
    ("linear", "'hinge'", lambda x: sigmoid(2 * x), "a margin of -1 to 1"),
    ("linear", "keras.losses.BinaryCrossentropy(from_logits=True)", sigmoid, "is a logit"),
    ("linear", "keras.losses.BinaryFocalCrossentropy(from_logits=True)", sigmoid, "is a logit"),
    ("linear", HIDDEN, sigmoid, "is a logit"),
    ("relu", "'binary_crossentropy'", clipped, "clipped to 0 to 1"),
    ("sigmoid", "'binary_crossentropy'", lambda x: x, ""),
    ("sigmoid", "'hinge'", lambda x: x, ""),
    ("sigmoid", "keras.losses.BinaryCrossentropy(from_logits=True)", lambda x: x, "leave out one of them"),
]
SEVERAL = [
    ("softmax", "'sparse_categorical_crossentropy'", lambda x: x, ""),
    ("linear", "keras.losses.SparseCategoricalCrossentropy(from_logits=True)", softmax, "the softmax of the outputs"),
    ("linear", "'categorical_hinge'", softmax, "the softmax of the outputs"),
    ("linear", "keras.losses.BinaryCrossentropy(from_logits=True)", sigmoid, "each score is the sigmoid"),
    ("linear", "'mse'", clipped, "clipped to 0 to 1"),
]


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_served_score_is_a_probability_whatever_loss_and_activation_are(
    reused: ReusedLearner, outputs: int
) -> None:
    """The activation is computed here, from the kernel and the bias."""
    activations = {"linear": lambda x: x, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid}
    for activation, loss, expected, text in SCORES if outputs == 1 else SEVERAL:
        layers = f"L.Dense({outputs}, activation='{activation}', kernel_initializer=keras.initializers.Constant(W))"
        weights = "import numpy as np\nW = np.random.default_rng(3).normal(0, 2, (6, OUTPUTS))\n"
        code = weights.replace("OUTPUTS", str(outputs)) + network(layers, f"loss={loss}, optimizer='sgd'")
        worker = made(reused, code, labels=tuple(range(max(2, outputs))))
        linear = (X @ np.random.default_rng(3).normal(0, 2, (6, outputs))).astype(np.float32)
        assert linear.min() < -1.5
        assert linear.max() > 1.5
        scores = expected({**activations, "softmax": softmax}[activation](linear))  # type: ignore[no-untyped-call]
        np.testing.assert_allclose(worker.predict(X), scores, atol=1e-5, err_msg=f"{activation} {loss}")
        np.testing.assert_allclose(served(worker), scores, atol=1e-5, err_msg=f"{activation} {loss}")
        assert text in worker.facts.score, (activation, loss)
        assert bool(worker.facts.score) == bool(text), (activation, loss)
        assert worker.facts.notes == worker.facts.score


def test_the_mean_of_folds_is_that_of_their_probabilities(reused: ReusedLearner) -> None:
    loss = "keras.losses.BinaryCrossentropy(from_logits=True)"
    worker = reused(network("L.Dense(1)", f"loss={loss}, optimizer=keras.optimizers.SGD(1.0)"))
    states, scores = [], []
    for number in range(2):
        worker.make()
        train(worker, range(1 + number))
        states.append(worker.state())
        scores.append(worker.predict(X))
    graph = worker.export(states).graph
    np.testing.assert_allclose(LiteRtModel(graph).predict(X), (scores[0] + scores[1]) / 2, atol=1e-5)


FUNCTIONAL = """
import keras
from keras import layers as L, ops
def model(idim):
    x = keras.Input((idim,))
    h = BODY
    net = keras.Model(x, L.Dense(1, activation="sigmoid", dtype="float32")(h))
    net.compile(loss="binary_crossentropy", optimizer="adam")
    return net
"""


@pytest.mark.parametrize(
    "body",
    [
        "L.LSTM(4)(L.Reshape((2, 3))(x))",
        "L.Bidirectional(L.GRU(3))(L.Reshape((2, 3))(x))",
        "L.SimpleRNN(4)(L.Masking()(L.Reshape((2, 3))(x)))",
        "L.Dense(8, activation='gelu', dtype='mixed_float16')(x)",
        "L.BatchNormalization(dtype='mixed_bfloat16')(L.Dense(8, dtype='float16')(x))",
        "L.Dense(8, dtype='float64')(x)",
    ],
)
def test_recurrent_layers_and_other_precisions_are_served_in_float32(reused: ReusedLearner, body: str) -> None:
    worker = made(reused, FUNCTIONAL.replace("BODY", body))
    before = worker.state()
    np.testing.assert_allclose(served(worker, X[:500]), worker.predict(X[:500]), atol=1e-5)
    assert same(before, worker.state())
    if "mixed" in body or "LSTM" in body:
        train(worker, range(1))
        np.testing.assert_allclose(served(worker, X[:500]), worker.predict(X[:500]), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        ("ops.erf(x)", "Erf; use gelu instead of erf"),
        ("ops.cast(ops.cast(x, 'float16') * 2, 'float32')", "Mul of float16; use float32, also for mixed precision"),
        ("ops.median(x, axis=1, keepdims=True)", "Ceil of float64, Mul of float64, Sub of float64; use float32"),
        ("ops.fft((x, x))[0]", "Complex, FFT; use layers without it"),
    ],
)
def test_what_litert_cannot_compute_is_named(reused: ReusedLearner, body: str, operation: str) -> None:
    worker = made(reused, FUNCTIONAL.replace("BODY", body))
    with pytest.raises(RequestError) as caught:
        worker.graph()
    message = f"model.py: LiteRT, which serves the network, has no operation {operation}"
    assert str(caught.value) == message


DRAWS = """
import keras
class Noise(keras.layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))
def model(idim):
    net = keras.Sequential([keras.Input((idim,)), Noise(), keras.layers.Dense(1, activation="sigmoid")])
    net.compile(loss="mse", optimizer="sgd")
    return net
"""


def test_a_network_that_draws_its_scores_is_refused(reused: ReusedLearner) -> None:
    worker = reused(DRAWS)
    with pytest.raises(RequestError, match=r"^model\.py: the network draws random numbers \(.*\) when it computes sco"):
        worker.make()


def test_the_export_before_the_first_epoch_changes_no_bit_of_the_training(reused: ReusedLearner) -> None:
    code = FUNCTIONAL.replace("BODY", "L.Dropout(0.5)(L.LSTM(4)(L.Reshape((2, 3))(x)))")
    states = []
    for checked in (True, False):
        worker = made(reused, code)
        if checked:
            worker.graph()
        train(worker, range(1))
        states.append(worker.state())
    assert same(*states)


OLD = """
from keras.layers.core import Dense, Dropout
from keras.models import Sequential
from keras.optimizers import OPTIMIZER
from keras import backend as K
import tensorflow as tf
from tensorflow import keras as other
def model(idim):
    net = Sequential()
    net.add(Dense(8, input_dim=idim, activation="relu"))
    net.add(tf.keras.layers.Dense(1, activation="sigmoid"))
    assert other.layers.Dense is Dense and K.mean is not None
    net.compile(loss="binary_crossentropy", optimizer=OPTIMIZER(ARGUMENTS), metrics=["accuracy"])
    return net
"""
NEW = "import keras\nL = keras.layers\n" + network(
    "L.Dense(8, activation='relu'), L.Dense(1, activation='sigmoid')", "loss='binary_crossentropy', optimizer=OPTIMIZER"
).removeprefix(HEAD)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "of_keras_3", "notes"),
    [
        ("Adam", "lr=1e-2", "Adam(1e-2)", ["'lr' of the optimizer"]),
        (
            "SGD",
            "lr=0.1, decay=1e-2, momentum=0.9, nesterov=True",
            "SGD(keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 1e-2), momentum=0.9, nesterov=True)",
            ["'lr' of the optimizer", "'decay' of the optimizer"],
        ),
        ("Adam", "1e-2, decay=0", "Adam(1e-2)", []),
    ],
)
def test_spellings_of_keras_2_are_accepted_with_a_note(
    reused: ReusedLearner, optimizer: str, arguments: str, of_keras_3: str, notes: list[str]
) -> None:
    worker = made(reused, OLD.replace("OPTIMIZER", optimizer).replace("ARGUMENTS", arguments))
    told = worker.facts.notes.splitlines()
    assert [note for note in told if "optimizer" in note and any(start in note for start in notes)] == told[1:]
    assert len(told) == 1 + len(notes)
    assert told[0] == "module keras.layers.core of Keras 2 is accepted; its content is in keras.layers"
    train(worker, range(1))
    new = made(reused, NEW.replace("OPTIMIZER", f"keras.optimizers.{of_keras_3}"))
    train(new, range(1))
    ours, theirs = ([a for n, a in one.state().items() if n.startswith("model/")] for one in (worker, new))
    assert all(map(np.array_equal, ours, theirs))


MOVED = """
from keras.utils import np_utils
from keras.layers.merge import concatenate
from keras.layers.advanced_activations import LeakyReLU
from keras.engine.topology import Layer
from tensorflow.keras.layers.experimental import preprocessing
from tensorflow.keras.optimizers.legacy import SGD
assert np_utils.to_categorical([1]).tolist() == [[0.0, 1.0]]
assert preprocessing.Normalization and LeakyReLU and issubclass(concatenate.__class__, object)
"""


def test_modules_that_have_moved_since_keras_2_are_found(reused: ReusedLearner) -> None:
    code = network("L.Dense(1)", "loss='mse', optimizer=SGD(0.1)")
    worker = made(reused, HEAD + MOVED + code.removeprefix(HEAD))
    assert sum("of Keras 2 is accepted" in note for note in worker.facts.notes.splitlines()) == 7
    with pytest.raises(RequestError, match="No module named 'keras.nothing'"):
        made(reused, "import keras.nothing\n" + code)


def test_legacy_optimizers_are_those_of_keras_3(reused: ReusedLearner) -> None:
    code = network("L.Dense(1)", "loss='mse', optimizer=keras.optimizers.legacy.Adam(1e-3)")
    worker = made(reused, code)
    assert worker.facts.optimizer == "Adam"
    assert "optimizers.legacy.Adam is accepted" in worker.facts.notes


BRANCHES = (
    {"name": "met", "jagged": False, "low": 1.5, "high": 300.0, "width": 1, "type": "float32"},
    {"name": "pt", "jagged": True, "low": 0.0, "high": 90.0, "width": 2, "type": "float32", "mask": True},
    {"name": "bad", "jagged": False, "low": None, "high": None, "width": 1, "type": "float32"},
)
SEEN = """
import keras
def model(SIGNATURE):
    print(*[(c.name, c.branch, c.slot, c.jagged, c.low, c.high, c.kind) for c in columns], sep="\\n")
    net = keras.Sequential([keras.Input((len(columns),)), keras.layers.Dense(1, activation="sigmoid")])
    net.compile(loss="binary_crossentropy", optimizer="adam")
    return net
"""
COLUMNS = [
    ("met", "met", 0, False, 1.5, 300.0, "value"),
    ("pt_0", "pt", 0, True, 0.0, 90.0, "value"),
    ("pt_1", "pt", 1, True, 0.0, 90.0, "value"),
    ("pt_mask_0", "pt", 0, True, 0.0, 90.0, "mask"),
    ("pt_mask_1", "pt", 1, True, 0.0, 90.0, "mask"),
    ("bad", "bad", 0, False, None, None, "value"),
]


@pytest.mark.parametrize(
    "signature", ["idim, columns", "idim, *, columns", "columns", "n, columns=None", "idim, columns, /, units=3"]
)
def test_a_model_gets_the_columns_if_it_takes_them(reused: ReusedLearner, lines: list[str], signature: str) -> None:
    made(reused, SEEN.replace("SIGNATURE", signature), branches=BRANCHES, on_log=lines.append)
    reused.read_all()
    assert lines == [*map(str, COLUMNS)]


def test_a_model_whose_other_arguments_have_values_gets_no_columns(reused: ReusedLearner) -> None:
    code = network("L.Dense(units, activation='sigmoid')", "loss='mse', optimizer='sgd'")
    assert made(reused, code.replace("(idim)", "(idim, units=1)"), branches=BRANCHES).facts.outputs == 1


UNKNOWN_TO_XLA = """
import keras, tensorflow as tf
class Python(keras.layers.Layer):
    def call(self, x, training=False):
        if not training:
            return x
        return tf.ensure_shape(tf.numpy_function(lambda v: v, [x], tf.float32, stateful=False), [None, 6])
def model(idim):
    net = keras.Sequential([keras.Input((idim,)), Python(), keras.layers.Dense(1, activation="sigmoid")])
    net.compile(loss="binary_crossentropy", optimizer="sgd")
    return net
"""


def test_a_network_that_xla_cannot_compile_trains_without_it(reused: ReusedLearner) -> None:
    chosen, without = (trained(reused, UNKNOWN_TO_XLA, xla=xla) for xla in (None, False))
    assert same(chosen, without)
    with pytest.raises(RequestError, match="XLA cannot compile the network .*; leave 'xla' out of params.json"):
        trained(reused, UNKNOWN_TO_XLA, xla=True)


def test_the_rows_of_tests_have_both_labels() -> None:
    assert {0, 1} == set(Y.tolist())
    assert isinstance(fetch("p/0"), Rows)
