"""A limit on the processor time of work that the expressions of a user cause."""

from __future__ import annotations

import time
from collections.abc import Callable

from hepfaas.errors import RequestError

STEP_S = 240.0
"""For the events of one step."""

REQUEST_S = 10.0
"""For the events of one request."""


def work_limit(seconds: float) -> Callable[[], None]:
    """Return a function that raises RequestError after `seconds` more of this thread's processor time."""
    end = time.thread_time() + seconds

    def check() -> None:
        if time.thread_time() > end:
            raise RequestError(
                f"the new branches, cuts and object cuts take more than {seconds:g} s for these events; use fewer or "
                "simpler expressions, or fewer events at a time"
            )

    return check
