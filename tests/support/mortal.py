"""A store whose user is killed at a call, and a sender that remembers."""

from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """A folder store whose user is killed at the n-th create, before or after it."""

    def __init__(self, store: Store, nth: int, after: bool) -> None:
        self._store, self._left, self._after, self.url = store, nth, after, store.url

    def create(self, key: str, data: bytes) -> bool:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        created = self._store.create(key, data)
        if self._left == 0:
            raise Killed
        return created

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Taken:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []

    def send(self, event: CloudEvent) -> None:
        self.events.append(event)
