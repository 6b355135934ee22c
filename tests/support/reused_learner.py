"""One learner process for many tests: each start of a process imports the framework, for seconds."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from hepfaas.errors import RequestError
from hepfaas.learner.learner import UNLIMITED, Learner, LearnerLimits, LearnerSettings
from support.learners import MODEL, ignore_line, learner


class ReusedLearner:
    """A learner process that gets one code after the other. A test that ends it leaves the next one a new process."""

    def __init__(self, limits: LearnerLimits = UNLIMITED) -> None:
        self._limits = limits
        self._worker = learner(limits=limits)
        self._n_codes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._worker.close()

    def __call__(
        self,
        code: str = MODEL,
        *,
        on_log: Callable[[str], None] = ignore_line,
        cache_bytes: int = 1 << 30,
        **changed: Any,
    ) -> Learner:
        """Return the learner with another code and other settings, of which it knows nothing but these."""
        if self._worker.closed:
            self._worker = learner(limits=self._limits)
        worker, usual = self._worker, self._worker._settings
        assert isinstance(usual, LearnerSettings)
        self.read_all()
        unchanged = {
            "labels": (0, 1),
            "batch_size": 100,
            "xla": False,
            "weighted": False,
            "class_weight": (),
            "branches": (),
        }
        settings = replace(usual, code={"model.py": code.encode()}, **{**unchanged, **changed})
        worker._settings, worker._on_log = settings, on_log
        worker._last_lines.clear()
        folder = worker._running.scratch / "code"
        worker._write_code(folder)
        self._n_codes += 1
        os.utime(folder / "model.py", (self._n_codes, self._n_codes))  # else Python may run the code before, compiled
        values = {name: value for name, value in vars(settings).items() if name != "code"}
        worker._request({"do": "begin", "cache_bytes": cache_bytes, **values})
        return worker

    def read_all(self) -> None:
        """Wait until all that was printed has been read: an error is told after it."""
        with contextlib.suppress(RequestError):
            self._worker._request({"do": "nothing"})
