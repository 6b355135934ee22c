"""What we ask of a store of objects, and how one is opened by its address. Implementations: folder.py, s3.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


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
        """Bytes [start, stop) of the object, fewer at its end; a negative start counts from the end, as does
        stop 0 then. Raises: MissingError if it is not there."""
        ...

    def size_bytes(self, key: str) -> int | None:
        """Size of the object, None if it is not there."""
        ...

    def create(self, key: str, data: bytes | memoryview) -> bool:
        """Stores the object whole if there is none under this key; False if somebody was first."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that start with the prefix, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens if it is not there."""
        ...


def open_store(url: str) -> Store:
    """The store at an address: s3://bucket/prefix, or a folder."""
    from hepfaas.platform.folder import FolderStore

    return FolderStore(Path(url))


def probe(store: Store) -> None:
    """TODO(helper)"""
