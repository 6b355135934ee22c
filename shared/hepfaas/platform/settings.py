"""The only reader of the process's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """store: address of the store where none is given: HEPFAAS_STORE, else hepfaas in the user's data folder."""

    store: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that the variables give."""
        data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return cls(environ.get("HEPFAAS_STORE") or f"{data}/hepfaas")
