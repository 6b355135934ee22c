"""How each owner's files are read: by the operator's file, and with that owner's credentials and no one else's."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, field

from hepfaas.datasets.doors import ALL_S, Reading
from hepfaas.datasets.sources import Sources, sources_in
from hepfaas.platform.credentials import Vault
from hepfaas.platform.roles import Group
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store


@dataclass(frozen=True)
class Readings:
    """What all readings of a process share. private: whether files may be read from private addresses."""

    sources: Sources = field(default_factory=Sources)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    private: bool = False

    @classmethod
    def by(cls, settings: Settings) -> Readings:
        """As the settings say. Raises: RequestError if the operator's file is wrong."""
        issuer = settings.issuers[0] if settings.issuers else ""
        return cls(sources_in(settings.sources, issuer), settings.credentials_keys, settings.allow_private)

    def vault(self, store: Store, owner: str) -> Vault:
        """An owner's credentials; `store` is his."""
        return Vault(store, owner, self.keys)

    def reading(self, store: Store, owner: str, groups: Collection[Group]) -> Reading:
        """For one step or one request of an owner, asked for by a member of these groups."""
        shown = functools.cache(self.vault(store, owner).get)
        return Reading(self.sources, shown, groups, f"{store.url}/", self.private, ALL_S)
