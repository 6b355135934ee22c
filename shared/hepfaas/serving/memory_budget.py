"""Memory of the requests under way: one budget for each process, which all owners share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from hepfaas.models.batching import OverloadedError


class MemoryBudget:
    """Counts the bytes that each request holds. Safe to use from any thread.

    One owner's requests may hold `most_bytes`, less half of what others hold. So no number of owners can take all
    memory, and together they hold less than twice `most_bytes`.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._sizes: dict[Hashable, tuple[str, int]] = {}
        self._owner_bytes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sizes)

    def size_of(self, request: Hashable) -> int:
        """Return the bytes that a request holds."""
        return self._sizes.get(request, ("", 0))[1]

    def hold(self, request: Hashable, owner: str, size: int) -> None:
        """Set the bytes that a request holds. Raises: OverloadedError if that is too much beside the others."""
        with self._lock:
            more = size - self.size_of(request)
            own, others = self._owner_bytes[owner] + more, self._owner_bytes.total() - self._owner_bytes[owner]
            is_alone = len(self._sizes) == (request in self._sizes)
            if own > self._most_bytes - others // 2 and not is_alone:
                count = len(self._sizes.keys() | {request})
                raise OverloadedError(f"{count} long bodies or answers come at once; ask again in a second")
            self._sizes[request] = owner, size
            self._owner_bytes[owner] += more

    def release(self, request: Hashable) -> None:
        """Count that a request is over. Most requests hold nothing."""
        if request not in self._sizes:
            return
        with self._lock:
            owner, size = self._sizes.pop(request)
            self._owner_bytes[owner] -= size
            if not self._owner_bytes[owner]:
                del self._owner_bytes[owner]
