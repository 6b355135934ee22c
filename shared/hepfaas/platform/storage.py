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
"""Number of concurrent attempts to create one object in a probe."""

LEAST_BYTES = 1_000
"""Smallest size with which an object counts against an owner's limit, since the store also keeps its key and location.
So the limit on bytes also limits the number of objects."""

Data = bytes | memoryview | mmap
"""Contents of an object; a mapped file is sent without a copy in memory."""


class Store(Protocol):
    """Immutable objects under keys such as `local/steps/survey/3f…`.

    Every method raises `UnavailableError` if the store does not answer in time, and `RequestError` if it refuses (no
    permission, full disk). Neither leaves a partial object.
    """

    @property
    def url(self) -> str:
        """Return the address that opens the same store in another process."""
        ...

    def get(self, key: str) -> bytes:
        """Return the whole object. Raises: MissingError if it does not exist."""
        ...

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the object, fewer at its end. Raises: MissingError if it does not exist."""
        ...

    def size_bytes(self, key: str) -> int | None:
        """Return the size of the object, None if it does not exist."""
        ...

    def create(self, key: str, data: Data) -> bool:
        """Store the whole object unless the key exists. Return whether it was stored."""
        ...

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Return the keys that start with the prefix, sorted; only those after the key `after`."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""
        ...


class OpenedStore(Store, Protocol):
    """A store that was opened by its address."""

    def below(self, folder: str) -> OpenedStore:
        """Return the store of the keys that start with `folder/`, over the same connection."""
        ...

    def used_bytes(self) -> int:
        """Return the total size of all objects, each by `counted_bytes`."""
        ...


class StagedStore:
    """A store that reads from another one and keeps new objects in memory until `store` writes them."""

    def __init__(self, below: Store) -> None:
        self.url = below.url
        self._below = below
        self._kept: dict[str, Data] = {}

    def new_sizes(self) -> list[int]:
        """Return the size in bytes of each kept object that the other store does not have."""
        return [len(data) for key, data in self._kept.items() if self._below.size_bytes(key) is None]

    def store(self) -> None:
        """Write the kept objects to the other store."""
        for key, data in self._kept.items():
            self._below.create(key, data)

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        return bytes(self._kept[key][:]) if key in self._kept else self._below.get(key)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the object."""
        return bytes(self._kept[key][start:stop]) if key in self._kept else self._below.get_range(key, start, stop)

    def size_bytes(self, key: str) -> int | None:
        """Return the size of the object, None if it does not exist."""
        return len(self._kept[key]) if key in self._kept else self._below.size_bytes(key)

    def create(self, key: str, data: Data) -> bool:
        """Keep the object."""
        self._kept[key] = data
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Return the keys of the other store."""
        return self._below.keys(prefix, after)

    def delete(self, key: str) -> None:
        """Drop the kept object."""
        self._kept.pop(key, None)


def counted_bytes(size_bytes: int) -> int:
    """Return the size with which an object of this size counts against an owner's limit."""
    return max(size_bytes, LEAST_BYTES)


def is_name(text: str) -> bool:
    """Return whether a text can be one part of a key."""
    return bool(_NAME.fullmatch(text) and text.strip("."))


_NAME = re.compile(r"[A-Za-z0-9._@+=-]{1,200}")


def probe(store: Store) -> None:
    """Test the guarantee that everything depends on: of many concurrent attempts to create an object, one succeeds.

    Raises: RequestError if several succeed, or if the store returns another object than the winner's.
    """
    key = f"probe/{uuid.uuid4().hex}"
    offers = [f"{number}".encode() for number in range(PROBERS)]
    try:
        with ThreadPoolExecutor(PROBERS) as pool:
            created = list(pool.map(lambda offer: store.create(key, offer), offers))
        winners = [offer for offer, is_created in zip(offers, created, strict=True) if is_created]
        if winners != [store.get(key)] or store.create(key, b"late"):
            raise RequestError(
                f"store {store.url} ignores create-if-absent (If-None-Match: *): {len(winners)} of {PROBERS} "
                "concurrent attempts to create one object succeeded; results would be overwritten. Use a store that "
                "supports it, such as SeaweedFS",
                outside="the store ignores create-if-absent (If-None-Match: *), so results would be overwritten",
            )
    finally:
        store.delete(key)
