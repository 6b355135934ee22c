"""Errors for users: requests to change (RequestError), and temporary failures (UnavailableError)."""


class Failure(Exception):
    """Base of both families. outside: message for callers by HTTP and gRPC, if the message itself names a store, a
    folder or a host inside."""

    def __init__(self, *args: object, outside: str = "") -> None:
        super().__init__(*args)
        self.outside = outside


def public_text(error: Exception) -> str:
    """Return the message of a failure for a caller by HTTP or gRPC."""
    return getattr(error, "outside", "") or str(error)


class RequestError(Failure):
    """The request cannot succeed, also not if repeated (HTTP 422); the message says what to change."""


class NotThereError(RequestError):
    """The object does not exist, or belongs to another owner (HTTP 404)."""


class TooLargeError(RequestError):
    """The body is too large (HTTP 413)."""


class UnauthenticatedError(RequestError):
    """The request has no valid token (HTTP 401)."""


class ForbiddenError(RequestError):
    """The caller does not have the right to do this (HTTP 403)."""


class UnavailableError(Failure):
    """Something outside did not answer (HTTP 503); the same request may succeed later."""


class LimitError(UnavailableError):
    """The owner is at a limit (HTTP 429); the same request succeeds when a part of their work is done."""


class MissingError(UnavailableError):
    """An object that a step needs is not in the store; the step that makes it has to be repeated."""

    def __init__(self, key: str, store: str) -> None:
        super().__init__(key, store, outside=f"the store has no object '{key}'")
        self.key, self.store = key, store

    def __str__(self) -> str:
        return f"store {self.store} has no object '{self.key}'"
