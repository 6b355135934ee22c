"""Begin, end and retry runs: requests of people and rules that concern a run as a whole."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from dataclasses import replace

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.orchestration import events, records
from hepfaas.orchestration.events import RunName
from hepfaas.orchestration.records import End, Request
from hepfaas.orchestration.requesting import asked_for
from hepfaas.platform.cloud_events import Sender
from hepfaas.platform.identity import Quotas
from hepfaas.platform.storage import Store
from hepfaas.runs.kinds import recipe_from_json

SOURCE = "runs"
MOST_CLAIMS = 100
_TRACE = re.compile(r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""


class Submitting:
    """Acts on the runs of one owner. root: the store above the owners' stores. quotas: the owner's, if any."""

    def __init__(self, root: Store, store: Store, sender: Sender, owner: str, quotas: Quotas | None = None) -> None:
        self._root, self._store, self._sender, self._owner = root, store, sender, owner
        self._quotas = quotas

    def submit(self, request: Request, idempotency_key: str = "") -> str:
        """Begin a run and return its name; the same idempotency key gives the same run.

        Raises: RequestError if another recipe was submitted with that key; LimitError or ForbiddenError if the owner
        has reached a limit; UnavailableError.
        """
        if idempotency_key:
            run = self._once(request, idempotency_key)
        else:
            self._check_quotas()
            run = records.create(self._store, request)
        self._activate(run)
        return run

    def begin(self, run: str) -> None:
        """Begin a run that another function requested under this name; a doubled or late event changes nothing.

        Raises: RequestError if there is no such request.
        """
        request = asked_for(self._store, run)
        if request is None:
            raise RequestError(f"no run '{run}' was requested")
        if records.create_as(self._store, run, request):
            self._activate(run)
        self._root.delete(f"asked/{self._owner}/{run}")

    def cancel(self, run: str) -> bool:
        """End the run's attempt; False if it had ended before."""
        attempt = records.attempt(self._store, run)
        if attempt.end:
            return False
        records.end(self._store, run, attempt.number, End("cancelled", time.time()))
        self._wake(run, attempt.number)
        return True

    def retry(self, run: str) -> int:
        """Begin a new attempt and return its number. Raises: RequestError if the last one has not failed."""
        attempt = records.attempt(self._store, run)
        if attempt.end is None:
            raise RequestError(f"run '{run}' is under way; only a run that failed or was cancelled can be tried again")
        if attempt.end.state == "completed":
            raise RequestError(f"run '{run}' has completed: there is nothing to try again; submit the folder again")
        self._check_quotas()
        records.begin(self._store, run, attempt.number + 1)
        self._activate(run)
        return attempt.number + 1

    def delete(self, run: str) -> None:
        """Cancel the run and mark it as deleted; its records are removed later, published models stay."""
        self.cancel(run)
        self._store.create(f"runs/{run}/deleted.json", json.dumps({"time": time.time()}).encode())
        self._root.create(f"deleted/{self._owner}/{run}", b"")

    def _check_quotas(self) -> None:
        if self._quotas:
            self._quotas.check_runs(self._owner)
            self._quotas.check_bytes(self._owner)

    def _once(self, request: Request, idempotency_key: str) -> str:
        """Return the run of an idempotency key. The key claims the recipe, then the run's name, then the run is created
        under that name: two calls at once, and one repeated after a kill, give the same run."""
        once = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]
        recipe = json.dumps(request.recipe.to_json(), sort_keys=True)
        settled = f"idempotency/{once}/run"
        if is_new := self._store.size_bytes(settled) is None:
            self._check_quotas()  # before anything is stored
        self._store.create(f"idempotency/{once}/recipe.json", recipe.encode())
        if recipe_from_json(json.loads(self._store.get(f"idempotency/{once}/recipe.json"))) != request.recipe:
            raise RequestError(f"Idempotency-Key '{idempotency_key}' was used for another submission; take a new one")
        if is_new:
            self._store.create(settled, self._named(replace(request, once=once)).encode())
        return self._store.get(settled).decode()

    def _named(self, request: Request) -> str:
        """Create the run of a request that is made once; skip names that other requests took meanwhile."""
        for number in range(1, MOST_CLAIMS + 1):
            claim = f"idempotency/{request.once}/names/{number}"
            self._store.create(claim, records.next_name(self._store, request.recipe.name).encode())
            run = self._store.get(claim).decode()
            if records.create_as(self._store, run, request):
                return run
        raise UnavailableError(f"other requests took {MOST_CLAIMS} names for the run at the same moment")

    def _activate(self, run: str) -> None:
        """List the run as active, which `advance` looks at every minute, and send an event so that it looks now."""
        attempt = records.attempt(self._store, run)
        if attempt.end is None:
            self._root.create(f"active/{self._owner}/{run}", b"")
            self._wake(run, attempt.number)

    def _wake(self, run: str, attempt: int) -> None:
        name = RunName(self._owner, run, attempt)
        trace = records.request_of(self._store, run).trace
        self._sender.send(events.event(events.RUN_SUBMITTED, SOURCE, f"runs/{run}", name, trace=trace))


def trace_of(header: str) -> str:
    """Return the W3C trace context of a request, or a new one if the header is empty or invalid."""
    context = _TRACE.fullmatch(header)
    if context and context["version"] != "ff" and context["trace"].strip("0") and context["span"].strip("0"):
        return header
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
