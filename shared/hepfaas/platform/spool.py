"""Disk space for request bodies: one budget for each process, shared by all its requests."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hepfaas.errors import LimitError, UnavailableError

MOST_SHARES = 16
"""Uploads at a time in one process: each holds a few descriptors and buffers."""

OWNERS_PART = 2 / 3
"""Part of the budget, and of the uploads at a time, that one owner may use."""


class Spool:
    """A budget of bytes on disk. Bytes count when they are written, so a false Content-Length reserves nothing."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._used: Counter[str] = Counter()
        self._shares: Counter[str] = Counter()

    @contextmanager
    def share(self, owner: str, announced: int | None = None) -> Iterator[Share]:
        """Return the share of one request, which ends with the block; remove the files within the block.

        announced: size of the body in bytes, if the client sent it.
        Raises: LimitError if this owner uses too much; UnavailableError if all owners together do.
        """
        with self._lock:
            self._check(owner, announced or 0, shares=1)
            self._shares[owner] += 1
        share = Share(self, owner)
        try:
            yield share
        finally:
            with self._lock:
                _subtract(self._shares, owner, 1)
                _subtract(self._used, owner, share.used_bytes)

    def take(self, owner: str, size: int) -> None:
        """Count bytes that an owner is about to write. Raises: LimitError; UnavailableError."""
        with self._lock:
            self._check(owner, size)
            self._used[owner] += size

    def _check(self, owner: str, size: int, shares: int = 0) -> None:
        if self._used.total() + size > self.most_bytes or self._shares.total() + shares > MOST_SHARES:
            raise UnavailableError(
                f"uploads under way fill the {self.most_bytes / 1e9:g} GB (HEPFAAS_SPOOL_BYTES) or the {MOST_SHARES} "
                "places of this instance; send it again later"
            )
        if (
            self._used[owner] + size > self.most_bytes * OWNERS_PART
            or self._shares[owner] + shares > MOST_SHARES * OWNERS_PART
        ):
            raise LimitError("your other uploads under way take too much of this instance; send it again when they end")


class Share:
    """The share of one request. used_bytes: counted so far."""

    def __init__(self, spool: Spool, owner: str) -> None:
        self._spool, self._owner, self.used_bytes = spool, owner, 0

    def take(self, size: int) -> None:
        """Count bytes before they are written. Raises: LimitError; UnavailableError."""
        self._spool.take(self._owner, size)
        self.used_bytes += size


def _subtract(counter: Counter[str], owner: str, size: int) -> None:
    counter[owner] -= size
    if counter[owner] <= 0:
        del counter[owner]
