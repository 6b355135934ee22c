"""What a function reaches outside, by its settings: stores and the broker; with planned faults in chaos tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hepfaas.errors import RequestError, UnavailableError, public_text
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Opened, Store, probe
from hepfaas.platform.stores import open_store

if TYPE_CHECKING:
    from hepfaas.platform.cloud_events import Keys, Sender


KEPT_OWNERS = 1_000
_PROBED: set[str] = set()
_PROBING = threading.Lock()


def root_store(settings: Settings) -> Opened:
    """The store above all owners."""
    return _with_faults(open_store(settings.store), settings)


def check_store(settings: Settings) -> None:
    """Probes the store, once a process: by what begins runs, before it writes. Raises: UnavailableError if it is none
    to rest on, or does not answer."""
    with _PROBING:
        if settings.store in _PROBED:
            return
        try:
            probe(open_store(settings.store))
        except RequestError as error:
            raise UnavailableError(str(error), outside=public_text(error)) from error
        _PROBED.add(settings.store)


def store_of_owner(settings: Settings) -> Callable[[str], Store]:
    """Gives the store of an owner, the first part of every key. All of them share what one connection costs."""
    root = functools.cache(lambda: open_store(settings.store))
    return functools.lru_cache(KEPT_OWNERS)(lambda owner: _with_faults(root().below(owner), settings))


def sender(settings: Settings, keys: Keys | None = None) -> Sender:
    """The way to the broker. keys: that sign events, if not those of the settings. Raises: RequestError if there is no
    broker."""
    from hepfaas.platform.cloud_events import Broker  # only where events are sent

    broker = Broker(settings.broker, settings.event_keys if keys is None else keys)
    if not settings.faults:
        return broker
    from hepfaas.platform.faults import FaultySender, Plan

    return FaultySender(broker, Plan(Path(settings.faults)))


def _with_faults(store: Opened, settings: Settings) -> Opened:
    if not settings.faults:
        return store
    from hepfaas.platform.faults import FaultyStore, Plan

    return FaultyStore(store, Plan(Path(settings.faults)))
