"""Keras 3 on TensorFlow: builds the user's network, trains it segment by segment, and returns its state as arrays.

Runs only in the learner process. Each update is the model's own `train_step`, in one compiled loop over a block of
rows: losses, metrics, optimisers and overridden steps work as usual, and Python runs once a block.
"""

from __future__ import annotations

import inspect
import math
import platform
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator  # Keras has no public name for it
from numpy.typing import NDArray

from hepfaas.learner import keras2, litert_graph
from hepfaas.learner.callbacks import PREFIX, Callbacks, definition, rate_of
from hepfaas.learner.columns import columns_of
from hepfaas.learner.feed import Feed, ShuffledBlock, aligned, no_labels
from hepfaas.learner.learner import processor
from hepfaas.learner.score import AS_IT_IS, Conversion, Loss, conversion_of, last_operation
from hepfaas.learner.user_errors import ModelError, export_message, summary
from hepfaas.learner.user_module import defined, made
from hepfaas.runs.targets import targets_in

INFERENCE_ROWS = 2_000
"""Rows of a batch in validation and prediction."""

ONE_HOT = ("categorical_crossentropy", "categorical_focal_crossentropy")

SPARSE = "sparse_categorical_crossentropy"

RANDOM = re.compile(r"Random|Rng|Stateful(?!Partitioned)|TruncatedNormal|Multinomial")
"""Names of TensorFlow's operations that draw random numbers."""

Labels = Literal["number", "column", "one-hot"]
"""Shape of the labels that a loss gets: (rows,), (rows, 1) as the outputs, or (rows, outputs)."""

MISFITS = (ValueError, TypeError, tf.errors.InvalidArgumentError)
"""Errors of layers and losses that get other shapes than they take."""

OnRows = Callable[[int], None]


class KerasLearner:
    """One network, defined and compiled by the user's code."""

    def __init__(self, code: Path, settings: Mapping[str, Any]) -> None:
        self._code, self.settings = code, settings
        self.batch_size: int = settings["batch_size"]
        self._labels: list[int] = settings["labels"]
        self.factors = _factors(settings)
        self._targets = targets_in(settings["targets"])
        self.n_targets = len(self._targets)
        tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.experimental.enable_op_determinism()
        sys.path.insert(0, str(code))
        self._notes: list[str] = []

    def make(self) -> dict[str, Any]:
        """Build the network from the seed and return facts about it."""
        keras.utils.clear_session()
        self._notes.clear()
        keras2.accept(self._say)
        keras.utils.set_random_seed(self.settings["seed"])
        user = defined(self._code, self.settings["module"])
        self.model = self._made(user)
        self._build()
        self._network = self._traced()
        self._conversion = self._chosen_conversion()
        self._last_layers = self._conversion.layers()
        if self._conversion.text:
            self._say(self._conversion.text)
        self._made_rate = rate_of(self.model)
        define = definition(user, self.settings["module"], self._say)
        self._callbacks = Callbacks(self.settings["module"], self.model, define, self.settings["seed"], self._say)
        self._train = _BatchLoop(self, "train_step", self.batch_size, self.settings["xla"])
        self._test = _BatchLoop(self, "test_step", INFERENCE_ROWS, xla=False)
        if self.weighted:
            self._tell_unweighted()
        lines: list[str] = []
        self.model.summary(print_fn=lines.append)
        return {
            "parameters": self.model.count_params(),
            "outputs": self._outputs,
            "loss": _loss_name(self.model),
            "score": self._conversion.text,
            "own_fit": self._own_fit,
            "optimizer": type(self.model.optimizer).__name__ if self.model.optimizer else "",
            "callbacks": self._callbacks.names,
            "summary": "\n".join(lines),
            "notes": "\n".join(self._notes),
            "processor": processor(),
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
        }

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all variables, by names that depend only on the network, and the epochs of the callbacks."""
        variables = {name: np.asarray(variable) for name, variable in self._variables()}
        return {**variables, **self._callbacks.state()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set all variables. Raises: ModelError if they belong to another network."""
        variables = dict(self._variables())
        epochs = {name: array for name, array in arrays.items() if name.startswith(PREFIX)}
        arrays = {name: array for name, array in arrays.items() if name not in epochs}
        for name in [*variables, *arrays]:
            shape = tuple(variables[name].shape) if name in variables else None
            stored_shape = arrays[name].shape if name in arrays else None
            if shape != stored_shape:
                raise ModelError(
                    f"{self.settings['module']} builds another network than the checkpoint's: '{name}' has shape "
                    f"{shape}, and {stored_shape} in the checkpoint; does the code depend on something random?"
                )
        self._callbacks.load(epochs)
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def fit(self, feed: Feed, seed: int, first: bool, by_block: bool, on_rows: OnRows) -> dict[str, Any]:
        """Train one segment. Metrics continue from the segment before, unless this is the `first` of an epoch.

        by_block: call a `fit` of the user's own for each block.
        """
        began = time.monotonic()
        if first:
            self.model.reset_metrics()
        metrics: Mapping[str, Any]
        if self._own_fit:
            keras.utils.set_random_seed(seed)
            rows, id_sum, metrics = self._fit_own(feed, by_block, on_rows)
        else:
            rows, id_sum, metrics = self._train.over(feed, seed, on_rows)
        return {
            "rows": rows,
            "id_sum": id_sum % 2**64,
            "metrics": _numbers(metrics),
            "learning_rate": float(self.model.optimizer.learning_rate) if self.model.optimizer else 0.0,
            "compile_s": self._train.compile_s,
            "seconds": time.monotonic() - began,
        }

    def begin_epoch(self, epoch: int, learning_rate: float | None, rate_factor: float | None) -> None:
        """Set the learning rate of an epoch and call the callbacks. Both rates None: the network keeps its own.

        rate_factor: of the rate that the network was compiled with.
        """
        if rate_factor is not None:
            learning_rate = self._made_rate * rate_factor
        if learning_rate is not None:
            if math.isnan(self._made_rate):
                raise ModelError(
                    f"{self.settings['module']}: the model is compiled with a learning-rate schedule of its own, or "
                    "without an optimizer; compile it with a number, or leave out learning_rate and "
                    "learning_rate_schedule"
                )
            self.model.optimizer.learning_rate = learning_rate
        self._callbacks.begin_epoch(epoch)

    def end_epoch(self, metrics: Mapping[str, float]) -> bool:
        """Call the callbacks with the metrics of an epoch; return whether they stop the training."""
        return self._callbacks.end_epoch(metrics)

    def validate(self, feed: Feed, on_rows: OnRows) -> dict[str, Any]:
        """Return loss and metrics of the rows."""
        self.model.reset_metrics()
        _, _, metrics = self._test.over(feed, self.settings["seed"], on_rows)
        answer = {"metrics": _numbers(metrics)}
        self.model.reset_metrics()
        return answer

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores, or the outputs of a regression, (events, outputs)."""
        parts = [
            np.asarray(self._scores(tf.constant(features[start : start + INFERENCE_ROWS])), dtype=np.float32)
            for start in range(0, max(1, len(features)), INFERENCE_ROWS)
        ]
        return np.concatenate(parts)

    def graph(self) -> bytes:
        """Return the LiteRT graph. Raises: ModelError if LiteRT lacks an operation."""
        return self._graph_of(self._served(self.model))

    def export(self, states: Sequence[Mapping[str, NDArray[Any]]] = ()) -> list[bytes]:
        """Return the LiteRT graph and the Keras file, whose outputs are scores, or targets in their own units; with
        states also the graph with the outputs of each network.

        states: as of `Learner.export`. Raises: ModelError if LiteRT lacks an operation, or Keras cannot store the
        network.
        """
        model, *others = self._joined(states) if states else [self._served(self.model)]
        return [self._graph_of(model), self._keras_file_of(model), *map(self._graph_of, others)]

    def _graph_of(self, model: Any) -> bytes:
        try:
            return litert_graph.graph_of(model, self.settings["n_features"])
        except Exception as error:  # converters raise exceptions of any class
            raise ModelError(f"{self.settings['module']}: {export_message(error)}") from error

    def _keras_file_of(self, model: Any) -> bytes:
        file = Path("model.keras")
        try:
            with litert_graph.as_served(model):
                model.save(file)
            return file.read_bytes()
        except Exception as error:  # layers of the user's own raise exceptions of any class
            raise ModelError(f"{self.settings['module']}: {export_message(error)}") from error
        finally:
            file.unlink(missing_ok=True)

    @property
    def weighted(self) -> bool:
        """Return whether events have weights."""
        return self.factors is not None

    def given(self, labels: NDArray[Any], *weights: NDArray[np.float32]) -> tuple[Any, ...]:
        """Return what a step gets beside the features: the targets, and the weights if there are any."""
        return (tf.constant(self.targets(labels)), *map(tf.constant, weights))

    def _zeros(self, rows: int) -> tuple[Any, ...]:
        """Return what a step gets, for rows of zeros with all labels."""
        features = np.zeros((rows, self.settings["n_features"]), dtype=np.float32)
        labels = self.no_labels(rows) if self._targets else np.resize(np.asarray(self._labels, dtype=np.int64), rows)
        weights = [np.ones(rows, dtype=np.float32)] if self.weighted else []
        return (tf.constant(features), *self.given(labels, *weights))

    def targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return the labels in the shape that the loss expects; targets as they are."""
        if self._targets or self._shape == "number":
            return labels
        if self._shape == "column":
            return labels[:, np.newaxis]
        one_hot: NDArray[Any] = np.eye(self._outputs, dtype=np.float32)[labels]
        return one_hot

    def no_labels(self, rows: int) -> NDArray[Any]:
        """Return zeros as the labels or targets of rows."""
        labels: NDArray[Any] = no_labels(rows, self.n_targets)
        return labels

    def _joined(self, states: Sequence[Mapping[str, NDArray[Any]]]) -> list[Any]:
        """Return two networks: the outputs of one are the means of those of several, the other has all of them."""
        width = self.settings["n_features"]
        inputs, outputs = keras.Input((width,)), []
        for number, state in enumerate(states, 1):
            network = self._made(defined(self._code, self.settings["module"]))
            network(np.zeros((1, width), dtype=np.float32), training=False)  # creates its variables
            weights = {name.split("/")[1]: array for name, array in state.items() if name.startswith("model/")}
            for place, variable in enumerate(network.variables):
                variable.assign(weights[f"{place:04d}"])
            network.name = f"fold_{number}"
            outputs.append(self._served(network, f"served_{number}")(inputs, training=False))
        layers = (
            keras.layers.Average(name="mean", dtype="float32"),
            keras.layers.Concatenate(name="each", dtype="float32"),
        )
        return [keras.Model(inputs, layer(outputs)) for layer in layers]

    def _served(self, model: Any, name: str = "served") -> Any:
        """Return the network with last layers that make scores of its outputs, or undo the scale of its targets."""
        layers = self._conversion.layers()
        if self._targets:
            means, deviations = ([getattr(target, name) for target in self._targets] for name in ("mean", "deviation"))
            layers = (keras.layers.Rescaling(deviations, means, name="units", dtype="float32"),)
        if not layers:
            return model
        inputs = keras.Input((self.settings["n_features"],))
        outputs = model(inputs, training=False)
        for layer in layers:
            outputs = layer(outputs)
        return keras.Model(inputs, outputs, name=name)

    def _scores(self, rows: Any) -> Any:
        outputs = self._network(rows)
        for layer in self._last_layers:
            outputs = layer(outputs)
        return outputs

    def _traced(self) -> Any:
        """Return the network as a function. Raises: ModelError if it draws random numbers."""
        network = litert_graph.traced(self.model, self.settings["n_features"])
        drawing = sorted({node.op for node in _nodes(network.graph) if RANDOM.search(node.op)})
        if drawing:
            raise ModelError(
                f"{self.settings['module']}: the network draws random numbers ({', '.join(drawing)}) when it computes "
                "scores, so an event has no score of its own; draw them only where call(..., training) is true"
            )
        return network

    def _chosen_conversion(self) -> Conversion:
        if self._targets:
            return AS_IT_IS
        loss: Loss | None = self._loss if self.model.loss is not None else None
        declared = bool(getattr(self.model.loss, "from_logits", False))
        return conversion_of(last_operation(self._network.graph), self._outputs, loss, declared)

    def _loss(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        """Return the mean loss, NaN if it cannot be computed of outputs and labels alone."""
        try:
            return float(
                self.model.compute_loss(
                    x=None, y=tf.constant(self.targets(labels)), y_pred=tf.constant(outputs), training=False
                )
            )
        except Exception:  # a loss of the user's own may need more
            return math.nan

    def _say(self, note: str) -> None:
        """Write a note to the log of the step, once for each network."""
        if note not in self._notes:
            self._notes.append(note)
            sys.stdout.write(f"note: {note}\n")

    def _made(self, user: Any) -> Any:
        columns = columns_of(self.settings["branches"])
        return self._checked(made(user, self.settings["n_features"], columns))

    def _checked(self, model: Any) -> Any:
        module = self.settings["module"]
        if model is None:
            raise ModelError(f"{module}: model(idim) returned nothing; end it with 'return' and the Keras model")
        if not isinstance(model, keras.Model):
            raise ModelError(f"{module}: model(idim) returned {_article(type(model).__name__)}; return a keras.Model")
        if not getattr(model, "compiled", False):
            raise ModelError(f"{module}: the model is not compiled; call model.compile(loss=..., optimizer=...)")
        return model

    def _build(self) -> None:
        """Create all variables before anything is compiled, and check the outputs against the labels."""
        module, width = self.settings["module"], self.settings["n_features"]
        zeros = np.zeros((1, width), dtype=np.float32)
        try:
            outputs = self.model(zeros, training=False)
        except MISFITS as error:
            raise ModelError(f"{module}: the network does not take {width} features: {summary(error)}") from error
        self._check_outputs(outputs)
        self._own_fit = type(self.model).fit is not keras.Model.fit
        if self.model.optimizer is not None:
            self.model.optimizer.build(self.model.trainable_variables)
        if self._own_fit:
            for step in ("train_step", "test_step"):
                setattr(self.model, step, _with_columns(getattr(self.model, step)))
        self._test_labels()
        self.model.reset_metrics()
        if self.weighted:
            self._check_weights_taken()

    def _test_labels(self) -> None:
        """Find the shape of the labels that the loss takes, with as many rows as none of them has columns."""
        first: Exception | None = None
        for shape in self._label_shapes():
            self._shape = shape
            try:
                self.model.test_step(self._zeros(self._outputs + 2))
                return
            except Exception as error:  # code of the user's own may refuse a shape by any
                self._check_unpacked("test_step", error)
                first = first or error
        assert first is not None
        if not isinstance(first, MISFITS):
            raise first
        given = "targets" if self._targets else "labels"
        raise ModelError(f"{self.settings['module']}: the loss does not fit the {given}: {summary(first)}") from first

    def _label_shapes(self) -> tuple[Labels, ...]:
        """Return the shapes that labels may have, the likely one first."""
        if self._targets:
            return ("number",)
        if self._outputs == 1:
            return ("column",)
        return ("one-hot",) if _loss_name(self.model) in ONE_HOT else ("number", "one-hot")

    def _check_weights_taken(self) -> None:
        """Raises: ModelError if the user's own `fit` or `train_step` takes no event weights."""
        if self._own_fit:
            try:
                inspect.signature(self.model.fit).bind(
                    0, 0, batch_size=1, epochs=1, verbose=0, sample_weight=np.ones(1)
                )
            except TypeError as error:
                raise ModelError(
                    f"{self.settings['module']}: fit takes {inspect.signature(self.model.fit)}; events have weights, "
                    "so it gets another argument, sample_weight"
                ) from error
        elif type(self.model).train_step is not keras.Model.train_step:
            row = tuple(_any_rows(tf.TensorSpec.from_tensor(tensor)) for tensor in self._zeros(1))
            try:
                tf.function(self.model.train_step).get_concrete_function(row)
            except Exception as error:  # only the one error is looked for; others are those of the first segment
                self._check_unpacked("train_step", error)

    def _tell_unweighted(self) -> None:
        """Print which metrics Keras computes without the event weights."""
        compiled = getattr(self.model, "_compile_metrics", None)
        if compiled is not None and compiled.metrics and not getattr(compiled, "_user_weighted_metrics", None):
            self._say(
                "events have weights, and Keras leaves them out of compile(metrics=...), not of weighted_metrics=..."
            )

    def _check_unpacked(self, step: str, error: Exception) -> None:
        """Raises: ModelError if a step of the user's own failed because it unpacks two values."""
        if self.weighted and "too many values to unpack (expected 2)" in str(error):
            raise ModelError(
                f"{self.settings['module']}: {step} unpacks two values, and events have weights; write "
                "'x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)' and pass sample_weight to "
                "compute_loss and compute_metrics"
            ) from error

    def _check_outputs(self, outputs: Any) -> None:
        module, labels = self.settings["module"], self._labels
        if isinstance(outputs, list | tuple | dict):
            raise ModelError(f"{module}: the network has {len(outputs)} outputs; it must have one")
        if len(outputs.shape) != 2:
            raise ModelError(f"{module}: an event gives shape {tuple(outputs.shape[1:])}; it must be a row of scores")
        self._outputs = int(outputs.shape[-1])
        if self._targets:
            self._check_n_outputs()
            return
        listed = ", ".join(map(str, labels))
        if self._outputs == 1 and labels != [0, 1]:
            raise ModelError(f"{module}: one output separates labels 0 and 1; the labels are {listed}")
        if self._outputs == 1 and _loss_name(self.model) in (*ONE_HOT, SPARSE):
            raise ModelError(
                f"{module}: loss '{_loss_name(self.model)}' needs an output for each label; the network has one: "
                "give it two, or take binary_crossentropy"
            )
        if self._outputs > 1 and (min(labels) < 0 or max(labels) >= self._outputs):
            raise ModelError(
                f"{module}: {self._outputs} outputs separate labels 0 to {self._outputs - 1}; the labels are {listed}"
            )

    def _check_n_outputs(self) -> None:
        if self._outputs != self.n_targets:
            names, plural = ", ".join(target.name for target in self._targets), "s" * (self._outputs != 1)
            raise ModelError(
                f"{self.settings['module']}: an event gives {self._outputs} number{plural}, and there "
                f"{'is 1 target' if self.n_targets == 1 else f'are {self.n_targets} targets'} ({names}); end the "
                f"network in Dense({self.n_targets})"
            )

    def uses_global_generator(self, variables: Sequence[Any]) -> bool:
        """Return whether the TensorFlow variables of a graph include the state of Keras's global random generator.

        Raises: ModelError if they include any other variable that is not the network's: no checkpoint would store it.
        """
        own = {id(variable.value) for _, variable in self._variables()}
        other = [variable for variable in variables if id(variable) not in own]
        lost = [variable for variable in other if variable is not global_seed_generator().state.value]
        if lost:
            raise ModelError(
                f"{self.settings['module']}: the network uses variable '{lost[0].name}', which is not its own and "
                "would not be stored; create it in a layer by self.add_weight, and random generators as its attributes"
            )
        return bool(other)

    def _variables(self) -> Iterator[tuple[str, Any]]:
        model = self.model
        optimizer = model.optimizer.variables if model.optimizer is not None else []
        seen: set[int] = set()
        for group, variables in (
            ("model", model.variables),
            ("optimizer", optimizer),
            ("metrics", model.metrics_variables),
        ):
            for number, variable in enumerate(variables):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    yield f"{group}/{number:04d}/{variable.name.replace('/', '.')}", variable

    def _fit_own(self, feed: Feed, by_block: bool, on_rows: OnRows) -> tuple[int, int, dict[str, Any]]:
        """Train a model that overrides `fit`, which gets all rows of the segment in one call, or of each block."""
        rows = id_sum = 0
        parts: list[tuple[NDArray[Any], ...]] = []
        metrics: dict[str, Any] = {}
        for block in feed.shuffled(spare=0):
            part = tuple(array[: block.rows] for array in block.arrays)
            if by_block:
                metrics = self._fit_on(part)
                on_rows(block.rows)
            else:
                parts.append((part[0].copy(), *part[1:]))  # the feed fills the buffer of the features again
            rows, id_sum = rows + block.rows, id_sum + block.id_sum
        if not by_block:
            metrics = self._fit_on([np.concatenate(column) for column in zip(*parts, strict=True)])
            on_rows(rows)
        return rows, id_sum, metrics

    def _fit_on(self, arrays: Sequence[NDArray[Any]]) -> dict[str, Any]:
        features, labels, *weights = arrays
        history = self.model.fit(
            features,
            labels if self._shape == "column" else self.targets(labels),
            batch_size=self.batch_size,
            epochs=1,
            verbose=0,
            **({"sample_weight": weights[0]} if weights else {}),
        )
        return {name: values[-1] for name, values in getattr(history, "history", {}).items()}


class _BatchLoop:
    """Runs `train_step` or `test_step` over the rows of a pass, batch by batch; only the last batch may be smaller."""

    def __init__(self, learner: KerasLearner, step: str, size: int, xla: bool | None) -> None:
        self._learner, self._size, self._xla = learner, size, xla
        self._step: Callable[[Any], Any] = getattr(learner.model, step)
        self._is_own = getattr(type(learner.model), step) is not getattr(keras.Model, step)
        self._eager = bool(learner.model.run_eagerly)
        self._rows: int | None = None
        self._last: Any = self._one
        self._is_random = False
        self._logs: Mapping[str, Any] = {}
        self.compile_s = 0.0

    def over(self, feed: Feed, seed: int, on_rows: OnRows) -> tuple[int, int, Mapping[str, Any]]:
        """Run the step on all rows; return their number, the sum of their event ids, and the metrics."""
        self._prepare(feed.max_rows + self._size, seed)
        rows = id_sum = 0
        n_left, left = 0, list[NDArray[Any]]()
        for block in feed.shuffled(spare=self._size):
            first, stop = block.spare - n_left, block.spare + block.rows
            for array, rest in zip(block.arrays, left, strict=False):
                array[first : block.spare] = rest
            end = stop - (stop - first) % self._size
            if end > first:
                self._run(block, first, end)
            n_left, left = stop - end, [array[end:stop].copy() for array in block.arrays]
            rows, id_sum = rows + end - first, id_sum + block.id_sum
            on_rows(end - first)
        if n_left:
            features, *others = left
            self._logs = self._last((tf.constant(features), *self._learner.given(*others)))
            rows += n_left
            on_rows(n_left)
        return rows, id_sum, self._metrics()

    def _metrics(self) -> Mapping[str, Any]:
        """Return the model's metrics; if an overridden step returned others, its last result, as in Keras."""
        metrics: Mapping[str, Any] = self._learner.model.get_metrics_result()
        return self._logs if self._is_own and set(self._logs) != set(metrics) else metrics

    def _prepare(self, capacity: int, seed: int) -> None:
        """Compile the loop if necessary, and seed the random generators that are not the network's own.

        A seed that is set while a graph is traced becomes part of the graph. So graphs are traced with the recipe's
        seed, whichever segment a process starts with, and traced again in each segment if they draw random numbers.
        """
        began = time.monotonic()
        self.compile_s = 0.0
        if self._eager:
            keras.utils.set_random_seed(seed)
            return
        if capacity != self._rows:
            self._compile(capacity, self._learner.settings["seed"])
            self.compile_s = time.monotonic() - began
        if self._is_random:
            self._compile(capacity, seed)
            self.compile_s = time.monotonic() - began
        random.seed(seed)
        np.random.seed(seed)

    def _compile(self, capacity: int, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        features = tf.TensorSpec([capacity, self._learner.settings["n_features"]], tf.float32)
        targets = tf.TensorSpec.from_tensor(tf.constant(self._learner.targets(self._learner.no_labels(capacity))))
        weights = [tf.TensorSpec([capacity], tf.float32)] if self._learner.weighted else []
        data = (features, targets, *weights)
        scalar = tf.TensorSpec([], tf.int32)
        # For the last batch of a pass, where XLA's compile time would not pay off. Its size is open: a graph traced for
        # one size adds in another order than one for all sizes, and results must not depend on the sizes before.
        self._last = tf.function(self._one, input_signature=[tuple(map(_any_rows, data))])
        last = self._last.get_concrete_function()
        self._results = last.structured_outputs
        xla = not _draws(last.graph) if self._xla is None else self._xla
        signature = [data, scalar, scalar]
        self._loop = tf.function(self._looped, input_signature=signature, jit_compile=xla)
        loop = self._loop.get_concrete_function()
        variables = [*last.variables, *loop.variables]
        self._is_random = self._learner.uses_global_generator(variables) or _has_seeds(loop.graph)
        others = [tf.zeros(spec.shape, spec.dtype) for spec in (targets, *weights)]
        no_rows = (_tensor(aligned(tuple(features.shape))), *others)
        nothing = (no_rows, tf.constant(0), tf.constant(0))
        try:
            self._loop(*nothing)  # compiles without training on a row
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not xla:
                raise
            if self._xla:
                raise ModelError(
                    f"{self._learner.settings['module']}: XLA cannot compile the network ({summary(error)[:200]}); "
                    "leave 'xla' out of params.json"
                ) from error
            keras.utils.set_random_seed(seed)  # as before the first tracing
            self._loop = tf.function(self._looped, input_signature=signature)
            self._loop(*nothing)
        self._rows = capacity

    def _run(self, block: ShuffledBlock, first: int, end: int) -> None:
        features, *others = block.arrays
        if self._eager:
            for start in range(first, end, self._size):
                rows = slice(start, start + self._size)
                given = self._learner.given(*(array[rows] for array in others))
                self._logs = self._one((tf.constant(features[rows]), *given))
            return
        data = (_tensor(features), *self._learner.given(*others))
        done, self._logs = self._loop(data, tf.constant(first), tf.constant(end))
        assert int(done) == end  # also waits for the result: the buffer will be overwritten

    def _looped(self, data: Any, first: Any, end: Any) -> Any:
        def body(start: Any, logs: Any) -> Any:
            return start + self._size, self._one(tuple(_rows(tensor, start, self._size) for tensor in data))

        # The start of a batch is the loop's own variable. As an offset that the loop adds to, XLA would compile again
        # for each of its values: for each number of rows that the block before may leave over.
        zeros = tf.nest.map_structure(lambda result: tf.zeros(result.shape, result.dtype), self._results)
        return tf.while_loop(lambda start, logs: start < end, body, (first, zeros), parallel_iterations=1)

    def _one(self, data: Any) -> Mapping[str, Any]:
        logs = self._step(data)
        return {name: tf.convert_to_tensor(value) for name, value in logs.items()} if self._is_own else {}


def _with_columns(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the step for labels of shape (rows,), which a `fit` of the user's own gets: it has them as (rows, 1)."""

    def of(data: Any) -> Any:
        if isinstance(data, tuple) and len(data) > 1 and tf.is_tensor(data[1]) and data[1].shape.rank == 1:
            data = (data[0], data[1][:, tf.newaxis], *data[2:])
        return step(data)

    return of


def _any_rows(spec: Any) -> Any:
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


def _has_seeds(graph: Any) -> bool:
    """Return whether the graph has a random operation of TensorFlow with its own seed and state."""
    return any("seed2" in node.attr for node in _nodes(graph))


def _draws(graph: Any) -> bool:
    """Return whether the graph draws random numbers, as dropout does. XLA computes them slowly on processors."""
    return any(RANDOM.search(node.op) for node in _nodes(graph))


def _nodes(graph: Any) -> Iterator[Any]:
    definition = graph.as_graph_def()
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def _tensor(array: NDArray[np.float32]) -> Any:
    """Return the array as a tensor, without a copy if its memory is aligned."""
    if array.ctypes.data % 64 == 0 and array.flags.c_contiguous:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


def _rows(tensor: Any, start: Any, size: int) -> Any:
    shape = tensor.shape[1:].as_list()
    return tf.slice(tensor, [start, *[0] * len(shape)], [size, *shape])


def _factors(settings: Mapping[str, Any]) -> dict[int, float] | None:
    """Return the factor of the event weights by label, {} if all are 1; None if the training has no weights."""
    if not settings["weighted"] and not settings["class_weight"]:
        return None
    return dict(zip(settings["labels"], settings["class_weight"], strict=False))


def _loss_name(model: Any) -> str:
    loss = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    return str(name)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
