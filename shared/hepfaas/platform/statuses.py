"""HTTP statuses of errors: one table for all functions."""

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

FAULT = "the function failed; this is a bug, and its log has the details"
"""The message for every error that is not in the table (500)."""

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
"""The first matching class counts, so subclasses come before their parents."""


def status_of(error: Exception) -> tuple[int, dict[str, str]] | None:
    """Return status and headers of the answer for an error; None if it is not in the table."""
    return next(((status, dict(headers)) for kind, status, headers in _STATUSES if isinstance(error, kind)), None)
