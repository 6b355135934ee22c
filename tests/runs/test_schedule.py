"""Learning rates and early stopping follow from the losses alone, as Keras's callbacks have them."""

import math
from typing import Any

import pytest
from hepfaas.runs.schedule import Name, Schedule, n_epochs_until_stop
from hypothesis import given, settings
from hypothesis import strategies as st

LOSSES = st.lists(st.integers(0, 24).map(lambda number: number / 64), min_size=1, max_size=30)
"""Losses that float32, in which Keras compares them, has exactly."""

DELTAS = st.sampled_from([0.0, 1 / 64, 4 / 64])


class Model:
    """The model as a Keras callback sees it."""

    def __init__(self) -> None:
        self.optimizer = self
        self.learning_rate = 1.0
        self.stop_training = False


def kept(callback: Any, losses: list[float]) -> tuple[list[float], int | None]:
    """Return the learning rate of each epoch, and the number of epochs until a callback of Keras stops."""
    model, rates, stop = Model(), [1.0], None
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        rates.append(model.learning_rate)
        stop = stop or (epoch + 1 if model.stop_training else None)
    return rates, stop


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(LOSSES, st.integers(1, 4), DELTAS, st.integers(0, 3), st.sampled_from([0.5, 0.25]))
def test_plateaus_are_those_of_keras(
    losses: list[float], patience: int, min_delta: float, cooldown: int, factor: float
) -> None:
    import keras

    callback = keras.callbacks.ReduceLROnPlateau(
        factor=factor, patience=patience, min_delta=min_delta, cooldown=cooldown, min_lr=0.01
    )
    schedule = Schedule(
        name="reduce_on_plateau",
        factor=factor,
        patience=patience,
        min_delta=min_delta,
        cooldown=cooldown,
        least=0.01,
    )
    assert list(schedule.factors(len(losses) + 1, losses)) == pytest.approx(kept(callback, losses)[0])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(LOSSES, st.integers(1, 5), DELTAS)
def test_a_training_stops_where_keras_stops_it(losses: list[float], patience: int, min_delta: float) -> None:
    import keras

    callback = keras.callbacks.EarlyStopping(patience=patience, min_delta=min_delta)
    assert n_epochs_until_stop(losses, patience, min_delta) == kept(callback, losses)[1]


@given(LOSSES, st.integers(1, 5), DELTAS, st.integers(1, 4), st.integers(0, 40))
def test_later_losses_change_no_earlier_epoch(
    losses: list[float], patience: int, min_delta: float, cooldown: int, n_more: int
) -> None:
    """So a plan that reads the epochs one by one names the same steps as one that reads them all."""
    schedule = Schedule(name="reduce_on_plateau", patience=patience, min_delta=min_delta, cooldown=cooldown)
    whole = schedule.factors(len(losses) + n_more, losses)
    for count in range(len(losses) + 1):
        part = schedule.factors(len(losses) + n_more, losses[:count])
        assert part[: count + 1] == whole[: count + 1]
        assert set(part[count + 1 :]) <= {part[count] if count < len(part) else part[-1]}
    stop = n_epochs_until_stop(losses, patience, min_delta)
    if stop is not None:
        assert n_epochs_until_stop(losses[:stop], patience, min_delta) == stop
        assert n_epochs_until_stop(losses[: stop - 1], patience, min_delta) is None


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(name="exponential", factor=0.5), [1, 0.5, 0.25, 0.125]),
        (Schedule(name="step", factor=0.1, every=2), [1, 1, 0.1, 0.1]),
        (Schedule(name="cosine"), [math.cos(math.pi * epoch / 8) ** 2 for epoch in range(4)]),
        (Schedule(name="cosine", final=0.5), [(1 + math.cos(math.pi * epoch / 8) ** 2) / 2 for epoch in range(4)]),
        (Schedule(name="warmup_cosine", warmup=2), [1 / 3, 2 / 3, 1, 0.5]),
        (Schedule(name="warmup_cosine", warmup=9), [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_a_schedule_gives_a_factor_for_each_epoch(schedule: Schedule, factors: list[float]) -> None:
    assert list(schedule.factors(4, ())) == pytest.approx(factors)


@given(st.sampled_from(["cosine", "exponential", "step", "warmup_cosine"]), st.integers(1, 60))
def test_factors_lie_in_their_range_and_have_few_digits(name: Name, n_epochs: int) -> None:
    factors = Schedule(name=name).factors(n_epochs, ())
    assert len(factors) == n_epochs
    assert all(0 < factor <= 1 and factor == float(f"{factor:.12g}") for factor in factors)


def test_a_loss_that_is_not_a_number_is_no_improvement() -> None:
    assert n_epochs_until_stop([1.0, math.nan, math.nan], 2, 0.0) == 3
    assert n_epochs_until_stop([math.nan, 1.0, 0.5], 2, 0.0) is None
