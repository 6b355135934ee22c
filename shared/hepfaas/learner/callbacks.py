"""Keras callbacks of the user's code, called between epochs.

The process may end after any segment, and callbacks keep values in plain attributes. So a checkpoint has the metrics of
every epoch. A new process creates the callbacks again and replays these epochs.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hepfaas.learner.user_errors import ModelError

PREFIX = "callbacks/"
"""Name prefix of the checkpoint arrays that hold the epochs."""

RATES, LOGS = f"{PREFIX}rates", f"{PREFIX}logs/"

HOOKS = tuple(name for name in dir(keras.callbacks.Callback) if name.startswith("on_"))
CALLED = ("on_train_begin", "on_epoch_begin", "on_epoch_end")
NEVER_CALLED = "on_train_end"
"""Accepted without effect: a training may go on from its last checkpoint, with more epochs."""

_STORED = "every epoch is stored, and the one with the lowest val_loss is published"
_SHOWN = "the run's history has the metrics of every epoch"
WITHOUT_EFFECT: Mapping[str, str] = {
    "BackupAndRestore": "a run goes on from its last checkpoint by itself",
    "CSVLogger": _SHOWN,
    "History": _SHOWN,
    "ModelCheckpoint": _STORED,
    "OrbaxCheckpoint": _STORED,
    "ProgbarLogger": _SHOWN,
    "RemoteMonitor": _SHOWN,
    "TensorBoard": _SHOWN,
    "TerminateOnNaN": "a training that diverges fails with a message",
}
"""Callbacks of Keras that are not needed here, and why."""


class Callbacks:
    """The callbacks of one network. module: named in messages; define: the user's function `callbacks`, None if there
    is none; say: writes a note to the log."""

    def __init__(
        self, module: str, model: keras.Model, define: Callable[[], Any] | None, seed: int, say: Callable[[str], None]
    ) -> None:
        self._module, self._model, self._define, self._seed = module, model, define, seed
        self._given = self._callbacks = list[keras.callbacks.Callback]()
        self._rates, self._logs = list[float](), dict[str, list[float]]()
        self._begin()
        for name in dict.fromkeys(type(one).__name__ for one in self._given if _is_not_needed(one)):
            say(f"callback {name} has no effect: {WITHOUT_EFFECT[name]}")
        for one in self._callbacks:
            if _overrides(one, NEVER_CALLED) and not _is_of_keras(one):
                say(f"callback {type(one).__name__}: {NEVER_CALLED} is not called, since a training may go on later")

    @property
    def names(self) -> str:
        """Names of the callbacks that are called, '' if there are none."""
        return ", ".join(type(one).__name__ for one in self._callbacks)

    def begin_epoch(self, epoch: int) -> None:
        """Call the callbacks before the first segment of an epoch."""
        if epoch == 0:
            self._begin()
        self._rates.append(rate_of(self._model))
        self._call("on_epoch_begin", epoch, {})

    def end_epoch(self, metrics: Mapping[str, float]) -> bool:
        """Call the callbacks with the metrics of an epoch; return whether they stop the training."""
        n_before = len(self._rates) - 1
        for name in {**self._logs, **metrics}:
            self._logs.setdefault(name, [math.nan] * n_before).append(metrics.get(name, math.nan))
        return self._end(n_before)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the epochs so far as arrays of a checkpoint."""
        if not self._callbacks:
            return {}
        logs = {f"{LOGS}{name}": np.asarray(values, dtype=np.float64) for name, values in self._logs.items()}
        return {RATES: np.asarray(self._rates, dtype=np.float64), **logs}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Create the callbacks again and replay the epochs of a checkpoint.

        This changes the learning rate of the network; its variables must be loaded afterwards.
        """
        self._begin()
        if not self._callbacks or RATES not in arrays:
            return
        logs = {name.removeprefix(LOGS): array.tolist() for name, array in arrays.items() if name.startswith(LOGS)}
        n_ended = min(map(len, logs.values()), default=0)
        for epoch, rate in enumerate(arrays[RATES].tolist()):
            if not math.isnan(rate):
                self._model.optimizer.learning_rate = rate
            self._rates.append(rate)
            self._call("on_epoch_begin", epoch, {})
            if epoch < n_ended:
                self._logs = {name: values[: epoch + 1] for name, values in logs.items()}
                self._end(epoch)

    def _begin(self) -> None:
        """Make the callbacks and call them as before the first epoch."""
        self._rates, self._logs = [], {}
        if self._define is None:
            return
        self._draw_from(-1)
        self._given = self._checked(self._define())
        self._callbacks = [one for one in self._given if not _is_not_needed(one)]
        for one in self._callbacks:
            one.set_params({"verbose": 0})
            one.set_model(self._model)
        self._call("on_train_begin", {})

    def _end(self, epoch: int) -> bool:
        self._model.stop_training = False
        self._call("on_epoch_end", epoch, {name: values[epoch] for name, values in self._logs.items()})
        return bool(self._model.stop_training)

    def _call(self, hook: str, *arguments: Any) -> None:
        for one in self._callbacks:
            before = [np.array(variable) for variable in self._model.variables]
            self._draw_from(len(self._rates))
            getattr(one, hook)(*arguments)
            if not all(map(np.array_equal, before, self._model.variables)):
                raise ModelError(
                    f"{self._module}: callback {type(one).__name__} changes the network's weights in {hook}; it may "
                    "change the learning rate and stop the training, since another process can repeat only these"
                )

    def _draw_from(self, epoch: int) -> None:
        """Seed Python's and NumPy's generators, so that callbacks draw the same numbers when they are called again."""
        random.seed(f"{self._seed}/{epoch}")
        np.random.seed((self._seed + epoch) % 2**32)

    def _checked(self, given: Any) -> list[keras.callbacks.Callback]:
        if not isinstance(given, list | tuple) or not all(isinstance(one, keras.callbacks.Callback) for one in given):
            raise ModelError(f"{self._module}: callbacks() must return a list of keras.callbacks.Callback objects")
        for one in given:
            other = [hook for hook in HOOKS if _overrides(one, hook) and hook not in (*CALLED, NEVER_CALLED)]
            if other and not _is_not_needed(one):
                raise ModelError(
                    f"{self._module}: callback {type(one).__name__} has {other[0]}, which is not called, since updates "
                    f"run in one compiled loop; callbacks are called between epochs: {', '.join(CALLED)}"
                )
        return list(given)


def definition(user: Any, module: str, say: Callable[[str], None]) -> Callable[[], Any] | None:
    """Return the function `callbacks` of the user's code, None if it has none. Raises: ModelError if it takes
    arguments."""
    define = getattr(user, "callbacks", None)
    if isinstance(define, list | tuple):
        say("callbacks is a list, which has no effect; define a function callbacks() that returns it")
    if not callable(define) or inspect.isclass(define):
        return None  # `from keras import callbacks` is a module
    try:
        inspect.signature(define).bind()
    except TypeError as error:
        raise ModelError(f"{module}: callbacks takes {inspect.signature(define)}; it must take no argument") from error
    return define  # type: ignore[no-any-return]  # the user's code is not typed


def rate_of(model: keras.Model) -> float:
    """Return the learning rate of a network; NaN if it follows a schedule of its own, or there is no optimizer."""
    variables = [] if model.optimizer is None else model.optimizer.variables
    rates = [variable for variable in variables if variable.name == "learning_rate"]
    return float(np.asarray(rates[0])) if rates else math.nan


def _overrides(callback: keras.callbacks.Callback, hook: str) -> bool:
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(keras.callbacks.Callback, hook)


def _is_not_needed(callback: keras.callbacks.Callback) -> bool:
    return _is_of_keras(callback) and type(callback).__name__ in WITHOUT_EFFECT


def _is_of_keras(callback: keras.callbacks.Callback) -> bool:
    return type(callback).__module__.partition(".")[0] == "keras"
