"""Runs that one function requests and another begins: the first may write requests only, neither runs nor steps.

<owner>/asked/<run>   the request; it stays, so that the same request is the same run
asked/<owner>/<run>   index of requested runs that have not begun, for the ping: if an event is lost they begin later
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hepfaas.errors import MissingError, RequestError, UnavailableError
from hepfaas.orchestration import events
from hepfaas.orchestration.events import RunName
from hepfaas.orchestration.records import Request
from hepfaas.platform.cloud_events import Sender
from hepfaas.platform.identity import Quotas
from hepfaas.platform.storage import Store, counted_bytes

MOST_NAMES = 10


@dataclass(frozen=True)
class Asking:
    """Requests runs for one owner. root: the store above the owners' stores; source: the requesting function; quotas:
    the owner's, if any."""

    root: Store
    sender: Sender
    owner: str
    source: str
    quotas: Quotas | None = None

    def ask(self, request: Request, idempotency_key: str = "") -> str:
        """Request a run and return the name that it will have; the same idempotency key gives the same run.

        Raises: RequestError if the key was used for another request; ForbiddenError, LimitError if the owner has
        reached a limit; UnavailableError.
        """
        self.check_quotas(len(json.dumps(request.to_json())))
        once = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32] if idempotency_key else secrets.token_hex(16)
        marked = replace(request, once=once)
        run = _written(self.root, self.owner, marked, idempotency_key)
        self.root.create(f"asked/{self.owner}/{run}", b"")
        name = RunName(self.owner, run, 1)
        self.sender.send(events.event(events.RUN_REQUESTED, self.source, f"asked/{run}", name, trace=request.trace))
        return run

    def check_quotas(self, size_bytes: int) -> None:
        """Raise LimitError if the owner may have no more runs, ForbiddenError if not these bytes."""
        if self.quotas:
            self.quotas.check_runs(self.owner)
            self.quotas.check_bytes(self.owner, counted_bytes(size_bytes))

    def check_unpacked(self, sizes: Iterable[int], announced_bytes: int) -> None:
        """Count objects unpacked from a body, as far as their sizes exceed what was counted for the body itself.

        Raises: ForbiddenError.
        """
        more = sum(map(counted_bytes, sizes)) - counted_bytes(announced_bytes)
        if self.quotas and more > 0:
            self.quotas.check_bytes(self.owner, more)


def asked_for(store: Store, run: str) -> Request | None:
    """Return the request under the name of a run, None if there is none. Raises: RequestError if it cannot be read."""
    try:
        return Request.from_json(json.loads(store.get(f"asked/{run}")))
    except MissingError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"'asked/{run}' is not a request of this release ({type(error).__name__}: {error}); "
            "delete it, or let the release that wrote it begin the run"
        ) from error


def _written(root: Store, owner: str, request: Request, idempotency_key: str) -> str:
    """Store a request under a name made from its mark, and return the name; skip names that other requests have."""
    data = json.dumps(request.to_json(), sort_keys=True).encode()
    for number in range(MOST_NAMES):
        place = int(hashlib.sha256(f"{request.once} {number}".encode()).hexdigest()[:8], 16)
        run = f"{request.recipe.name}-{place}"
        key = f"{owner}/asked/{run}"
        if root.create(key, data):
            return run
        stored = Request.from_json(json.loads(root.get(key)))
        if stored.once == request.once:
            if stored.recipe != request.recipe:
                raise RequestError(f"Idempotency-Key '{idempotency_key}' was used for another request; take a new one")
            return run
    raise UnavailableError(f"other requests have taken {MOST_NAMES} names for the run")
