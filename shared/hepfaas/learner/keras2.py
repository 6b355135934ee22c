"""Spellings of Keras 2 that Keras 3 refuses, as published models have them: accepted, each with one note.

Runs only in the learner process, and changes Keras there: arguments of optimizers, modules that have moved, functions
of `keras.backend`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import keras
from keras.src.optimizers.base_optimizer import BaseOptimizer  # the optimizers share no public class with __init__

Say = Callable[[str], None]

LAYERS = (
    "advanced_activations", "convolutional", "core", "embeddings", "experimental", "experimental.preprocessing",
    "local", "merge", "noise", "normalization", "pooling", "recurrent", "wrappers",
)  # fmt: skip

ROOTS = ("keras", "tensorflow.keras")

MOVED = {f"{root}.layers.{name}": f"{root}.layers" for root in ROOTS for name in LAYERS} | {
    f"{root}.{old}": f"{root}.{new}"
    for root in ROOTS
    for old, new in (
        ("engine", "layers"),
        ("engine.topology", "layers"),
        ("objectives", "losses"),
        ("utils.np_utils", "utils"),
        ("optimizer_v2", "optimizers"),
    )
}
"""Modules of Keras 2, and the modules of Keras 3 that have their content."""

_say: list[Say] = []


def accept(say: Say) -> None:
    """Accept Keras 2 in this process; `say` gets a note at each use."""
    _say[:] = [say]
    for name in [name for name in MOVED if isinstance(getattr(sys.modules.get(name), "__loader__", None), _Finder)]:
        del sys.modules[name]  # the next import is noted again
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.append(_Finder())
    BaseOptimizer.__init__ = _optimizer_init(BaseOptimizer.__init__)
    old = importlib.import_module("keras._tf_keras.keras")
    for ours, theirs in ((keras.backend, old.backend), (keras.losses, old.losses)):
        for name in vars(theirs).keys() - vars(ours).keys():
            setattr(ours, name, getattr(theirs, name))
    for root in ("keras", "keras._tf_keras.keras", "tensorflow.keras"):  # each is a module of its own
        legacy = importlib.import_module(f"{root}.optimizers.legacy")
        for name in [name for name in vars(legacy) if not name.startswith("_")]:
            setattr(legacy, name, _of_legacy(name))


def _note(text: str) -> None:
    _say[0](text)


def _optimizer_init(init: Any) -> Any:
    @functools.wraps(init)
    def accepting(self: Any, learning_rate: Any, *arguments: Any, **named: Any) -> None:
        if "lr" in named:
            learning_rate = named.pop("lr")
            _note("'lr' of the optimizer is accepted; Keras 3 calls it learning_rate")
        decay = named.pop("decay", None)
        if decay:
            learning_rate = keras.optimizers.schedules.InverseTimeDecay(learning_rate, 1, decay)
            _note("'decay' of the optimizer is accepted; Keras 3 has schedules.InverseTimeDecay, which is used")
        init(self, learning_rate, *arguments, **named)

    return accepting


def _of_legacy(name: str) -> Callable[..., Any]:
    def made(*arguments: Any, **named: Any) -> Any:
        _note(f"optimizers.legacy.{name} is accepted; optimizers.{name} of Keras 3 is used")
        return getattr(keras.optimizers, name)(*arguments, **named)

    return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of Keras 2."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        name = MOVED[module.__name__]
        content = vars(importlib.import_module(name))
        vars(module).update({key: value for key, value in content.items() if not key.startswith("__")})
        _note(f"module {module.__name__} of Keras 2 is accepted; its content is in {name}")
