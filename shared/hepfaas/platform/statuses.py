"""Failures as statuses of HTTP: one table, which every function that answers by HTTP reads."""

from __future__ import annotations

from collections.abc import Mapping

from hepfaas.errors import (
    ForbiddenError,
    LimitError,
    NotThereError,
    RequestError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
from hepfaas.platform.identity import CHALLENGE

FAULT = "the function failed; this is a fault of ours, and its log tells more"
"""What is said of anything that is not in the table (500)."""

_LATER = {"Retry-After": "1"}

_STATUSES: tuple[tuple[type[Exception], int, Mapping[str, str]], ...] = (
    (UnauthenticatedError, 401, {"WWW-Authenticate": CHALLENGE}),
    (ForbiddenError, 403, {}),
    (NotThereError, 404, {}),
    (TooLargeError, 413, {}),
    (RequestError, 422, {}),
    (LimitError, 429, _LATER),
    (UnavailableError, 503, _LATER),
)
"""The first that fits: those that are a kind of another one stand before it."""


def status_of(error: Exception) -> tuple[int, dict[str, str]] | None:
    """Status and headers of the answer that tells a failure; None if it is none of our families."""
    return next(((status, dict(headers)) for kind, status, headers in _STATUSES if isinstance(error, kind)), None)
