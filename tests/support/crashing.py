"""A store that crashes its user at a call, and a sender that records events."""

from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store


class Crash(BaseException):
    """Stands for the end of the process."""


class CrashingStore:
    """A store that raises Crash at the n-th create, before or after it."""

    def __init__(self, store: Store, nth: int, after: bool) -> None:
        self._store, self._left, self._after, self.url = store, nth, after, store.url

    def create(self, key: str, data: bytes) -> bool:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Crash
        created = self._store.create(key, data)
        if self._left == 0:
            raise Crash
        return created

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class RecordingSender:
    """Records events instead of sending them."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []

    def send(self, event: CloudEvent) -> None:
        self.events.append(event)
