"""The backends of a function by its settings: object store and broker; with planned faults in chaos tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hepfaas.errors import RequestError, UnavailableError, public_text
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import OpenedStore, Store, probe
from hepfaas.platform.stores import open_store

if TYPE_CHECKING:
    from hepfaas.platform.cloud_events import Keys, Sender


KEPT_OWNERS = 1_000
_PROBED: set[str] = set()
_PROBING = threading.Lock()


def root_store(settings: Settings) -> OpenedStore:
    """Return the store with the keys of all owners."""
    return _with_faults(open_store(settings.store), settings)


def check_store(settings: Settings) -> None:
    """Probe the store once in a process. Functions that start runs call it before they write.

    Raises: UnavailableError if the store gives no guarantee (storage.py) or does not answer.
    """
    with _PROBING:
        if settings.store in _PROBED:
            return
        try:
            probe(open_store(settings.store))
        except RequestError as error:
            raise UnavailableError(str(error), outside=public_text(error)) from error
        _PROBED.add(settings.store)


def store_of_owner(settings: Settings) -> Callable[[str], Store]:
    """Return a function that returns the store of an owner, by the first part of its keys. All share one connection."""
    root = functools.cache(lambda: open_store(settings.store))
    return functools.lru_cache(KEPT_OWNERS)(lambda owner: _with_faults(root().below(owner), settings))


def sender(settings: Settings, keys: Keys | None = None) -> Sender:
    """Return the sender to the broker. keys: for signatures; by default those of the settings.

    Raises: RequestError if no broker is set.
    """
    from hepfaas.platform.cloud_events import HttpSender  # only where events are sent

    http = HttpSender(settings.broker, settings.event_keys if keys is None else keys)
    if not settings.faults:
        return http
    from hepfaas.platform.faults import FaultySender, Plan

    return FaultySender(http, Plan(Path(settings.faults)))


def _with_faults(store: OpenedStore, settings: Settings) -> OpenedStore:
    if not settings.faults:
        return store
    from hepfaas.platform.faults import FaultyStore, Plan

    return FaultyStore(store, Plan(Path(settings.faults)))
