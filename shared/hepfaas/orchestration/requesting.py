"""Runs that one function asks for and another begins: who asks may write its wishes alone, neither runs nor steps.

<owner>/asked/<run>   what was asked; it stays, so that the same wish is the same run
asked/<owner>/<run>   index of runs that are asked for and have not begun, for the ping: a lost event begins them later
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
    """Asks for runs of one owner. root: the store above the owners' ones; source: the function that asks; quotas: that
    the owner keeps to, if any."""

    root: Store
    sender: Sender
    owner: str
    source: str
    quotas: Quotas | None = None

    def ask(self, request: Request, idempotency_key: str = "") -> str:
        """Asks for a run and gives the name that it will have; with the same idempotency key again, it is the same.

        Raises: RequestError if something else was asked with that key; ForbiddenError, LimitError if the owner has
        as much as he may have; UnavailableError.
        """
        self.check_quotas(len(json.dumps(request.to_json())))
        once = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32] if idempotency_key else secrets.token_hex(16)
        wish = replace(request, once=once)
        run = _written(self.root, self.owner, wish, idempotency_key)
        self.root.create(f"asked/{self.owner}/{run}", b"")
        name = RunName(self.owner, run, 1)
        wished = events.event(events.RUN_REQUESTED, self.source, f"asked/{run}", name, name.to_json(), wish.trace)
        self.sender.send(wished)
        return run

    def check_quotas(self, size_bytes: int) -> None:
        """Raises: LimitError if the owner may have no more runs; ForbiddenError if he may not store so much more."""
        if self.quotas:
            self.quotas.check_runs(self.owner)
            self.quotas.check_bytes(self.owner, counted_bytes(size_bytes))

    def check_unpacked(self, sizes: Iterable[int], announced_bytes: int) -> None:
        """Count objects of these sizes that came of a body, as far as they are more than what was counted of it.

        Raises: ForbiddenError.
        """
        more = sum(map(counted_bytes, sizes)) - counted_bytes(announced_bytes)
        if self.quotas and more > 0:
            self.quotas.check_bytes(self.owner, more)


def asked_for(store: Store, run: str) -> Request | None:
    """What was asked for under the name of a run; None if nothing was. Raises: RequestError if it cannot be read."""
    try:
        return Request.from_json(json.loads(store.get(f"asked/{run}")))
    except MissingError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"what was asked for as 'asked/{run}' is no request of this release ({type(error).__name__}: {error}); "
            "delete it, or let the release that wrote it begin the run"
        ) from error


def _written(root: Store, owner: str, wish: Request, idempotency_key: str) -> str:
    """Stores the wish under a name that it has made from its mark; one that another's has already is passed over."""
    data = json.dumps(wish.to_json(), sort_keys=True).encode()
    for number in range(MOST_NAMES):
        place = int(hashlib.sha256(f"{wish.once} {number}".encode()).hexdigest()[:8], 16)
        run = f"{wish.recipe.name}-{place}"
        key = f"{owner}/asked/{run}"
        if root.create(key, data):
            return run
        there = Request.from_json(json.loads(root.get(key)))
        if there.once == wish.once:
            if there.recipe != wish.recipe:
                raise RequestError(f"Idempotency-Key '{idempotency_key}' was used for another request; take a new one")
            return run
    raise UnavailableError(f"{MOST_NAMES} names for the run were taken by others")
