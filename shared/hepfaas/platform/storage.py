"""The interface of an object store. Implementations: folder.py, s3.py; stores.py opens one by its address."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from typing import Protocol

from hepfaas.errors import RequestError

PROBERS = 8
"""How many try at once to create one object in a probe."""


LEAST_BYTES = 1_000
"""An object counts as so many bytes at least against an owner's limit: the store keeps its key and place too. So the
limit on bytes is one on the number of objects as well."""

Data = bytes | memoryview | mmap
"""What can be stored; a mapped file is sent without a copy in memory."""


class Store(Protocol):
    """Immutable objects under keys such as `local/steps/survey/3f…`.

    Every method raises `UnavailableError` when the store does not answer in time, and `RequestError` when it
    refuses (no permission, full disk): neither leaves half an object behind.
    """

    @property
    def url(self) -> str:
        """What opens the same store in another process."""
        ...

    def get(self, key: str) -> bytes:
        """The whole object. Raises: MissingError if it is not there."""
        ...

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the object, fewer at its end. Raises: MissingError if it is not there."""
        ...

    def size_bytes(self, key: str) -> int | None:
        """Size of the object, None if it is not there."""
        ...

    def create(self, key: str, data: Data) -> bool:
        """Stores the object whole if there is none under this key; False if somebody was first."""
        ...

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with the prefix, sorted; only those behind the key `after`."""
        ...

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens if it is not there."""
        ...


class OpenedStore(Store, Protocol):
    """A store that was opened by its address."""

    def below(self, folder: str) -> OpenedStore:
        """The store of the keys that start with `folder/`, over the same connection."""
        ...

    def used_bytes(self) -> int:
        """Size of all objects, each as `counted_bytes` counts it."""
        ...


class StagedStore:
    """A store that reads from another one, and keeps in memory what it is given until it is told to store it."""

    def __init__(self, below: Store) -> None:
        self.url = below.url
        self._below = below
        self._kept: dict[str, Data] = {}

    def new_sizes(self) -> list[int]:
        """Return the size in bytes of each object that is kept and that the other store does not have."""
        return [len(data) for key, data in self._kept.items() if self._below.size_bytes(key) is None]

    def store(self) -> None:
        """Stores what was kept."""
        for key, data in self._kept.items():
            self._below.create(key, data)

    def get(self, key: str) -> bytes:
        """The whole object."""
        return bytes(self._kept[key][:]) if key in self._kept else self._below.get(key)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the object."""
        return bytes(self._kept[key][start:stop]) if key in self._kept else self._below.get_range(key, start, stop)

    def size_bytes(self, key: str) -> int | None:
        """Size of the object, None if it is not there."""
        return len(self._kept[key]) if key in self._kept else self._below.size_bytes(key)

    def create(self, key: str, data: Data) -> bool:
        """Keeps the object."""
        self._kept[key] = data
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys of the store below."""
        return self._below.keys(prefix, after)

    def delete(self, key: str) -> None:
        """Forgets the object."""
        self._kept.pop(key, None)


def counted_bytes(size_bytes: int) -> int:
    """Bytes that an object of this size counts as against an owner's limit."""
    return max(size_bytes, LEAST_BYTES)


def is_name(text: str) -> bool:
    """Whether a text can be one part of a key."""
    return bool(_NAME.fullmatch(text) and text.strip("."))


_NAME = re.compile(r"[A-Za-z0-9._@+=-]{1,200}")


def probe(store: Store) -> None:
    """Tries what every promise of ours rests on: of many who create one object at once, one succeeds.

    Raises: RequestError if the store lets two of them, or gives back what another than the winner wrote.
    """
    key = f"probe/{uuid.uuid4().hex}"
    offers = [f"{number}".encode() for number in range(PROBERS)]
    try:
        with ThreadPoolExecutor(PROBERS) as pool:
            won = list(pool.map(lambda offer: store.create(key, offer), offers))
        winners = [offer for offer, created in zip(offers, won, strict=True) if created]
        if winners != [store.get(key)] or store.create(key, b"late"):
            raise RequestError(
                f"store {store.url} ignores create-if-absent (If-None-Match: *): {len(winners)} of {PROBERS} who "
                "created one object at once succeeded; results would be overwritten. Use a store that honours it, "
                "SeaweedFS for one",
                outside="the store ignores create-if-absent (If-None-Match: *), so that results would be overwritten",
            )
    finally:
        store.delete(key)
