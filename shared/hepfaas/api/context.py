"""The context of a call of `runs`: the request, the caller, and the services that the call uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Request
from werkzeug.exceptions import NotFound, RequestEntityTooLarge

from hepfaas.datasets.reading import Readings
from hepfaas.orchestration import records
from hepfaas.orchestration.submitting import Submitting, trace_of
from hepfaas.platform.cloud_events import Sender
from hepfaas.platform.credentials import Vault
from hepfaas.platform.identity import Caller, Quotas
from hepfaas.platform.spool import Share, Spool
from hepfaas.platform.storage import LEAST_BYTES, Store, counted_bytes


@dataclass(frozen=True, kw_only=True)
class Context:
    """One request, its caller, and the owner's store. root: the store above the owners' stores."""

    request: Request
    root: Store
    store: Store
    sender: Sender
    caller: Caller
    quotas: Quotas
    readings: Readings
    allow_private: bool
    most_upload_bytes: int
    spool: Spool

    @property
    def owner(self) -> str:
        """Owner of the store."""
        return self.caller.owner

    @property
    def submitting(self) -> Submitting:
        """Begins and ends runs of this owner."""
        return Submitting(self.root, self.store, self.sender, self.owner, self.quotas)

    @property
    def vault(self) -> Vault:
        """The owner's credentials for file servers."""
        return self.readings.vault(self.store, self.owner)

    @property
    def trace(self) -> str:
        """The W3C trace context that the client sent, or a new one."""
        return trace_of(self.request.headers.get("traceparent", ""))

    @contextmanager
    def received(self) -> Iterator[Share]:
        """Accept an upload up to the size of a folder, and reserve a share of the disk until the end of the block.

        Raises: RequestEntityTooLarge; LimitError; UnavailableError.
        """
        size = self.request.content_length
        self.request.max_content_length = self.most_upload_bytes
        if size is not None and size > self.most_upload_bytes:
            raise RequestEntityTooLarge()
        with self.spool.share(self.owner, size) as share:
            yield share

    @property
    def _announced_bytes(self) -> int:
        return self.request.content_length or LEAST_BYTES

    def check_body(self) -> None:
        """Count the announced size of the body as stored by the owner. Raises: ForbiddenError."""
        self.quotas.check_bytes(self.owner, self._announced_bytes)

    def check_unpacked(self, sizes: Iterable[int]) -> None:
        """Count objects unpacked from the body, as far as their sizes exceed what `check_body` has counted.

        Raises: ForbiddenError.
        """
        more = sum(map(counted_bytes, sizes)) - self._announced_bytes
        if more > 0:
            self.quotas.check_bytes(self.owner, more)

    def run(self, run: str) -> str:
        """Return the run if it exists. Raises: NotFound."""
        if not records.is_there(self.store, run) or records.is_deleted(self.store, run):
            raise NotFound(f"there is no run '{run}'; GET /v1/runs lists them")
        return run
