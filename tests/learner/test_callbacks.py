"""Learning rates, and Keras callbacks of the user's code, whose state is the same in another process."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.learner.learner import Learner
from hepfaas.training.segments import blocks_of
from support.learners import MODEL, PARTS, ROWS, X, Y, epoch, fetch, ignore, learner, network, same
from support.reused_learner import ReusedLearner

VALIDATION = blocks_of(PARTS, 7)
LINEAR = network("L.Dense(1, activation='sigmoid')", 'loss="binary_crossentropy", optimizer=keras.optimizers.SGD(0.5)')
SCHEDULED = LINEAR.replace("SGD(0.5)", "SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9))")


def rate(state: dict[str, Any]) -> float:
    return float(next(array for name, array in state.items() if name.endswith("learning_rate")))


@pytest.fixture(scope="module")
def reused() -> Iterator[ReusedLearner]:
    with ReusedLearner() as process:
        yield process


@pytest.fixture
def linear(reused: ReusedLearner) -> Learner:
    return reused(LINEAR, batch_size=ROWS)


def update(worker: Learner, **given: float) -> Any:
    """Return the change of the weights in the first update, for a rate of 1, and the rate."""
    worker.make()
    before = worker.state()
    gradient = (worker.predict(X)[:, 0].astype(float) - Y) @ X / ROWS
    worker.begin_epoch(0, **given)
    fitted = worker.fit(blocks_of(PARTS, 1), fetch, seed=1, first=True, on_rows=ignore)
    after = worker.state()
    name = next(name for name in before if name.endswith("kernel"))
    assert rate(after) == pytest.approx(fitted.learning_rate)
    change = (before[name] - after[name])[:, 0].astype(float)
    np.testing.assert_allclose(change, fitted.learning_rate * gradient, rtol=1e-3, atol=1e-7)
    return fitted.learning_rate


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 0.5), ({"learning_rate": 0.125}, 0.125), ({"rate_factor": 0.5}, 0.25), ({"rate_factor": 1.0}, 0.5)],
)
def test_the_learning_rate_of_an_update_is_the_one_that_the_step_names(
    linear: Learner, given: dict[str, float], expected: float
) -> None:
    assert update(linear, **given) == expected


def test_a_factor_is_one_of_the_rate_that_the_model_was_compiled_with(linear: Learner) -> None:
    """Not of the rate in a checkpoint: else a killed process would train with another rate."""
    linear.make()
    linear.begin_epoch(0, rate_factor=0.5)
    state = linear.state()
    linear.make()
    linear.load(state)
    linear.begin_epoch(1, rate_factor=0.5)
    assert rate(linear.state()) == 0.25


def test_the_optimizer_of_the_network_is_known(linear: Learner) -> None:
    facts = linear.make()
    assert (facts.optimizer, facts.callbacks) == ("SGD", "")


def test_a_rate_for_a_model_with_a_schedule_of_its_own_is_refused(reused: ReusedLearner) -> None:
    worker = reused(SCHEDULED)
    worker.make()
    worker.begin_epoch(0)
    with pytest.raises(RequestError, match="compiled with a learning-rate schedule of its own, or without an"):
        worker.begin_epoch(0, learning_rate=0.1)


CALLBACKS = (
    MODEL
    + """
import random
import numpy as np
class Own(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []
    def on_epoch_begin(self, epoch, logs=None):
        self.drawn = random.random() + np.random.rand()
    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, round(self.drawn, 12), *sorted(logs)))
        print(self.seen)
        self.model.optimizer.learning_rate = 1e-3 / (1 + self.drawn * len(self.seen))
        if epoch == 3:
            self.model.stop_training = True
def callbacks():
    return [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.75),
        keras.callbacks.ReduceLROnPlateau(monitor="val_accuracy", patience=1, factor=0.5, min_delta=0.05),
        keras.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=0.02),
        Own(),
    ]
"""
)


class Training:
    """Epochs with their callbacks, and validation, as the steps of a run train them."""

    def __init__(self, worker: Learner) -> None:
        self.worker = worker
        self.stops: list[bool] = []
        self.states: list[dict[str, Any]] = []

    def run(self, first: int, stop: int) -> None:
        """Do segments: two of each epoch."""
        for place in range(first, stop):
            number, segment = divmod(place, 2)
            if segment == 0:
                self.worker.begin_epoch(number)
            fitted = self.worker.fit(epoch(number)[segment], fetch, seed=place, first=segment == 0, on_rows=ignore)
            if segment == 1:
                validated = self.worker.validate(VALIDATION, fetch, ignore)
                metrics = {**fitted.metrics, **{f"val_{name}": value for name, value in validated.items()}}
                self.stops.append(self.worker.end_epoch(metrics))
            self.states.append(self.worker.state())


@pytest.mark.slow
def test_callbacks_have_the_same_state_in_another_process() -> None:
    """After each segment another process takes over: in the middle of an epoch, and at its end."""
    printed: list[list[str]] = [[], []]
    with learner(CALLBACKS, on_log=printed[0].append) as one, learner(CALLBACKS, on_log=printed[1].append) as other:
        facts = one.make()
        assert facts.callbacks == "LearningRateScheduler, ReduceLROnPlateau, EarlyStopping, Own"
        whole = Training(one)
        whole.run(0, 8)
        other.make()
        for place in range(1, 8):
            resumed = Training(other)
            other.load(whole.states[place - 1])
            resumed.run(place, place + 1)
            assert same(resumed.states[0], whole.states[place]), place
            if place % 2:
                assert resumed.stops == [whole.stops[place // 2]]
        one.state()
    assert whole.stops[3]
    last = max(printed[0], key=len)
    assert last.count("val_accuracy") == 4
    assert max(printed[1], key=len) == last


def test_a_training_that_begins_anew_has_new_callbacks(reused: ReusedLearner) -> None:
    """A run that continues from another version; its epochs are counted from 0."""
    worker = reused(CALLBACKS)
    worker.make()
    training = Training(worker)
    training.run(0, 2)
    training.run(0, 2)
    rates, once = training.states[-1], training.states[1]
    assert {name: array.shape for name, array in rates.items()} == {n: a.shape for n, a in once.items()}
    assert rates["callbacks/logs/val_loss"].shape == (1,)
    worker.make()
    worker.load({name: array for name, array in once.items() if not name.startswith("callbacks/")})
    worker.begin_epoch(0)
    assert "callbacks/logs/val_loss" not in worker.state()


def test_the_epochs_of_callbacks_that_are_gone_are_left_out(linear: Learner) -> None:
    linear.make()
    state = linear.state()
    linear.load({**state, "callbacks/rates": np.zeros(3), "callbacks/logs/loss": np.zeros(3)})
    assert same(linear.state(), state)


def with_callbacks(text: str) -> str:
    return f"{LINEAR}\nC = keras.callbacks\nclass Own(C.Callback):\n    {text}\ndef callbacks(): return [Own()]\n"


WRONG = {
    f"{LINEAR}\ndef callbacks(model): return []": "model.py: callbacks takes (model); it must take no argument",
    f"{LINEAR}\ndef callbacks(): return [1]": "model.py: callbacks() must return a list of keras.callbacks.Callback",
    f"{LINEAR}\ndef callbacks(): return 1 / 0": "model.py line 8, in callbacks: ZeroDivisionError",
    f"{LINEAR}\ndef callbacks(): return [keras.callbacks.SwapEMAWeights()]": (
        "model.py: callback SwapEMAWeights has on_predict_begin, which is not called, since updates run in one compiled"
    ),
    f"{LINEAR}\ndef callbacks(): return [keras.callbacks.LambdaCallback(on_train_batch_end=print)]": (
        "model.py: callback LambdaCallback has on_train_batch_end, which is not called"
    ),
    with_callbacks("def on_train_batch_end(self, batch, logs=None): pass"): (
        "model.py: callback Own has on_train_batch_end, which is not called, since updates run in one compiled loop; "
        "callbacks are called between epochs: on_train_begin, on_epoch_begin, on_epoch_end"
    ),
    with_callbacks("def on_train_begin(self, logs=None): self.model.layers[0].set_weights([0, 1])"): (
        "model.py line 10, in on_train_begin: AttributeError: 'int' object has no attribute 'shape'"
    ),
    with_callbacks("def on_train_begin(self, logs=None): self.model.weights[0].assign_add(self.model.weights[0])"): (
        "model.py: callback Own changes the network's weights in on_train_begin; it may change the learning rate and "
        "stop the training, since another process can repeat only these"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("code", WRONG)
def test_callbacks_that_cannot_be_called_are_refused_before_the_first_epoch(reused: ReusedLearner, code: str) -> None:
    worker = reused(code)
    with pytest.raises(RequestError, match=f".*{re.escape(WRONG[code])}"):
        worker.make()


NOT_NEEDED = f"""{LINEAR}
class Own(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        raise ValueError
def callbacks():
    return [keras.callbacks.ModelCheckpoint("best.keras"), keras.callbacks.TensorBoard(), Own()]
"""


def test_callbacks_that_are_not_needed_are_told_and_left_out(reused: ReusedLearner) -> None:
    lines: list[str] = []
    worker = reused(NOT_NEEDED, on_log=lines.append)
    assert worker.make().callbacks == "Own"
    Training(worker).run(0, 2)
    reused.read_all()
    assert lines == [
        "note: callback ModelCheckpoint has no effect: every epoch is stored, and the one with the lowest val_loss is "
        "published",
        "note: callback TensorBoard has no effect: the run's history has the metrics of every epoch",
        "note: callback Own: on_train_end is not called, since a training may go on later",
    ]


def test_a_list_or_a_module_named_callbacks_is_no_function(reused: ReusedLearner) -> None:
    lines: list[str] = []
    for code in (f"from keras import callbacks\n{LINEAR}", f"{LINEAR}\ncallbacks = [keras.callbacks.EarlyStopping()]"):
        assert reused(code, on_log=lines.append).make().callbacks == ""
    reused.read_all()
    assert lines == ["note: callbacks is a list, which has no effect; define a function callbacks() that returns it"]
