"""Begins runs, ends them and begins them again: what a person or a rule asks of a run as a whole."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import replace

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform import records
from hepfaas.platform.cloud_events import Sender
from hepfaas.platform.records import End, Request
from hepfaas.platform.storage import Store
from hepfaas.service import events
from hepfaas.service.events import RunName

SOURCE = "runs"
MOST_CLAIMS = 100


class Submitting:
    """Acts on the runs of one owner. root: the store above the owners' ones."""

    def __init__(self, root: Store, store: Store, sender: Sender, owner: str) -> None:
        self._root, self._store, self._sender, self._owner = root, store, sender, owner

    def submit(self, request: Request, idempotency_key: str = "") -> str:
        """Begins a run and gives its name; asked again with the same idempotency key, it is the same run.

        Raises: RequestError if another recipe was submitted with that key; UnavailableError.
        """
        run = self._once(request, idempotency_key) if idempotency_key else records.create(self._store, request)
        self._activate(run)
        return run

    def cancel(self, run: str) -> bool:
        """Ends the run's attempt; False if it had ended."""
        attempt = records.attempt(self._store, run)
        if attempt.end:
            return False
        records.end(self._store, run, attempt.number, End("cancelled", time.time()))
        self._wake(run, attempt.number)
        return True

    def retry(self, run: str) -> int:
        """Begins a new attempt and gives its number. Raises: RequestError if the last one has not failed."""
        attempt = records.attempt(self._store, run)
        if attempt.end is None:
            raise RequestError(f"run '{run}' is under way; only a run that failed or was cancelled can be tried again")
        if attempt.end.state == "completed":
            raise RequestError(f"run '{run}' has completed: there is nothing to try again; submit the folder anew")
        records.begin(self._store, run, attempt.number + 1)
        self._activate(run)
        return attempt.number + 1

    def delete(self, run: str) -> None:
        """Cancels the run and marks it as deleted; its records go a while later, published models stay."""
        self.cancel(run)
        self._store.create(f"runs/{run}/deleted.json", json.dumps({"time": time.time()}).encode())
        self._root.create(f"deleted/{self._owner}/{run}", b"")

    def _once(self, request: Request, idempotency_key: str) -> str:
        """The run of an idempotency key. The recipe is claimed with it first, then the run's name, then the run is
        made under that name: two at once, and one that goes on after a kill, make the same."""
        once = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]
        what = json.dumps(request.recipe.to_json(), sort_keys=True)
        self._store.create(f"idempotency/{once}/recipe.json", what.encode())
        if json.loads(self._store.get(f"idempotency/{once}/recipe.json")) != json.loads(what):
            raise RequestError(f"Idempotency-Key '{idempotency_key}' was used for another submission; take a new one")
        settled = f"idempotency/{once}/run"
        if self._store.size_bytes(settled) is None:
            self._store.create(settled, self._named(replace(request, once=once)).encode())
        return self._store.get(settled).decode()

    def _named(self, request: Request) -> str:
        """Makes the run of a request that is made once. A name that another one took meanwhile is left to it."""
        for number in range(1, MOST_CLAIMS + 1):
            claim = f"idempotency/{request.once}/names/{number}"
            self._store.create(claim, records.next_name(self._store, request.recipe.name).encode())
            run = self._store.get(claim).decode()
            if records.create_as(self._store, run, request):
                return run
        raise UnavailableError(f"{MOST_CLAIMS} names for the run were taken by others at the same moment")

    def _activate(self, run: str) -> None:
        """Lets `advance` know of the run: it looks at it every minute from now on, and as soon as the event comes."""
        attempt = records.attempt(self._store, run)
        if attempt.end is None:
            self._root.create(f"active/{self._owner}/{run}", b"")
            self._wake(run, attempt.number)

    def _wake(self, run: str, attempt: int) -> None:
        name = RunName(self._owner, run, attempt)
        trace = records.request_of(self._store, run).trace
        self._sender.send(events.event(events.RUN_SUBMITTED, SOURCE, f"runs/{run}", name, name.to_json(), trace))


def new_trace() -> str:
    """A W3C trace context of its own: version, trace, span, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
