"""Memory that requests under way hold: one budget for each process, which all owners share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from hepfaas.models.batching import OverloadedError


class Held:
    """Bytes of each request, for any thread.

    One owner's requests have at most `most_bytes`, less half of what others hold. So no number of owners can take all
    that there is, and together they hold less than twice `most_bytes`.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._sizes: dict[Hashable, tuple[str, int]] = {}
        self._of_owner: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sizes)

    def size_of(self, request: Hashable) -> int:
        """Return what a request holds."""
        return self._sizes.get(request, ("", 0))[1]

    def hold(self, request: Hashable, owner: str, size: int) -> None:
        """Count that a request holds so many bytes. Raises: OverloadedError if that is too much beside the others."""
        with self._lock:
            more = size - self.size_of(request)
            own, others = self._of_owner[owner] + more, self._of_owner.total() - self._of_owner[owner]
            is_alone = len(self._sizes) == (request in self._sizes)
            if own > self._most_bytes - others // 2 and not is_alone:
                count = len(self._sizes.keys() | {request})
                raise OverloadedError(f"{count} long bodies or answers come at once; ask again in a second")
            self._sizes[request] = owner, size
            self._of_owner[owner] += more

    def release(self, request: Hashable) -> None:
        """Count that a request is over; one that holds nothing changes nothing."""
        if request not in self._sizes:  # nearly all
            return
        with self._lock:
            owner, size = self._sizes.pop(request)
            self._of_owner[owner] -= size
            if not self._of_owner[owner]:
                del self._of_owner[owner]
