"""The two families of failure. Owns their meaning; the text is written where the finding is made."""


class Failure(Exception):
    """Either family. outside: the message for callers by HTTP and gRPC, where that of the operator names a store, a
    folder or a host inside."""

    def __init__(self, *args: object, outside: str = "") -> None:
        super().__init__(*args)
        self.outside = outside


def public_text(error: Exception) -> str:
    """Return the message of a failure for a caller by HTTP or gRPC."""
    return getattr(error, "outside", "") or str(error)


class RequestError(Failure):
    """What was asked cannot be done, and asking again changes nothing (HTTP 422): the message says what to change."""


class NotThereError(RequestError):
    """What was asked for is not there, or another owner's (HTTP 404)."""


class TooLargeError(RequestError):
    """More was sent than may be (HTTP 413)."""


class UnauthenticatedError(RequestError):
    """Nobody knows who asks: there is no token, or none that holds (HTTP 401)."""


class ForbiddenError(RequestError):
    """Who asks is known and may not do this (HTTP 403)."""


class UnavailableError(Failure):
    """Something outside did not answer (HTTP 503): the same request may work later."""


class LimitError(UnavailableError):
    """Who asks has all that he may have at a time (HTTP 429): when some of it is done, the same request works."""


class MissingError(UnavailableError):
    """An object that a step needs is not in the store: the step that makes it is to be done again."""

    def __init__(self, key: str, store: str) -> None:
        super().__init__(key, store, outside=f"the store has no object '{key}'")
        self.key, self.store = key, store

    def __str__(self) -> str:
        return f"store {self.store} has no object '{self.key}'"
