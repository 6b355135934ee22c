"""How each owner's files are read: by the operator's file, and with that owner's credentials and no one else's."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, field

from hepfaas.datasets.doors import ALL_S, HASHED_BYTES, Reading
from hepfaas.datasets.sources import Sources, sources_in
from hepfaas.platform.credentials import Vault
from hepfaas.platform.roles import Group
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory


@dataclass(frozen=True)
class Readings:
    """What all readings of a process share. private: whether files may be read from private addresses. hashed_bytes:
    largest file on a server that is identified by its content."""

    sources: Sources = field(default_factory=Sources)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    private: bool = False
    hashed_bytes: int = HASHED_BYTES
    memory: Memory = USUAL_MEMORY

    @classmethod
    def by(cls, settings: Settings) -> Readings:
        """As the settings say. Raises: RequestError if the operator's file is wrong."""
        issuer = settings.issuers[0] if settings.issuers else ""
        sources = sources_in(settings.sources, issuer)
        keys, private = settings.credentials_keys, settings.allow_private
        return cls(sources, keys, private, settings.hashed_bytes, settings.worker_memory)

    def vault(self, store: Store, owner: str) -> Vault:
        """An owner's credentials; `store` is his."""
        return Vault(store, owner, self.keys)

    def reading(self, store: Store, owner: str, groups: Collection[Group]) -> Reading:
        """For one step or one request of an owner, asked for by a member of these groups."""
        shown = functools.cache(self.vault(store, owner).get)
        own, most = f"{store.url}/", self.hashed_bytes
        return Reading(self.sources, shown, groups, own, self.private, ALL_S, hashed_bytes=most, memory=self.memory)
