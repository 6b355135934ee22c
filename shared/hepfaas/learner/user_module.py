"""The user's module: it is imported, and its function `model` is called. Runs only in the learner process."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hepfaas.learner.columns import Column
from hepfaas.learner.user_errors import ModelError

COLUMNS = "columns"

BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def defined(code: Path, module: str) -> Any:
    """Return the user's module, which has a function `model`.

    Its files run again each time, since they may draw random numbers. Raises: ModelError; what the code raises.
    """
    for name, loaded in list(sys.modules.items()):
        if Path(getattr(loaded, "__file__", None) or "/").is_relative_to(code):
            del sys.modules[name]
    stem = Path(module).stem
    spec = importlib.util.spec_from_file_location(f"user_{stem}" if stem in sys.modules else stem, code / module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    define = getattr(loaded, "model", None)
    if not callable(define):
        raise ModelError(f"{module} has no function 'model'; define model(idim) that returns a compiled Keras model")
    if _arguments(define, 1, ()) is None:
        raise ModelError(
            f"{module}: model takes {inspect.signature(define)}; it must take idim, idim and columns, or nothing"
        )
    return loaded


def made(user: Any, n_features: int, columns: Sequence[Column]) -> Any:
    """Return what the user's function `model` returns. It gets what it takes: nothing, the number of features, or this
    and the columns."""
    arguments, named = _arguments(user.model, n_features, columns) or ((), {})
    return user.model(*arguments, **named)


def _arguments(
    define: Any, n_features: int, columns: Sequence[Column]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments for a function, None if there are none that it takes.

    It gets the columns if it has an argument of that name, or a second one without a default.
    """
    signature = inspect.signature(define)
    parameters = signature.parameters
    by_place = [one for one in parameters.values() if one.kind in BY_PLACE]
    named = {COLUMNS: columns} if COLUMNS in parameters and parameters[COLUMNS].kind not in BY_PLACE[:1] else {}
    second = len(by_place) > 1 and by_place[1].default is inspect.Parameter.empty and by_place[1].name not in named
    for arguments in ((n_features, columns) if second else (n_features,), ()):
        try:
            signature.bind(*arguments, **named)
        except TypeError:
            continue
        return arguments, named
    return None
